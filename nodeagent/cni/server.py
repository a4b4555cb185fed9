"""The unix socket that the CNI shim calls.

Every call is bounded: who may call (root or our own user), how long the request may take, how large
it may be, how many run at once. What a call does is the handler's business.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

from deltaplane.runtime import log, metrics
from nodeagent.cni import netconf, protocol, result
from nodeagent.cni.netconf import Call
from nodeagent.cni.result import CniError, Code

REQUEST_SECONDS = 5.0
"""For the shim to hand over its whole request; it needs microseconds."""

MAX_CALLS = 64
"""Calls at once; others wait in the listen queue. Kubelet starts 10 pods at a time or so."""

BACKLOG = 256

_CALL_SECONDS = metrics.histogram(
    "cni_call_seconds", "CNI calls from the shim's connection to the answer", ("command",)
)

Handler = Callable[[Call, int | None], Awaitable[bytes]]
"""Takes a call and the descriptor of its network namespace (None: the runtime gave none that
exists), returns what the plugin prints. The descriptor is closed when the handler returns. Raises
CniError.
"""


class CniServer:
    """Serves one unix socket, mode 0600."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self._path = path
        self._handler = handler
        self._calls = asyncio.Semaphore(MAX_CALLS)

    async def run(self, listening: asyncio.Event) -> None:
        """Serves until cancelled; sets the event once callers can connect."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
            self._bind(listener)
            listening.set()
            try:
                async with asyncio.TaskGroup() as group:
                    await self._accept(listener, group)
            finally:
                self._path.unlink(missing_ok=True)

    def _bind(self, listener: socket.socket) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # A socket file that a killed agent left behind; the state directory's lock says that it is
        # dead.
        self._path.unlink(missing_ok=True)
        previous = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(previous)
        listener.listen(BACKLOG)

    async def _accept(self, listener: socket.socket, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._calls.acquire()
            try:
                connection, _ = await loop.sock_accept(listener)
            except BaseException:
                self._calls.release()
                raise
            group.create_task(self._serve(connection))

    async def _serve(self, connection: socket.socket) -> None:
        descriptors: list[int] = []
        started = perf_counter()
        try:
            with connection:
                connection.setblocking(False)  # noqa: FBT003 - a builtin
                if not _peer_may_call(connection):
                    log.get().warning("cni_caller_refused")
                    return
                async with asyncio.timeout(REQUEST_SECONDS):
                    request = await _read_request(connection, descriptors)
                answer = await self._answer(request, descriptors[0] if descriptors else None)
                loop = asyncio.get_running_loop()
                # A caller that is gone: the runtime has given up and will say DEL.
                with contextlib.suppress(OSError):
                    await loop.sock_sendall(connection, protocol.encode_answer(answer))
                if request.command in netconf.REQUIRED:
                    _CALL_SECONDS.labels(request.command).observe(perf_counter() - started)
        except (protocol.ProtocolError, TimeoutError, OSError) as error:
            log.get().warning("cni_request_refused", reason=str(error) or type(error).__name__)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            self._calls.release()

    async def _answer(self, request: protocol.Request, netns: int | None) -> protocol.Answer:
        try:
            call = netconf.parse(request)
            return protocol.Answer(exit_code=0, stdout=await self._handler(call, netns))
        except CniError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - a bug reaches the runtime as an error object
            log.get().exception("cni_call_failed", command=request.command)
            failure = CniError(Code.FAILED, "internal error of the node agent", repr(error))
        log.get().info(
            "cni_call_refused",
            command=request.command,
            container=request.container_id,
            code=int(failure.code),
            reason=str(failure),
        )
        version = netconf.claimed_version(request.config)
        return protocol.Answer(exit_code=1, stdout=result.failure(version, failure))


def _peer_may_call(connection: socket.socket) -> bool:
    size = struct.calcsize("3i")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (0, os.geteuid())


async def _read_request(connection: socket.socket, descriptors: list[int]) -> protocol.Request:
    """Reads one request; descriptors that came with it are appended and belong to the caller."""
    head = await _receive(connection, protocol.LENGTH.size, descriptors)
    body = await _receive(connection, protocol.request_length(head), descriptors)
    return protocol.decode_request(body)


async def _receive(connection: socket.socket, length: int, descriptors: list[int]) -> bytes:
    received = bytearray()
    while len(received) < length:
        try:
            data, fds, _, _ = socket.recv_fds(
                connection, length - len(received), 1, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            await _readable(connection)
            continue
        descriptors.extend(fds)
        if not data:
            raise protocol.ProtocolError("the request is cut short")
        received += data
    return bytes(received)


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
