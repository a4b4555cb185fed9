import socket
import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.flood import Stream, checksum, echo_request, reply_number, summary

HEADER = bytes([0x45]) + bytes(19)


def reply(request: bytes, family: int) -> bytes:
    kind = 0 if family == socket.AF_INET else 129
    header = HEADER if family == socket.AF_INET else b""
    return header + bytes([kind]) + request[1:]


@given(st.binary(max_size=200).map(lambda data: data + b"\0" * (len(data) % 2)))
def test_data_with_its_checksum_sums_to_zero(data: bytes) -> None:
    assert checksum(data + checksum(data).to_bytes(2)) == 0


@given(st.integers(0, 1 << 20), st.integers(0, 1 << 20))
def test_an_ipv4_request_has_a_valid_checksum(identifier: int, number: int) -> None:
    assert checksum(echo_request(socket.AF_INET, identifier, number)) == 0


@given(st.sampled_from([socket.AF_INET, socket.AF_INET6]), st.integers(0, 1 << 40))
def test_the_reply_gives_the_number_back(family: int, number: int) -> None:
    assert reply_number(family, reply(echo_request(family, 1, number), family)) == number


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_other_packets_are_not_replies(family: int) -> None:
    request = echo_request(family, 1, 7)
    header = HEADER if family == socket.AF_INET else b""
    stranger = reply(request[:8] + b"somebody" + request[16:], family)

    assert reply_number(family, header + request) is None
    assert reply_number(family, stranger) is None
    assert reply_number(family, reply(request[:10], family)) is None


def test_the_header_length_of_ipv4_is_honoured() -> None:
    request = echo_request(socket.AF_INET, 1, 7)
    longer = bytes([0x46]) + bytes(23) + bytes([0]) + request[1:]

    assert reply_number(socket.AF_INET, longer) == 7


def test_what_did_not_come_back_in_a_segment_is_lost() -> None:
    with socket.socket() as unused:
        one = Stream("a", unused, array("d", [0] * 4), array("d", [0.001, -1, 0.002, -1]))
        two = Stream("b", unused, array("d", [0] * 4), array("d", [0.001, 0.005, 0.002, 0.003]))

        assert summary("x", [one, two], 0, 2) == {
            "name": "x",
            "sent": 4,
            "lost": 1,
            "worst_ms": 5.0,
        }
        assert summary("y", [one, two], 2, 4) == {
            "name": "y",
            "sent": 4,
            "lost": 1,
            "worst_ms": 3.0,
        }
        assert summary("z", [one, two], 4, 4)["sent"] == 0


def test_a_new_identifier_every_so_many_packets() -> None:
    """New connections are judged during a kill, not only an old one tracked."""
    with (
        socket.socket(type=socket.SOCK_DGRAM) as left,
        socket.socket(type=socket.SOCK_DGRAM) as right,
    ):
        right.bind(("127.0.0.1", 0))
        left.connect(right.getsockname())
        stream = Stream("a", left)
        for _ in range(201):
            stream.send(0.0)
        packets = [right.recv(2048) for _ in range(201)]
    identifiers = [struct.unpack_from(">H", packet, 4)[0] for packet in packets]
    assert len(set(identifiers[:200])) == 1
    assert identifiers[200] != identifiers[0]
