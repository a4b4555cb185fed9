"""The call of a watch against a real grpc.aio server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from deltaplane.errors import DeltaplaneError, Refused, Unavailable
from deltaplane.store import etcd_call
from deltaplane.store.etcd_call import Stream, connect

METHOD = "/test.Watch/Watch"
SECONDS = 10.0
SIZE = 1 << 20
AT_ONCE = 40


async def answer(
    requests: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]"
) -> None:
    """Answers "N" with N small messages, "large" with large ones, a status with that; echoes."""
    metadata = dict(context.invocation_metadata() or ())
    async for request in requests:
        text = request.decode()
        if text.isdigit():
            for number in range(int(text)):
                await context.write(b"%d" % number)
        elif text == "large":
            for number in range(AT_ONCE):
                await context.write(bytes((number,)) * SIZE)
        elif text in grpc.StatusCode.__members__:
            await context.write(b"last words")
            await context.abort(grpc.StatusCode[text], "for a reason")
        elif text == "end":
            return
        else:
            await context.write(str(metadata[text]).encode())


@pytest.fixture(params=["unix", "ipv4", "ipv6"])
async def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Watch": grpc.stream_stream_rpc_method_handler(answer)
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Watch", handlers),))
    if request.param == "unix":
        where = f"unix:{tmp_path}/etcd"
        server.add_insecure_port(where)
    else:
        host = "127.0.0.1" if request.param == "ipv4" else "[::1]"
        where = f"{host}:{server.add_insecure_port(f'{host}:0')}"
    await server.start()
    yield where
    await server.stop(None)


@pytest.fixture
async def stream(endpoint: str) -> AsyncIterator[Stream]:
    made = await connect(endpoint, METHOD, metadata=(("hasleader", "true"),), seconds=SECONDS)
    yield made
    made.close()


async def collect(stream: Stream, count: int) -> list[bytes]:
    found: list[bytes] = []
    async with asyncio.timeout(SECONDS):
        while len(found) < count:
            found += await stream.messages(SECONDS)
    return found


async def test_messages_come_in_order_and_metadata_goes_along(stream: Stream) -> None:
    stream.send(b"hasleader")
    assert await collect(stream, 1) == [b"true"]
    stream.send(b"500")
    assert await collect(stream, 500) == [b"%d" % number for number in range(500)]


async def test_nothing_comes_when_nothing_is_sent_and_the_call_goes_on(stream: Stream) -> None:
    assert await stream.messages(0.01) == []
    stream.send(b"1")
    assert await collect(stream, 1) == [b"0"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("PERMISSION_DENIED", Refused),
        ("UNAUTHENTICATED", Refused),
        ("UNAVAILABLE", Unavailable),
        ("INTERNAL", Unavailable),
        ("RESOURCE_EXHAUSTED", Unavailable),
        ("end", Unavailable),
    ],
)
async def test_the_end_is_an_error_after_all_that_came_before(
    stream: Stream, status: str, kind: type[DeltaplaneError]
) -> None:
    stream.send(status.encode())
    if status != "end":
        assert await collect(stream, 1) == [b"last words"]
    for _ in range(2):
        with pytest.raises(kind):
            await stream.messages(SECONDS)


async def test_what_is_not_taken_is_not_read(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_call, "WAITING_BYTES", 2 * SIZE)
    stream.send(b"large")
    transport = stream._transport
    assert transport is not None
    async with asyncio.timeout(SECONDS):
        while transport.is_reading():  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
    first = await stream.messages(SECONDS)
    assert len(first) <= 4  # what one read may bring is above the limit
    assert transport.is_reading()
    rest = await collect(stream, AT_ONCE - len(first))
    assert [*first, *rest] == [bytes((number,)) * SIZE for number in range(AT_ONCE)]


async def test_who_waits_is_told_of_the_close(stream: Stream) -> None:
    waiting = asyncio.ensure_future(stream.messages(SECONDS))
    await asyncio.sleep(0)
    stream.close()
    stream.close()
    with pytest.raises(Unavailable, match="was closed"):
        await waiting


async def test_closing_does_not_hide_why_it_ended(stream: Stream) -> None:
    stream.send(b"PERMISSION_DENIED")
    await collect(stream, 1)
    with pytest.raises(Refused):
        await stream.messages(SECONDS)
    stream.close()
    with pytest.raises(Refused):
        await stream.messages(SECONDS)


async def test_nobody_is_there(tmp_path: Path) -> None:
    for nobody in (f"unix:{tmp_path}/nobody", "127.0.0.1:1", "[::1]:1"):
        with pytest.raises(Unavailable, match=r"etcd at"):
            await connect(nobody, METHOD, metadata=(), seconds=SECONDS)
