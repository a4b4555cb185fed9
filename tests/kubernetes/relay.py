"""Stands between a process and an API server: what was asked, and connections that can be lost.

Plain HTTP on loopback, so it works in front of any server, and a token goes through. It lets
nothing be written but what carries the test's mark: a real cluster is somebody's.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import httpx2
import uvicorn

from services.kubernetes.api.kubeconfig import Connection
from tests.kubernetes.apiserver import Server
from tests.kubernetes.storing import Refusal

Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]

PASSED_ON = ("authorization", "content-type", "accept", "user-agent")
CONNECT_SECONDS = 5
OLD = "1"
"""A version of which no server has the history."""


class Lost(Exception):
    """The connection, on purpose."""


@dataclass(slots=True)
class Asked:
    """One request. bookmarks: how many the answer has brought; expired: it has said so."""

    method: str
    path: str
    params: dict[str, str]
    code: int = 0
    bookmarks: int = 0
    expired: bool = False
    body: bytes = b""

    @property
    def kind(self) -> str:
        """The plural that is at the end of the path of all objects."""
        return self.path.rpartition("/")[2]

    @property
    def is_watch(self) -> bool:
        return self.params.get("watch") == "true"

    @property
    def is_streaming(self) -> bool:
        """A watch that begins with everything there is."""
        return self.is_watch and "sendInitialEvents" in self.params


class Relay:
    """In front of one server.

    Attributes:
        url: where it is.
        asked: all requests, in the order in which they came.
        foreign: writes that were kept from the server.
    """

    def __init__(self, connection: Connection, mark: str) -> None:
        self._http = httpx2.AsyncClient(
            base_url=connection.server,
            verify=connection.tls(),
            timeout=httpx2.Timeout(CONNECT_SECONDS, read=None),
            limits=httpx2.Limits(max_connections=200),
            trust_env=False,
        )
        self._mark = mark.encode()
        self._is_away = False
        self._ages: set[str] = set()
        self._lost = asyncio.Event()
        self._answering: set[asyncio.Task[None]] = set()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.asked: list[Asked] = []
        self.foreign: list[Asked] = []

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Relay"]:
        config = uvicorn.Config(
            self._answer, log_config=None, log_level="critical", lifespan="off", interface="asgi3"
        )
        server = Server(config)
        task = asyncio.create_task(server.serve([self._socket]))
        try:
            yield self
        finally:
            server.force_exit = True
            server.stop.set()
            self.lose()
            await asyncio.gather(task, *self._answering, return_exceptions=True)
            await self._http.aclose()
            self._socket.close()

    def lose(self) -> None:
        """All connections, as when the server is restarted."""
        self._lost.set()
        self._lost = asyncio.Event()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Meanwhile nobody is answered, and whoever was connected is not any more."""
        self._is_away = True
        self.lose()
        try:
            yield
        finally:
            self._is_away = False

    def age(self, *kinds: str) -> None:
        """The next watch of each of these that goes on anywhere asks for a version long gone."""
        self._ages.update(kinds)

    def since(self, number: int) -> list[Asked]:
        """Lists and watches that came after so many requests."""
        return [it for it in self.asked[number:] if it.method == "GET"]

    async def _answer(self, scope: Any, receive: Receive, send: Send) -> None:
        answering = asyncio.ensure_future(self._relay(scope, receive, send))
        self._answering.add(answering)
        answering.add_done_callback(self._answering.discard)
        await answering

    async def _relay(self, scope: Any, receive: Receive, send: Send) -> None:
        params = dict(parse_qsl(scope["query_string"].decode()))
        asked = Asked(scope["method"], scope["path"], params)
        while (message := await receive())["type"] == "http.request":
            asked.body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if self._is_away:
            raise Lost
        self.asked.append(asked)
        if asked.method != "GET" and self._mark not in asked.path.encode() + asked.body:
            self.foreign.append(asked)
            return await _refuse(send, asked)
        if asked.is_watch and "resourceVersion" in params and asked.kind in self._ages:
            self._ages.discard(asked.kind)
            params = params | {"resourceVersion": OLD}
        passing = asyncio.ensure_future(self._pass_on(asked, params, scope["headers"], send))
        lost = asyncio.ensure_future(self._lost.wait())
        left = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({passing, lost, left}, return_when=asyncio.FIRST_COMPLETED)
            if not passing.done():
                raise Lost
            await passing
        finally:
            if not asked.code:
                # Cancelled while it shakes hands, the library forgets to close its socket.
                await asyncio.wait({passing}, timeout=2 * CONNECT_SECONDS)
            for task in (passing, lost, left):
                task.cancel()
            await asyncio.gather(passing, lost, left, return_exceptions=True)

    async def _pass_on(
        self, asked: Asked, params: dict[str, str], headers: list[tuple[bytes, bytes]], send: Send
    ) -> None:
        kept = {name.decode(): text.decode() for name, text in headers}
        kept = {name: text for name, text in kept.items() if name in PASSED_ON}
        request = self._http.stream(
            asked.method, asked.path, params=params, headers=kept, content=asked.body
        )
        async with request as answer:
            asked.code = answer.status_code
            kind = answer.headers.get("content-type", "application/json")
            head = [(b"content-type", kind.encode())]
            if after := answer.headers.get("retry-after"):
                head.append((b"retry-after", after.encode()))
            await send({"type": "http.response.start", "status": asked.code, "headers": head})
            async for piece in answer.aiter_bytes():
                asked.bookmarks += piece.count(b'"type":"BOOKMARK"')
                asked.bookmarks += piece.count(b'"type": "BOOKMARK"')
                asked.expired |= b'"reason":"Expired"' in piece or b'"reason": "Expired"' in piece
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _refuse(send: Send, asked: Asked) -> None:
    asked.code = 403
    body = json.dumps(Refusal(403, "Forbidden", "is not of this test").status()).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": head})
    await send({"type": "http.response.body", "body": body})
