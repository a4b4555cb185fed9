"""Health-check node ports: whether this node has ready backends of a service, over HTTP.

What load balancers ask of a node whose external traffic stays local; the answers are those of
kube-proxy. Any request is answered the same, whatever its path.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from http import HTTPStatus

from deltaplane.model.addresses import AddressPair, format_address
from deltaplane.runtime import log
from nodeagent.services.balancer import HealthPort

RETRY_SECONDS = 5.0
"""Between attempts to listen where somebody else does."""

REQUEST_SECONDS = 5.0
"""For a client to ask, and to take the answer."""

MAX_REQUEST_BYTES = 8192

Place = tuple[str, int]
"""Address as text, and port."""


class HealthPorts:
    """Listens where services ask for it, on the node's own addresses.

    Args:
        own: this node's addresses.
        wanted: what is to be told now.
    """

    def __init__(self, own: AddressPair, wanted: Callable[[], list[HealthPort]]) -> None:
        self._own = tuple(map(format_address, own))
        self._wanted = wanted
        self._changed = asyncio.Event()
        self._servers: dict[Place, asyncio.Server] = {}
        self._complaints: dict[Place, str] = {}

    def changed(self) -> None:
        """Other ports may be wanted."""
        self._changed.set()

    async def run(self) -> None:
        """Listens until cancelled."""
        try:
            while True:
                self._changed.clear()
                await self._settle()
                pause = RETRY_SECONDS if self._complaints else None
                try:
                    async with asyncio.timeout(pause):
                        await self._changed.wait()
                except TimeoutError:
                    continue
        finally:
            for server in self._servers.values():
                server.close()

    async def _settle(self) -> None:
        wanted = {(address, one.port) for one in self._wanted() for address in self._own}
        for place in self._servers.keys() - wanted:
            self._servers.pop(place).close()
        for place in self._complaints.keys() - wanted:
            del self._complaints[place]
        for place in wanted - self._servers.keys():
            await self._listen(place)

    async def _listen(self, place: Place) -> None:
        address, port = place

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(port, reader, writer)

        try:
            server = await asyncio.start_server(
                serve, address, port, limit=MAX_REQUEST_BYTES, reuse_address=True
            )
        except OSError as error:
            if self._complaints.get(place) != str(error):
                log.get().error(
                    "health_check_port_taken", address=address, port=port, reason=str(error)
                )
            self._complaints[place] = str(error)
        else:
            self._servers[place] = server
            self._complaints.pop(place, None)

    async def _serve(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                one = next((one for one in self._wanted() if one.port == port), None)
                writer.write(answer(one, body=not head.startswith(b"HEAD ")))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # Who asks like that gets no answer.
            pass
        finally:
            writer.close()


def answer(one: HealthPort | None, *, body: bool = True) -> bytes:
    """The whole response. one: None when the service has just gone."""
    ready = one.ready if one is not None else 0
    status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    told: Mapping[str, object] = {
        "service": {
            "namespace": one.namespace if one is not None else "",
            "name": one.name if one is not None else "",
        },
        "localEndpoints": ready,
    }
    content = json.dumps(told).encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json",
        "X-Content-Type-Options: nosniff",
        f"X-Load-Balancing-Endpoint-Weight: {ready}",
        f"Content-Length: {len(content)}",
        "Connection: close",
    )
    return "\r\n".join((*head, "", "")).encode() + (content if body else b"")
