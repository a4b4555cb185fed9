"""The reader against a real grpc.aio server, and against every way to cut its bytes."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from deltaplane.errors import Invalid
from deltaplane.runtime import hpack
from deltaplane.runtime.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PING,
    SETTINGS,
    STREAM,
    Call,
    CallBroken,
    Ended,
    frame,
)

METHOD = "/bench.Echo/Stream"


def grpc_message(data: bytes) -> bytes:
    return b"\0" + len(data).to_bytes(4) + data


async def echo(
    requests: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]"
) -> None:
    """Answers "N" with N bytes, "fail" with an error, others with their number and their size."""
    seen = 0
    async for request in requests:
        if request.isdigit():
            await context.write(bytes(int(request)))
        elif request == b"fail":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
        else:
            await context.write(b"%d %d" % (seen, len(request)))
        seen += 1


@pytest.fixture
async def address() -> AsyncIterator[str]:
    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Stream": grpc.stream_stream_rpc_method_handler(echo)
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


class Client:
    """A call on a socket that is read in pieces of some size."""

    def __init__(self, call: Call, sock: socket.socket, piece: int) -> None:
        self.call, self.sock, self.piece = call, sock, piece
        self.messages: list[bytes] = []

    async def until(self, count: int) -> None:
        """Reads until so many messages are there, or the call has ended."""
        loop = asyncio.get_running_loop()
        while len(self.messages) < count and self.call.ended is None:
            await loop.sock_sendall(self.sock, self.call.take_outgoing())
            data = await loop.sock_recv(self.sock, self.piece)
            if not data:
                return
            self.messages += self.call.receive(data)
        await loop.sock_sendall(self.sock, self.call.take_outgoing())


@contextlib.asynccontextmanager
async def client(
    address: str, *, window: int = 1 << 20, piece: int = 1 << 16
) -> AsyncIterator[Client]:
    host, port = address.rsplit(":", 1)
    sock = socket.socket()
    sock.setblocking(False)
    with sock:
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        yield Client(Call(address, METHOD, window=window), sock, piece)


@pytest.mark.parametrize("piece", [1, 7, 1 << 16])
async def test_messages_come_as_they_were_sent(address: str, piece: int) -> None:
    async with client(address, piece=piece) as found:
        for size in (0, 1, 300, 20_000):
            found.call.send(b"%d" % size)
        await found.until(4)
        assert [len(message) for message in found.messages] == [0, 1, 300, 20_000]


@pytest.mark.parametrize("window", [65_535, 1 << 20])
async def test_more_than_a_window_comes_in(address: str, window: int) -> None:
    sizes = [3_000_000, 10, 65_536, 65_535]
    async with client(address, window=window) as found:
        for size in sizes:
            found.call.send(b"%d" % size)
        await found.until(len(sizes))
        assert [len(message) for message in found.messages] == sizes


async def test_more_than_a_window_goes_out(address: str) -> None:
    async with client(address) as found:
        found.call.send(b"x" * 200_000)
        found.call.send(b"y" * 1_000_000)
        await found.until(2)
        assert found.messages == [b"0 200000", b"1 1000000"]


async def test_the_end_of_a_call_says_why(address: str) -> None:
    async with client(address) as found:
        found.call.send(b"fail")
        await found.until(1)
        assert found.call.ended == Ended(5, "no such thing")


def answers() -> Iterator[tuple[bytes, list[bytes]]]:
    """What a server may send, and the messages in it."""
    large = bytes(range(256)) * 3
    body = grpc_message(b"one") + grpc_message(b"") + grpc_message(large)
    response = frame(HEADERS, END_HEADERS, STREAM, b"\x88")
    yield response + frame(DATA, 0, STREAM, body), [b"one", b"", large]
    thirds = b"".join(frame(DATA, 0, STREAM, body[i : i + 3]) for i in range(0, len(body), 3))
    yield thirds, [b"one", b"", large]
    padded = frame(DATA, PADDED, STREAM, b"\x04" + grpc_message(b"padded") + bytes(4))
    yield padded + frame(PING, 0, 0, b"01234567") + padded, [b"padded", b"padded"]


@pytest.mark.parametrize(("data", "expected"), list(answers()))
def test_a_cut_at_any_byte_changes_nothing(data: bytes, expected: list[bytes]) -> None:
    for cut in range(len(data) + 1):
        call = Call("a", "/b")
        assert call.receive(data[:cut]) + call.receive(data[cut:]) == expected


def test_byte_by_byte() -> None:
    for data, expected in answers():
        call = Call("a", "/b")
        found = [message for byte in data for message in call.receive(bytes((byte,)))]
        assert found == expected


def test_a_ping_is_answered_with_its_own_bytes() -> None:
    call = Call("a", "/b")
    call.take_outgoing()
    call.receive(frame(PING, 0, 0, b"01234567"))
    assert call.take_outgoing() == frame(PING, 1, 0, b"01234567")


def test_credit_is_given_back_before_the_window_is_used_up() -> None:
    call = Call("a", "/b", window=1000)
    call.take_outgoing()
    call.receive(frame(DATA, 0, STREAM, grpc_message(bytes(400))))
    assert call.take_outgoing() == b""
    call.receive(frame(DATA, 0, STREAM, grpc_message(bytes(400))))
    assert call.take_outgoing() != b""


def test_a_compressed_message_is_refused() -> None:
    with pytest.raises(CallBroken):
        Call("a", "/b").receive(frame(DATA, 0, STREAM, b"\1" + bytes(4)))


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(frame(DATA, PADDED, STREAM), id="no padding length"),
        pytest.param(frame(DATA, PADDED, STREAM, b"\x05abc"), id="more padding than bytes"),
        pytest.param(frame(HEADERS, PADDED | END_HEADERS, STREAM), id="padded headers"),
        pytest.param(frame(SETTINGS, 0, 0, bytes(7)), id="a part of a setting"),
        pytest.param(frame(SETTINGS, 0, 0, b"\0\x05" + bytes(4)), id="frames without bytes"),
        pytest.param(
            frame(HEADERS, END_HEADERS | END_STREAM, STREAM, b"\xff\x00"), id="a dynamic table"
        ),
    ],
)
def test_a_server_that_breaks_the_protocol_breaks_the_call(sent: bytes) -> None:
    with pytest.raises(CallBroken):
        Call("x:1", METHOD).receive(sent)


def test_a_status_that_is_no_number_of_grpc_is_none() -> None:
    call = Call("x:1", METHOD)

    name = b"\x00\x0bgrpc-status" + b"\x7f\x81\x27" + b"9" * 5120
    call.receive(frame(HEADERS, END_HEADERS | END_STREAM, STREAM, name))

    assert call.ended is not None
    assert call.ended.code is None


def test_trailers_may_go_on() -> None:
    block = hpack.encode([("grpc-status", "14"), ("grpc-message", "away")])
    call = Call("a", "/b")
    ends = []
    for part in (
        frame(HEADERS, END_STREAM, STREAM, block[:5]),
        frame(CONTINUATION, END_HEADERS, STREAM, block[5:]),
    ):
        call.receive(part)
        ends.append(call.ended)
    assert ends == [None, Ended(14, "away")]


def test_headers_are_read_as_they_were_written() -> None:
    headers = [(":status", "200"), ("grpc-message", "x" * 300)]
    assert list(hpack.decode(hpack.encode(headers))) == headers
    assert list(hpack.decode(b"\x20\x88\x5f\x01a\x00\x01b\x81\x00")) == [
        (":status", "200"),
        ("content-type", "a"),
        ("b", hpack.HUFFMAN),
    ]


@pytest.mark.parametrize("block", [b"\xff", b"\xbe", b"\x00\x05a", b"\x00\x01a"])
def test_a_wrong_block_is_refused(block: bytes) -> None:
    with pytest.raises(Invalid):
        list(hpack.decode(block))
