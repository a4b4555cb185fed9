"""HTTPS to an API server: connections, our token, deadlines, and errors that are ours."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx2

from deltaplane.errors import DeltaplaneError, Unavailable
from services.kubernetes.api import failures
from services.kubernetes.api.failures import Silent, Throttled
from services.kubernetes.api.kubeconfig import Connection, is_token

DEADLINE_SECONDS = 10.0
"""For a request and its answer, and its repetitions when the server asks to come again."""
CONNECT_SECONDS = 5.0
ACCEPT_SECONDS = 30.0
"""For the head of a stream."""
LIST_SECONDS = 30.0
"""For a chunk of a list, instead of DEADLINE_SECONDS."""
CALLS = 8
"""Connections for calls. Each watch has one of its own besides: their number is constant."""
WATCHES = 32
"""More than there are kinds: a watch that starts must not wait for one that ends."""
LONGEST_BODY_BYTES = 256 << 20
"""Of an answer: 500 objects of the greatest size that anybody has are less."""
TOKEN_SECONDS = 60.0
"""After this a token file is read again, as Kubernetes' own clients do."""
USER_AGENT = "deltaplane"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request.

    Attributes:
        what: for people: "list pods".
        deadline_seconds: None: the client's.
    """

    method: str
    path: str
    what: str
    params: Mapping[str, str] | None = None
    body: bytes | None = None
    content_type: str = "application/json"
    deadline_seconds: float | None = None


class Transport:
    """The connections of one process to one API server."""

    def __init__(
        self,
        connection: Connection,
        *,
        deadline_seconds: float,
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        """Connects when the first request is made.

        Args:
            connection: where, and who we are.
            deadline_seconds: for each call.
            pause: waits that many seconds.

        Raises:
            Invalid: the connection's certificates are of no use.
        """
        self._deadline = deadline_seconds
        self._pause = pause
        self._token = _Token(connection)
        name = connection.server_name
        self._extensions = {"sni_hostname": name} if name else {}
        tls = connection.tls()
        self._calls = _connections(connection, tls, CALLS)
        self._watches = _connections(connection, tls, WATCHES)

    async def close(self) -> None:
        """Closes all connections."""
        await self._watches.aclose()
        await self._calls.aclose()

    @contextlib.asynccontextmanager
    async def stream(
        self, request: Request, *, silence_seconds: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """An answer that does not end: an iterator of chunks; leaving it closes the connection.

        Raises:
            Unavailable: connection lost, or Silent; also while it is iterated.
            DeltaplaneError: the server refuses it, see `failures`.
        """
        timeout = httpx2.Timeout(CONNECT_SECONDS, read=silence_seconds, pool=self._deadline)
        with _translated(request.what):
            try:
                # A sound server says at once that it will stream.
                async with asyncio.timeout(ACCEPT_SECONDS):
                    answer = await self._send(self._watches, request, timeout=timeout)
            except TimeoutError as error:
                raise Unavailable(f"{request.what}: not accepted in time") from error
            try:
                if not answer.is_success:
                    if answer.status_code == 401:
                        self._token.forget()
                    raise _error(request, answer, await _body(answer, request.what))
                yield answer.aiter_bytes()
            finally:
                await answer.aclose()

    async def call(self, request: Request) -> bytes:
        """The body of a successful answer; comes again while the server asks for it in time.

        Raises:
            DeltaplaneError: see `failures`.
        """
        loop = asyncio.get_running_loop()
        seconds = request.deadline_seconds or self._deadline
        until = loop.time() + seconds
        while True:
            try:
                async with asyncio.timeout_at(until):
                    return await self._once(request)
            except Throttled as error:
                if loop.time() + error.retry_after_seconds >= until:
                    raise
                await self._pause(error.retry_after_seconds)
            except TimeoutError as error:
                raise Unavailable(f"{request.what}: no answer within {seconds:g} s") from error

    async def _once(self, request: Request) -> bytes:
        with _translated(request.what):
            answer = await self._send(self._calls, request)
            if answer.status_code == 401 and self._token.forget():
                await answer.aclose()
                answer = await self._send(self._calls, request)
            try:
                body = await _body(answer, request.what)
            finally:
                await answer.aclose()
        if answer.is_success:
            return body
        raise _error(request, answer, body)

    async def _send(
        self, over: httpx2.AsyncClient, request: Request, timeout: httpx2.Timeout | None = None
    ) -> httpx2.Response:
        headers = self._token.headers()
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        built = over.build_request(
            request.method,
            request.path,
            params=request.params,
            content=request.body,
            headers=headers,
            timeout=over.timeout if timeout is None else timeout,
            extensions=self._extensions,
        )
        return await over.send(built, stream=True)


class _Token:
    """The bearer token, read again now and then: kubelet replaces it before it expires."""

    def __init__(self, connection: Connection) -> None:
        self._fixed = connection.token
        self._file: Path | None = connection.token_file
        self._read = ""
        self._read_at = float("-inf")

    def headers(self) -> dict[str, str]:
        """What a request needs.

        Raises:
            Unavailable: the file cannot be read.
        """
        token = self._fixed or self._current()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def forget(self) -> bool:
        """The token was not accepted; True if the file may hold a newer one."""
        self._read_at = float("-inf")
        return self._file is not None

    def _current(self) -> str:
        if self._file is not None and time.monotonic() - self._read_at > TOKEN_SECONDS:
            try:
                # A few hundred bytes of a memory file system.
                read = self._file.read_text().strip()
            except (OSError, ValueError) as error:
                raise Unavailable(f"the token cannot be read: {error}") from error
            if not is_token(read):
                raise Unavailable(f"{self._file} holds no token")
            self._read = read
            self._read_at = time.monotonic()
        return self._read


def _connections(connection: Connection, tls: ssl.SSLContext, most: int) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        base_url=connection.server,
        verify=tls,
        # Neither a proxy nor other authorities from the environment: what is configured counts.
        trust_env=False,
        headers={
            "User-Agent": USER_AGENT,
            "Accept": "application/json",
            # Compressing lists costs the server more than it saves in a cluster's network.
            "Accept-Encoding": "identity",
        },
        # Every call has a deadline of its own, every stream a longest silence.
        timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
        limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
    )


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except httpx2.ReadTimeout as error:
        raise Silent(f"{what}: nothing came for too long") from error
    except httpx2.TimeoutException as error:
        raise Unavailable(f"{what}: {type(error).__name__}") from error
    except (httpx2.TransportError, httpx2.StreamError) as error:
        raise Unavailable(f"{what}: {type(error).__name__}: {error}") from error


async def _body(answer: httpx2.Response, what: str) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in answer.aiter_bytes():
        size += len(chunk)
        if size > LONGEST_BODY_BYTES:
            raise Unavailable(f"{what}: the answer is longer than {LONGEST_BODY_BYTES} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _error(request: Request, answer: httpx2.Response, body: bytes) -> DeltaplaneError:
    return failures.of_answer(request.what, answer.status_code, body, answer.headers)
