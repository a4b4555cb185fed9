"""A streaming call to etcd on a connection of its own, for a watch.

grpc.aio needs a thread, two wake-ups and two tasks for each message, 0.6 ms of CPU here, and hands
over one at a time. Here all that one read of the socket has brought comes at once. There is no
keepalive: whoever calls asks etcd for progress, and counts the questions without an answer.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, cast

import grpc

from deltaplane.errors import DeltaplaneError, Refused, Unavailable
from deltaplane.runtime import address
from deltaplane.runtime.http2 import Call
from deltaplane.runtime.tls import Tls

LARGEST_MESSAGE = (1 << 32) - 1
"""A watch that catches up gets a thousand revisions in one message: etcd does not bound them."""

WAITING_BYTES = 4 << 20
"""Messages that wait to be taken; beyond that the socket is not read, and etcd keeps what comes."""


_REFUSALS = frozenset(
    code.value[0] for code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
)
"""Status codes after which another attempt is of no use."""


class Stream(asyncio.Protocol):
    """One call. Made by `connect`."""

    def __init__(self, endpoint: str, call: Call) -> None:
        self._endpoint, self._call = endpoint, call
        self._transport: asyncio.Transport | None = None
        self._arrived = asyncio.Event()
        self._messages: list[bytes] = []
        self._bytes = 0
        self._failure: DeltaplaneError | None = None

    def send(self, message: bytes) -> None:
        """Sends a message, as far as etcd takes it; the rest follows."""
        self._call.send(message)
        self._flush()

    async def messages(self, seconds: float) -> Sequence[bytes]:
        """All that have come; empty: none has within so many seconds.

        Raises:
            DeltaplaneError: the call has ended, after all that came before.
        """
        if not self._messages and self._failure is None:
            await self._wait(seconds)
        found, self._messages = self._messages, []
        if found:
            if self._bytes > WAITING_BYTES and self._transport is not None:
                self._transport.resume_reading()
            self._bytes = 0
        elif self._failure is not None:
            raise self._failure
        return found

    async def _wait(self, seconds: float) -> None:
        # A timer costs half of what a timeout around the waiting does.
        timer = asyncio.get_running_loop().call_later(seconds, self._arrived.set)
        try:
            await self._arrived.wait()
        finally:
            timer.cancel()
        self._arrived.clear()

    def close(self) -> None:
        """Ends the call and its connection; nothing happens if it has ended."""
        self._fail(Unavailable(f"the call to etcd at {self._endpoint} was closed"))
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio's side --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            found = self._call.receive(data)
        except DeltaplaneError as error:
            self._fail(Unavailable(f"etcd at {self._endpoint}: {error}"))
            return
        self._flush()
        if found:
            self._take(found)
        if (ended := self._call.ended) is not None:
            reason = f"etcd at {self._endpoint}: {ended.reason}"
            self._fail((Refused if ended.code in _REFUSALS else Unavailable)(reason))

    def _take(self, found: Iterable[bytes]) -> None:
        self._messages += found
        before = self._bytes
        self._bytes += sum(map(len, found))
        if before <= WAITING_BYTES < self._bytes and self._transport is not None:
            self._transport.pause_reading()
        self._arrived.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._fail(Unavailable(f"etcd at {self._endpoint}: {exc or 'the connection was closed'}"))

    def _flush(self) -> None:
        out = self._call.take_outgoing()
        if out and self._transport is not None:
            self._transport.write(out)

    def _fail(self, error: DeltaplaneError) -> None:
        self._failure = self._failure or error
        self._arrived.set()


async def connect(
    endpoint: str,
    path: str,
    *,
    metadata: Iterable[tuple[str, str]],
    seconds: float,
    tls: Tls | None = None,
) -> Stream:
    """Begins a call.

    Args:
        endpoint: as of `EtcdStore`.
        path: the method.
        metadata: headers.
        seconds: that connecting may take.
        tls: our certificate, and what etcd's has to say; None: in plain text.

    Raises:
        Unavailable: etcd was not reached in that time.
    """
    loop, where = asyncio.get_running_loop(), address.parse(endpoint)
    authority = "localhost" if isinstance(where, address.Unix) else str(where)
    scheme = "https" if tls else "http"
    call = Call(authority, path, largest=LARGEST_MESSAGE, metadata=metadata, scheme=scheme)
    stream = Stream(endpoint, call)
    secure: dict[str, Any] = (
        {"ssl": tls.context(), "server_hostname": tls.server.server_name} if tls else {}
    )
    try:
        async with asyncio.timeout(seconds):
            if isinstance(where, address.Unix):
                await loop.create_unix_connection(lambda: stream, where.path, **secure)
            else:
                await loop.create_connection(lambda: stream, where.host, where.port, **secure)
    except OSError as error:  # a TimeoutError is one
        raise Unavailable(
            f"etcd at {endpoint}: {str(error) or 'connecting took too long'}"
        ) from error
    return stream
