"""The agent's end of the delta stream: connects, applies at barriers, acknowledges.

It owns sockets and time. What the messages mean is `deltaplane.delta.receiver`'s affair, what to do
with a view the caller's. Losing the stream changes nothing: the view stays and the next stream goes
on from it.

    async def apply(barrier: BarrierReached) -> ApplyResult: ...

    stream = SlicerStream()
    await stream.run(["slicer-1:4003", "slicer-2:4003"], HelloState(node=…, node_uid=…), apply)
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle

import grpc
import grpc.aio

from deltaplane.delta.acks import Refusal
from deltaplane.delta.messages import BucketReplace, Hello, SnapshotEnd, StreamBroken, Welcome
from deltaplane.delta.receiver import (
    DEFAULT_CREDIT_BYTES,
    BarrierReached,
    Floor,
    Receiver,
)
from deltaplane.delta.span import EMPTY
from deltaplane.delta.view import Held, View
from deltaplane.delta.wire import decode_responses, encode_request
from deltaplane.errors import DeltaplaneError, Unavailable
from deltaplane.runtime import log, rpc
from deltaplane.runtime.clock import Clock, SystemClock
from deltaplane.runtime.tls import Tls
from nodeagent.tracing import Following

__all__ = [
    "Apply",
    "ApplyResult",
    "BarrierReached",
    "Floor",
    "Held",
    "HelloState",
    "Refusal",
    "SlicerStream",
    "View",
]

METHOD = "/deltaplane.v1.Slicer/Stream"

IDLE_BOOKMARKS = 4
"""A stream without a message for so many bookmark periods is dead; a busy server may miss some."""

AUDIT_SECONDS = 0.1
"""How often a part of the view is hashed anew: so small a one that no change waits for it long."""

AUDIT_PARTS = 100
"""Of so many parts; in buckets they cover the view within 8.6 s."""

REMIND_SECONDS = 10.0
"""A stream that keeps ending for the same reason says so this often."""

BATCH_MESSAGES = 64
"""Messages taken before other tasks get a turn; a chunk of 256 KiB takes about 50 ms to decode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloState:
    """Who the agent is. floor: what the kernel's `applied` map says; left out after a reboot."""

    node: str
    node_uid: str
    boot_id: str = ""
    floor: Floor = field(default_factory=Floor)


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """What became of a barrier.

    Attributes:
        refused: all objects that are held closed now, also those of earlier barriers: one that was
            refused before and is not in here counts as applied.
        unwritten: the kernel agrees, but what has to outlive this process is not on disk: this
            revision does not count as applied, the next may.
        held: what should be removed is not: neither this nor a newer revision counts as applied.
    """

    refused: tuple[Refusal, ...] = ()
    unwritten: bool = False
    held: bool = False


