"""The HTTP server that ends while somebody comes."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import uvicorn

from deltaplane.runtime import web

CLIENTS = 5
MUCH_BYTES = 32 << 20
"""More than the kernel takes for one who does not read."""


@pytest.fixture
def uncollected() -> Iterator[None]:
    """A connection that is forgotten stays open, since nobody tidies up after the server."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.usefixtures("uncollected")
async def test_whoever_comes_while_it_ends_is_hung_up_on(turns: int) -> None:
    """turns: how far the loop has come with a connection when the end begins."""
    async with _serving(web.application(_ready)) as (server, listener):
        clients = [_connected(listener) for _ in range(CLIENTS)]
        for _ in range(turns):
            await asyncio.sleep(0)
    assert all(_is_hung_up(client) for client in clients)
    assert not server.server_state.connections


@pytest.mark.usefixtures("uncollected")
async def test_whoever_does_not_read_is_hung_up_on() -> None:
    written = asyncio.Event()

    async def much(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(MUCH_BYTES)})
        written.set()

    async with _serving(much) as (server, listener):
        client = _connected(listener)
        client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await written.wait()
        server.force_exit = True
    assert _is_hung_up(client)


@contextlib.asynccontextmanager
async def _serving(application: Any) -> AsyncIterator[tuple[web.Server, socket.socket]]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application, lifespan="off", log_config=None)
    config.load()
    server = web.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])
    try:
        yield server, listener
    finally:
        await server.shutdown([listener])
        # Hanging up takes the loop's next turn.
        await asyncio.sleep(0)


async def _ready() -> bool:
    return True


def _connected(listener: socket.socket) -> socket.socket:
    client = socket.create_connection(listener.getsockname())
    client.setblocking(False)
    return client


def _is_hung_up(client: socket.socket) -> bool:
    with client:
        try:
            while client.recv(MUCH_BYTES):
                pass
        except ConnectionResetError:
            return True
        except BlockingIOError:
            return False
        return True
