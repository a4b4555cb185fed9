"""The members of an etcd cluster: one channel each, one of them in use, the next one when it fails.

What is not idempotent is sent once and only over a connection that stands; what is, goes round the
members until its deadline.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

import grpc
import grpc.aio

from deltaplane.errors import Compacted, DeltaplaneError, Invalid, Unavailable
from deltaplane.runtime import address, rpc
from deltaplane.runtime.tls import Tls
from deltaplane.store.etcdpb import rpc_pb2_grpc as etcd_grpc

_PAUSE_SECONDS = 0.05
"""Between two rounds over all members."""

_OPTIONS = (
    # A watch that catches up gets a thousand revisions in one message, and etcd does not bound
    # them.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # etcd ends connections that ping more often than every 5 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
    # Stores of one process do not share a connection: closing one must not disturb another.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"pick_first": {}}]})),
)

T = TypeVar("T")


class Member:
    """One server: its channel and the stubs on it."""

    def __init__(self, endpoint: str, tls: Tls | None = None) -> None:
        self.endpoint = endpoint
        self.tls = tls
        self.channel = rpc.channel_to(str(address.parse(endpoint)), _OPTIONS, tls)
        # A stub takes either kind of channel at run time; the annotations choose by the argument.
        self.kv = etcd_grpc.KVStub(self.channel)
        self.watch = etcd_grpc.WatchStub(self.channel)
        self.lease = etcd_grpc.LeaseStub(self.channel)
        self.maintenance = etcd_grpc.MaintenanceStub(self.channel)

    async def connect(self, seconds: float) -> None:
        """Returns when the connection stands.

        Raises:
            Unavailable: it does not stand after that many seconds.
        """
        if self.channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
            return
        try:
            async with asyncio.timeout(seconds):
                await self.channel.channel_ready()
        except TimeoutError as error:
            raise Unavailable(f"etcd at {self.endpoint} does not answer") from error


class Members:
    """All servers of a store.

    Args:
        endpoints: `host:port` or `unix:/path`, at least one.
        deadline_seconds: of every call.
        tls: our certificate, and what theirs have to say; None: in plain text.

    Raises:
        Invalid: an endpoint is malformed, or there is none.
        Refused: our certificate is not usable.
    """

    def __init__(
        self, endpoints: Sequence[str], deadline_seconds: float, tls: Tls | None = None
    ) -> None:
        if not endpoints:
            raise Invalid("endpoints", "at least one is needed")
        self._members = [Member(endpoint, tls) for endpoint in endpoints]
        # Replicas of a service spread over the members.
        random.shuffle(self._members)
        self._current = 0
        self.closed = asyncio.Event()
        # Called to end what has a connection of its own.
        self.on_close: set[Callable[[], None]] = set()
        self._deadline_seconds = deadline_seconds

    @property
    def current(self) -> Member:
        """The member in use."""
        return self._members[self._current]

    def leave(self, member: Member) -> None:
        """Another member is used from now on, unless that has happened already."""
        if member is self.current:
            self._current = (self._current + 1) % len(self._members)

    async def call(self, send: Callable[[Member, float], Awaitable[T]], *, idempotent: bool) -> T:
        """Calls a member. send: gets it and the seconds it may take.

        Raises:
            DeltaplaneError: what the server answered. Unavailable: it may have done what was asked.
        """
        with self.unless_closed():
            return await self._go_round(send, idempotent=idempotent)

    @contextlib.contextmanager
    def unless_closed(self) -> Iterator[None]:
        """Closing a channel cancels what waits for it: that must not look as if we were cancelled.

        Raises:
            Unavailable: the store was or is being closed.
        """
        if self.closed.is_set():
            raise Unavailable("the store is closed")
        try:
            yield
        except (asyncio.CancelledError, grpc.aio.UsageError) as error:
            task = asyncio.current_task()
            if not self.closed.is_set() or (task is not None and task.cancelling()):
                raise
            raise Unavailable("the store was closed") from error

    async def _go_round(
        self, send: Callable[[Member, float], Awaitable[T]], *, idempotent: bool
    ) -> T:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._deadline_seconds
        while True:
            for untried in range(len(self._members), 0, -1):
                member = self.current
                # A member that hangs leaves time for the others.
                until = clock() + (deadline - clock()) / untried
                try:
                    await member.connect(until - clock())
                except Unavailable:
                    self.leave(member)
                    if clock() >= deadline:
                        raise
                    continue
                try:
                    return await send(member, max(until - clock(), 0.001))
                except grpc.aio.AioRpcError as error:
                    failure = translate(error, member.endpoint)
                    if not isinstance(failure, Unavailable):
                        raise failure from error
                    self.leave(member)
                    if not idempotent or clock() >= deadline:
                        raise failure from error
            await asyncio.sleep(min(_PAUSE_SECONDS, max(0.0, deadline - clock())))

    async def close(self) -> None:
        """Ends all connections; calls under way end with Unavailable."""
        self.closed.set()
        for end in tuple(self.on_close):
            end()
        for member in self._members:
            await member.channel.close()


def translate(error: grpc.aio.AioRpcError, endpoint: str) -> DeltaplaneError:
    """The exception for what an etcd server answered. Compacted carries 0, the unknown."""
    details = error.details() or ""
    match error.code():
        case grpc.StatusCode.OUT_OF_RANGE if "compacted" in details:
            return Compacted(0)
        case grpc.StatusCode.OUT_OF_RANGE:
            return Invalid("revision", details)
        case grpc.StatusCode.INTERNAL | grpc.StatusCode.UNKNOWN:
            # A connection that broke: etcd's own errors have codes of their own.
            return Unavailable(f"etcd at {endpoint}: {details}")
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "too many requests" in details:
            return Unavailable(f"etcd at {endpoint}: {details}")
    failure = rpc.translate(error)
    if isinstance(failure, Unavailable):
        return Unavailable(f"etcd at {endpoint}: {failure}")
    return failure