Apply = Callable[[BarrierReached], Awaitable[ApplyResult]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds. A retry waits for half to all of min(retry_max, retry_min * 2^attempt)."""

    welcome: float = 5.0
    retry_min: float = 0.1
    retry_max: float = 5.0


@dataclass(slots=True)
class _Standing:
    """What outlives a stream.

    Attributes:
        replaced: a snapshot or repair has come since the last barrier that was applied.
        held: the last barrier was; see `ApplyResult`. unwritten: the same.
    """

    replaced: bool = False
    held: bool = False
    unwritten: bool = False


_Call = grpc.aio.StreamStreamCall[bytes, bytes]


class SlicerStream:
    """One agent's stream over all its reconnects.

    Attributes:
        connected: a server has welcomed us and the stream is up.
        lost_at: the clock's time when the stream that was up ended; None while it is up and before.
        last_error: why the last stream ended, for people; empty before the first end.
        received_revision: last barrier received; 0 before the first.
        lineage: lineage of that revision; empty before the first.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        timing: Timing | None = None,
        credit_bytes: int = DEFAULT_CREDIT_BYTES,
        following: Following | None = None,
        tls: Tls | None = None,
    ) -> None:
        self.connected = False
        self._following = following or Following()
        self.lost_at: float | None = None
        self.last_error = ""
        self._clock = clock or SystemClock()
        self._timing = timing or Timing()
        self._credit_bytes = credit_bytes
        self._tls = tls
        self._receiver: Receiver | None = None
        self._standing = _Standing()
        self._attempt = 0
        self._unlogged = 0
        self._logged_at = float("-inf")

    @property
    def replaced(self) -> bool:
        """Whether the barrier that is being applied contains a snapshot or repair."""
        return self._standing.replaced

    @property
    def received_revision(self) -> int:
        """See the class."""
        return self._receiver.revision if self._receiver else 0

    @property
    def lineage(self) -> bytes:
        """See the class."""
        return self._receiver.lineage if self._receiver else b""

    async def run(self, targets: Sequence[str], hello_state: HelloState, apply: Apply) -> None:
        """Streams until cancelled.

        Args:
            targets: addresses of slicers, tried in turn from a random one on.
            hello_state: who we are.
            apply: called at each barrier, never twice at a time; the view it gets does not change
                before it returns. What it raises ends `run`.
        """
        receiver = self._receiver = Receiver(
            node=hello_state.node,
            node_uid=hello_state.node_uid,
            boot_id=hello_state.boot_id,
            floor=hello_state.floor,
            credit_bytes=self._credit_bytes,
        )
        first = random.randrange(len(targets))  # noqa: S311 - spreads agents, keeps no secret
        for target in cycle([*targets[first:], *targets[:first]]):
            session = _Session(
                receiver,
                apply,
                self._clock,
                self._timing,
                partial(self._welcomed, target),
                self._following,
                self._standing,
                self._tls,
            )
            try:
                await session.run(target)
            except DeltaplaneError as error:
                if error is session.apply_error:
                    raise
                self._note_end(target, str(error))
            finally:
                if self.connected:
                    self.lost_at = self._clock.now()
                self.connected = False
            await session.apply_last()
            self._following.lost()
            delay = session.retry_after
            if delay is None:
                delay = self._back_off()
            await asyncio.sleep(delay)

    def _note_end(self, target: str, reason: str) -> None:
        """Logs the end of a stream that was up, what is new, and now and then that it goes on."""
        now = self._clock.now()
        is_news = self.connected or reason != self.last_error
        if is_news or now - self._logged_at >= REMIND_SECONDS:
            log.get().warning(
                "stream_ended", target=target, reason=reason, unlogged_before=self._unlogged
            )
            self._unlogged, self._logged_at = 0, now
        else:
            self._unlogged += 1
        self.last_error = reason

    def _welcomed(self, target: str, welcome: Welcome) -> None:
        self.connected, self._attempt, self.lost_at = True, 0, None
        log.get().info(
            "stream_up", target=target, mode=welcome.mode.name, head=welcome.head_revision
        )

    def _back_off(self) -> float:
        longest: float = min(self._timing.retry_max, self._timing.retry_min * 2**self._attempt)
        self._attempt = min(self._attempt + 1, 16)
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - keeps no secret
        return longest * jitter


