"""The admin HTTP server: /healthz, /readyz, /metrics and /traces, in the gRPC server's loop.

It listens from the start, but what answers is loaded for the first connection: that is a tenth of
what the start of a process costs, and most processes of a lab are never asked.
"""

import asyncio
import contextlib
import importlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

from deltaplane.runtime import address, listen

Ready = Callable[[], Awaitable[bool]]


@contextlib.asynccontextmanager
async def serving(where: address.Address, ready: Ready) -> AsyncIterator[address.Address]:
    """Serves while the block runs; gives the address it really got.

    Args:
        where: to listen.
        ready: asked at every /readyz; an exception counts as no.

    Raises:
        Refused: the address cannot be had.
    """
    listener, bound = listen.bind_socket(where)
    ending = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_serve(listener, ready, ending))
            try:
                yield bound
            finally:
                ending.set()
    finally:
        listener.close()
        listen.forget(bound)


async def _serve(listener: socket.socket, ready: Ready, ending: asyncio.Event) -> None:
    if not await _is_asked(listener, ending):
        return
    # In a thread: it takes a tenth of a second, in which the loop has other calls to answer.
    await asyncio.to_thread(importlib.import_module, "deltaplane.runtime.web")
    from deltaplane.runtime import web  # noqa: PLC0415 - loaded when somebody asks

    await web.serve(listener, ready, ending)


async def _is_asked(listener: socket.socket, ending: asyncio.Event) -> bool:
    """Waits for a connection, which it leaves to be accepted; False: the process ends before."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    waits = [asyncio.ensure_future(event.wait()) for event in (asked, ending)]
    loop.add_reader(listener, asked.set)
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(listener)
        for wait in waits:
            wait.cancel()
    return asked.is_set()
