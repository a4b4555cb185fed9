"""A Kubernetes API server for tests: real HTTP on loopback, in a thread of its own.

Lists (chunked, from one revision), watches (bookmarks, streaming lists, 410), writes (optimistic
concurrency, status subresource, patches). It sends no bookmark by itself: a test asks for one. What
goes wrong is in `faults`. What it answers by default is held against the contract in
`test_server_contract.py`, which a real kube-apiserver passes, too.
"""

import asyncio
import contextlib
import json
import logging
import socket
import ssl
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, Self

import uvicorn

from deltaplane.runtime import web
from services.kubernetes.api import resource as resources
from services.kubernetes.api.kubeconfig import Connection
from services.kubernetes.api.resource import Resource
from tests.kubernetes import answering, patching, watching
from tests.kubernetes.answering import DEFINITIONS, Call
from tests.kubernetes.storing import Change, Object, Refusal, Storage
from tests.kubernetes.watching import Faults, Watch

DEADLINE_SECONDS = 10
MARK_SECONDS = 2

BUILT_IN = (
    resources.NODES,
    resources.NAMESPACES,
    resources.PODS,
    resources.SERVICES,
    resources.ENDPOINT_SLICES,
    resources.NETWORK_POLICIES,
    resources.EVENTS,
    resources.LEASES,
    resources.CERTIFICATE_REQUESTS,
    DEFINITIONS,
)
"""What every server has; the others need a definition (`serve`)."""

Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]


class Cut(Exception):
    """Ends a connection in the middle of an answer."""