@dataclass(slots=True)
class _Session:
    """One stream.

    Attributes:
        retry_after: seconds, when the server said when to come back.
        apply_error: what `apply` raised.
        vouches: the server may believe that we agree with what it has.
    """

    receiver: Receiver
    apply: Apply
    clock: Clock
    timing: Timing
    welcomed: Callable[[Welcome], None]
    following: Following
    standing: _Standing
    tls: Tls | None
    retry_after: float | None = None
    apply_error: Exception | None = None
    vouches: bool = False
    _inbox: deque[bytes] = field(default_factory=deque)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _heard_at: float = 0.0
    _audit_at: float = 0.0
    _end: DeltaplaneError | None = None

    async def run(self, target: str) -> None:
        """Runs until the stream ends.

        Raises:
            DeltaplaneError: why it ended.
        """
        self._heard_at = self.clock.now()
        self._audit_at = self._heard_at + AUDIT_SECONDS
        ended: Exception | None = None
        async with rpc.channel(target, self.tls) as channel, asyncio.TaskGroup() as tasks:
            call: _Call = channel.stream_stream(METHOD)()
            reading = tasks.create_task(self._read(call))
            try:
                await self._send(call, encode_request(self._hello()))
                while self.retry_after is None:
                    await self._step(call)
            except Exception as error:  # noqa: BLE001 - raised below, outside of the group
                ended = error
            finally:
                reading.cancel()
                call.cancel()
        if ended is not None:
            raise ended

    def _hello(self) -> Hello:
        """Who we are. A view that does not count as applied is none: we ask for another one."""
        hello = self.receiver.hello()
        if self.standing.held or self.standing.unwritten:
            hello = replace(hello, applied_revision=0, root_digest=b"", held=EMPTY)
        self.vouches = bool(hello.applied_revision)
        return hello

    async def apply_last(self) -> None:
        """Applies the last barrier of an ended stream: the next Hello says that it is applied."""
        if (barrier := self.receiver.take_barrier()) is not None:
            await self._apply_barrier(barrier)

    async def _step(self, call: _Call) -> None:
        """Takes what has come, applies the last barrier in it, sends what is due, or waits."""
        was_welcomed = self.receiver.welcome is not None
        for _ in range(min(len(self._inbox), BATCH_MESSAGES)):
            for message, size in decode_responses(self._inbox.popleft()):
                self.receiver.receive(message, size)
                self.standing.replaced |= isinstance(message, SnapshotEnd | BucketReplace)
                self.following.received(message)
        if self.receiver.welcome is not None and not was_welcomed:
            self.welcomed(self.receiver.welcome)
        await self.apply_last()
        if self.standing.held and self.vouches:
            # Only a stream that begins with nothing takes back what older Acks promise of us.
            raise StreamBroken(
                "too much would be removed; until that is confirmed we agree to nothing"
            )
        if (now := self.clock.now()) >= self._audit_at:
            self._audit_at = now + AUDIT_SECONDS
            self.receiver.audit(AUDIT_PARTS)
        for answer in self.receiver.poll(now):
            await self._send(call, encode_request(answer))
            self.following.sent(answer)
        if self.receiver.drain is not None:
            self.retry_after = self.receiver.drain.retry_after_ms / 1000
        elif self._inbox:
            await asyncio.sleep(0)
        elif self._end is not None:
            raise self._end
        else:
            await self._wait()

    async def _wait(self) -> None:
        """Until something comes in or an Ack is due.

        Raises:
            Unavailable: nothing has come for too long.
        """
        welcome = self.receiver.welcome
        patience = (
            self.timing.welcome
            if welcome is None
            else max(1, IDLE_BOOKMARKS * welcome.bookmark_period_ms / 1000)
        )
        now = self.clock.now()
        if (silent := now - self._heard_at) > patience:
            raise Unavailable(f"nothing heard from the slicer for {silent:.1f} s")
        due = self.receiver.ack_due_at()
        wait_until = min(self._heard_at + patience, self._audit_at)
        if due is not None:
            wait_until = min(wait_until, due)
        # Not wait_for: in Python 3.11 it loses a cancellation that comes together with the event.
        # A little later than due, so that the clock agrees.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, wait_until - now) + 0.001):
                await self._wake.wait()
        self._wake.clear()

    async def _apply_barrier(self, barrier: BarrierReached) -> None:
        started = self.clock.now()
        try:
            result = await self.apply(barrier)
        except Exception as error:
            self.apply_error = error
            raise
        self.standing.replaced, self.standing.held = False, result.held
        self.standing.unwritten = result.unwritten
        self.vouches |= not result.held
        self.receiver.applied(
            0 if result.held or result.unwritten else barrier.revision,
            refused=result.refused,
            took_seconds=self.clock.now() - started,
        )

    async def _send(self, call: _Call, message: bytes) -> None:
        try:
            await call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            # The status says why; the reader has it or gets it now.
            raise await _reason(call) from error

    async def _read(self, call: _Call) -> None:
        """Moves messages into the inbox, which the credit bounds, until the stream ends."""
        try:
            while isinstance(data := await call.read(), bytes):
                self._heard_at = self.clock.now()
                self._inbox.append(data)
                self._wake.set()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass
        self._end = await _reason(call)
        self._wake.set()


async def _reason(call: _Call) -> DeltaplaneError:
    """Why an ended call has ended."""
    code, details = await call.code(), await call.details() or ""
    if code is grpc.StatusCode.OK:
        return StreamBroken("the server closed the stream")
    return rpc.translate(
        grpc.aio.AioRpcError(code, grpc.aio.Metadata(), await call.trailing_metadata(), details)
    )
