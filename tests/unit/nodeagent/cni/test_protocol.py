import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.cni import protocol
from nodeagent.cni.protocol import Answer, ProtocolError, Request

texts = st.text(max_size=40)
requests = st.builds(
    Request,
    command=texts,
    container_id=texts,
    netns=texts,
    ifname=texts,
    args=texts,
    path=texts,
    config=st.binary(max_size=200),
)
EMPTY = Request(command="", container_id="", netns="", ifname="", args="", path="", config=b"")


@given(requests)
def test_a_request_survives_the_wire(request_: Request) -> None:
    data = protocol.encode_request(request_)
    length = protocol.request_length(data[:4])
    assert length == len(data) - 4
    assert protocol.decode_request(data[4:]) == request_


@given(requests, st.data())
def test_a_request_that_is_cut_or_stretched_is_refused(
    request_: Request, data: st.DataObject
) -> None:
    body = protocol.encode_request(request_)[4:]
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(ProtocolError):
        protocol.decode_request(body[:cut])
    with pytest.raises(ProtocolError):
        protocol.decode_request(body + b"x")


@given(st.binary(max_size=80))
def test_noise_is_refused_or_read_whole(noise: bytes) -> None:
    try:
        found = protocol.decode_request(noise)
    except ProtocolError:
        return
    assert protocol.encode_request(found)[4:] == noise


def test_lengths_are_bounded() -> None:
    for length in (0, 27, protocol.MAX_REQUEST_BYTES + 1, 0xFFFFFFFF):
        with pytest.raises(ProtocolError):
            protocol.request_length(struct.pack(">I", length))


def test_a_variable_that_is_no_text_is_refused() -> None:
    body = protocol.encode_request(EMPTY)[4:]
    with pytest.raises(ProtocolError, match="UTF-8"):
        protocol.decode_request(struct.pack(">I", 1) + b"\xff" + body[4:])


def test_an_answer_is_code_length_text() -> None:
    assert (
        protocol.encode_answer(Answer(exit_code=1, stdout=b"{}"))
        == bytes((0, 0, 0, 1, 0, 0, 0, 2)) + b"{}"
    )