class ApiServer:
    """The server; `storage` and `faults` may be used at any time, from the test's thread."""

    def __init__(
        self,
        *,
        tokens: Iterable[str] = (),
        tls: tuple[str, str] | None = None,
        clients: str | None = None,
    ) -> None:
        """Listens on a free port.

        Args:
            tokens: that are accepted; none: everybody is.
            tls: files of the server's certificate and key.
            clients: file of the authority that a client's certificate must come from.
        """
        self.storage = Storage()
        self.storage.served.update(BUILT_IN)
        self.faults = Faults()
        self.tokens = set(tokens)
        self.calls: list[Call] = []
        self.watches: set[Watch] = set()
        self.most_watches = 0
        self.opened = 0
        self._told = threading.Condition()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._socket.getsockname()[1]}"
        certificate, key = tls or (None, None)
        self._log = logging.getLogger("uvicorn.error")
        self._log_level = self._log.level
        self._server = Server(
            uvicorn.Config(
                self._answer,
                log_config=None,
                # A connection that is cut is an error to uvicorn.
                log_level="critical",
                lifespan="off",
                interface="asgi3",
                ssl_certfile=certificate,
                ssl_keyfile=key,
                ssl_ca_certs=clients,
                ssl_cert_reqs=ssl.CERT_REQUIRED if clients else ssl.CERT_NONE,
            )
        )
        self._thread = threading.Thread(target=self._run, name="apiserver", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait(lambda: self._loop is not None)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.force_exit = True
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._server.stop.set)
        self.end_watches()
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive()
        self._socket.close()
        # What is said of other servers of this process is heard again.
        self._log.setLevel(self._log_level)

    def connection(self, **fields: Any) -> Connection:
        return Connection(server=self.url, **fields)

    # --- what a test does ------------------------------------------------------------------------

    def serve(self, *served: Resource) -> None:
        self.storage.served.update(served)

    def create(
        self, resource: Resource, name: str, *, namespace: str = "", **fields: Any
    ) -> Object:
        metadata = {"name": name} | fields.pop("metadata", {})
        if resource.namespaced:
            metadata["namespace"] = namespace or "default"
        return self.storage.create(resource, {"metadata": metadata, **fields}, namespace=namespace)

    def change(
        self, resource: Resource, name: str, patch: Object, *, namespace: str = ""
    ) -> Object:
        """Merges a patch into an object, status and all, as a controller would in two steps."""
        with self.storage.lock:
            key = _key(resource, name, namespace)
            value = patching.merge(self.storage.get(resource, key), patch)
            return self.storage.replace(resource, key, value, expected=None)

    def get(self, resource: Resource, name: str, *, namespace: str = "") -> Object:
        return self.storage.get(resource, _key(resource, name, namespace))

    def delete(self, resource: Resource, name: str, *, namespace: str = "") -> None:
        self.storage.delete(resource, _key(resource, name, namespace))

    def refuse(self, verb: str, *refusals: Refusal | None) -> None:
        """The next requests of a verb are answered so; None: as if nothing were wrong."""
        self.faults.answers.setdefault(verb, []).extend(refusals)

    def bookmark(self) -> None:
        """Every open watch that wants bookmarks gets one."""
        self._each(Watch.mark)

    def say(self, line: bytes) -> None:
        """Every open watch says this."""
        self._each(lambda watch: watch.lines.append(line))

    def end_watches(self) -> None:
        """As the server does when the time of a watch is over."""
        self._each(lambda watch: setattr(watch, "end", True))

    def cut_watches(self) -> None:
        """As a lost connection."""
        self._each(lambda watch: setattr(watch, "cut", True))

    def wait(self, condition: Callable[[], bool]) -> None:
        """Blocks until something that the server counts is so."""
        with self._told:
            assert self._told.wait_for(condition, DEADLINE_SECONDS)

    async def until(self, condition: Callable[[], bool]) -> None:
        """The same for a test that has an event loop to keep running."""
        await asyncio.to_thread(self.wait, condition)

    def asked(self, verb: str, resource: Resource | None = None) -> list[dict[str, str]]:
        """The queries of all requests of a verb so far."""
        return [
            it.params
            for it in list(self.calls)
            if it.verb == verb and resource in (None, it.resource)
        ]

    @property
    def verbs(self) -> Counter[tuple[str, str]]:
        """How often what was asked for: verb and resource, with its subresource."""
        names = [
            (it.verb, f"{it.resource}/{it.subresource}".rstrip("/")) for it in list(self.calls)
        ]
        return Counter(names)

    def _each(self, action: Callable[[Watch], None]) -> None:
        for watch in list(self.watches):
            action(watch)
            watch.wake()

    def _tell(self) -> None:
        with self._told:
            self._told.notify_all()

    # --- the server's thread ---------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tell()
        # A connection that is cut raises in here, on purpose: no report of it.
        self._loop.set_exception_handler(lambda _loop, _context: None)
        await self._server.serve([self._socket])

    async def _answer(self, scope: Any, receive: Receive, send: Send) -> None:
        try:
            call = await self._read(scope, receive)
            if call.verb == "watch":
                return await self._watch(call, receive, send)
            await _respond(send, *answering.act(self.storage, call))
        except Refusal as refusal:
            headers = [(b"retry-after", str(refusal.retry_after).encode())]
            body = json.dumps(refusal.status()).encode()
            await _respond(send, refusal.code, body, headers if refusal.retry_after else [])

    async def _read(self, scope: Any, receive: Receive) -> Call:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        if (
            self.tokens
            and headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens
        ):
            raise Refusal(401, "Unauthorized", "Unauthorized")
        call = answering.read(
            self.storage,
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"].decode(),
            headers=headers,
            body=body,
        )
        self.calls.append(call)
        self._tell()
        queue = self.faults.answers.get(call.verb)
        if queue and (refusal := queue.pop(0)) is not None:
            raise refusal
        return call

    # --- watches ---------------------------------------------------------------------------------

    async def _watch(self, call: Call, receive: Receive, send: Send) -> None:
        watching.check(self.storage, self.faults, call)
        changed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            # The loop may be closed while a test still writes.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(changed.set)

        watch = Watch(call=call, wake=wake)
        self.storage.listeners.add(wake)
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"application/json")],
            }
        )
        self.watches.add(watch)
        self.opened += 1
        self.most_watches = max(self.most_watches, len(self.watches))
        self._tell()
        left = asyncio.ensure_future(_disconnected(receive, watch))
        try:
            async for line in self._lines(watch, changed):
                await self._say(send, line)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            left.cancel()
            self.watches.discard(watch)
            self.storage.listeners.discard(wake)
            self._tell()

    async def _lines(self, watch: Watch, changed: asyncio.Event) -> AsyncIterator[bytes]:
        """What a watch says, until it ends."""
        loop = asyncio.get_running_loop()
        seconds = float(watch.call.params.get("timeoutSeconds", "3600"))
        until = loop.time() + seconds
        timer = loop.call_at(until, changed.set)
        # Shortly before it ends a watch, a server says how far it has come, for the next one.
        marking = loop.call_at(until - min(MARK_SECONDS, seconds), watch.mark)
        try:
            lines, after = watching.state(self.storage, self.faults, watch)
            while True:
                while self.faults.silent and not (watch.end or watch.cut):
                    await changed.wait()
                    changed.clear()
                for line in lines:
                    yield line
                changed.clear()
                ends = watch.end or loop.time() >= until
                lines, after = watching.news(self.storage, self.faults, watch, after, ends=ends)
                if watch.cut:
                    raise Cut
                if ends:
                    break
                if not lines:
                    await changed.wait()
            for line in lines:
                yield line
        except Refusal as refusal:
            # When a kind is gone, its watches just end.
            if refusal.code != 404:
                body = {"type": "ERROR", "object": refusal.status()}
                yield json.dumps(body).encode() + b"\n"
        finally:
            timer.cancel()
            marking.cancel()

    async def _say(self, send: Send, line: bytes) -> None:
        if (cut := self.faults.cut_after_bytes) is not None:
            if cut < len(line):
                self.faults.cut_after_bytes = None
                await send({"type": "http.response.body", "body": line[:cut], "more_body": True})
                raise Cut
            self.faults.cut_after_bytes = cut - len(line)
        for piece in _pieces(line, self.faults.piece_bytes or len(line)):
            await send({"type": "http.response.body", "body": piece, "more_body": True})


class Server(web.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop = asyncio.Event()

    async def main_loop(self) -> None:
        # The original looks every 100 ms whether it should stop.
        await self.stop.wait()


def _pieces(line: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(line), size):
        yield line[start : start + size]


async def _disconnected(receive: Receive, watch: Watch) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    watch.end = True
    watch.wake()


async def _respond(
    send: Send, code: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": code, "headers": [*head, *headers]})
    await send({"type": "http.response.body", "body": body})


def _key(resource: Resource, name: str, namespace: str) -> str:
    return f"{namespace or 'default'}/{name}" if resource.namespaced else f"/{name}"


__all__ = ["ApiServer", "Call", "Change", "Faults", "Refusal"]
