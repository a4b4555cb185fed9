"""The pages of the admin HTTP server, and uvicorn that serves them.

A module of its own, because it is loaded by whoever asks first; see `admin`.
"""

import asyncio
import contextlib
import re
import socket
from collections.abc import Awaitable, Callable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from deltaplane.runtime import log, metrics, tracing

Ready = Callable[[], Awaitable[bool]]

_TRACE_ID = re.compile(r"[0-9a-f]{32}")


class Server(uvicorn.Server):
    """uvicorn that leaves signals alone, for the process has one place that handles them.

    It leaves no connection open, whatever comes while it ends.
    """

    capture_signals = contextlib.nullcontext  # type: ignore[assignment] # same use, no signals

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops accepting and ends all connections. sockets: that it listens on."""
        loop = asyncio.get_running_loop()
        for server in self.servers:
            for listening in server.sockets:
                loop.remove_reader(listening)
        # What asyncio has accepted by now it hands on in its next round; after the listening
        # socket is closed it could not, and would forget it (Python 3.11).
        for _ in range(2):
            await asyncio.sleep(0)
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()


async def serve(listener: socket.socket, ready: Ready, ending: asyncio.Event) -> None:
    """Answers on a listening socket, which it closes, until told to end."""
    server = Server(
        uvicorn.Config(
            application(ready),
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=[listener]))
        await ending.wait()
        server.should_exit = True


def application(ready: Ready) -> Starlette:
    """The routes. ready: asked at every /readyz; an exception counts as no."""

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        try:
            is_ready = await ready()
        except Exception:  # noqa: BLE001 - whatever is wrong, the process is not ready
            log.get().warning("ready_check_failed", exc_info=True)
            is_ready = False
        return PlainTextResponse(
            "ready\n" if is_ready else "not ready\n", status_code=200 if is_ready else 503
        )

    async def expose(_request: Request) -> Response:
        body, content_type = metrics.exposition()
        return Response(body, headers={"content-type": content_type})

    async def traces(request: Request) -> Response:
        trace_id = request.query_params.get("trace", "")
        if trace_id and not _TRACE_ID.fullmatch(trace_id):
            return PlainTextResponse("trace: 32 digits 0-9 a-f are needed\n", status_code=400)
        return JSONResponse(tracing.finished(trace_id))

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", expose),
            Route("/traces", traces),
        ]
    )
