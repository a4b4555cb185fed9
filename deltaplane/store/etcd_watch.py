"""A watch on etcd that survives connections, servers and slow consumers.

    events ──► batch ──► cursor = last event's revision        (where to resume, and only that)
    proof  ──► mark                                             (everything through it was
    delivered)

The revision in a response's header is no proof: while a watch catches up it is the store's. What
proves that everything was delivered is a progress notification of the watch itself, or the answer
to a progress request of a server that orders it after the events: 3.4.31, 3.5.13 and later. Older
ones answer at once, past events that still wait to be sent; there the answer only shows that the
connection lives.
"""

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import grpc.aio
from google.protobuf.message import DecodeError

from deltaplane.errors import Compacted, Refused, Unavailable
from deltaplane.runtime import log
from deltaplane.store import etcd_call
from deltaplane.store.etcd_members import Member, Members, translate
from deltaplane.store.etcdpb import rpc_pb2 as pb
from deltaplane.store.port import Event, WatchBatch

QUIET_SECONDS = 0.5
"""After so long without an answer we ask for one: half of what the port promises."""

DEAD_AFTER = 6
"""So many questions without an answer, and the connection counts as dead."""

_CONNECT_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5
_WARN_AFTER_MARKS = 20
_NO_WATCH = -1
_ASK = pb.WatchRequest(progress_request=pb.WatchProgressRequest()).SerializeToString()
_METHOD = "/etcdserverpb.Watch/Watch"
# With hasleader a member that lost its cluster ends the stream instead of falling silent.
_METADATA = (("hasleader", "true"),)


@dataclass(slots=True)
class Position:
    """How far one stream is.

    Attributes:
        cursor: revision through which events were handed out, or where the watch started.
        proven: revision through which everything was; at least the cursor.
        answers_prove: whether the server orders answers to progress requests after events.
        behind: answers in a row that were ahead of what is proven.
    """

    cursor: int
    answers_prove: bool
    proven: int = 0
    behind: int = 0

    def receive(self, response: pb.WatchResponse) -> WatchBatch | None:
        """What a response says to the consumer; None: nothing.

        Raises:
            Compacted: the start of the watch is gone.
            Refused: we may not watch this.
            Unavailable: the server ended the watch; start another.
        """
        if response.canceled:
            raise _ended(response)
        if response.created:
            return None
        if response.events:
            return self._events(response)
        revision = response.header.revision
        if response.watch_id != _NO_WATCH or self.answers_prove:
            self.proven = max(self.proven, revision)
        self.proven = max(self.proven, self.cursor)
        self.behind = self.behind + 1 if revision > self.proven else 0
        return WatchBatch(revision=self.proven, events=())

    def _events(self, response: pb.WatchResponse) -> WatchBatch | None:
        # A member that lags behind can send again what another has sent before.
        events = tuple(
            _event(event) for event in response.events if event.kv.mod_revision > self.cursor
        )
        if not events:
            return None
        self.cursor = events[-1].mod_revision
        return WatchBatch(revision=self.cursor, events=events)


def together(position: Position, responses: Iterable[pb.WatchResponse]) -> Iterator[WatchBatch]:
    """What responses say to the consumer, those of events that follow one another as one batch.

    Raises:
        DeltaplaneError: as `Position.receive`, after all that came before.
    """
    events: list[Event] = []
    for response in responses:
        has_events = response.events and not response.canceled
        if events and not has_events:
            yield WatchBatch(revision=events[-1].mod_revision, events=tuple(events))
            events = []
        batch = position.receive(response)
        if batch is None:
            continue
        if has_events:
            events += batch.events
        else:
            yield batch
    if events:
        yield WatchBatch(revision=events[-1].mod_revision, events=tuple(events))


def answers_prove(version: str) -> bool:
    """Whether a server of this version orders answers to progress requests after the events."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    match numbers:
        case (3, 4, patch):
            return patch >= 31
        case (3, 5, patch):
            return patch >= 13
        case _:
            return numbers >= (3, 6)


async def watch(
    members: Members, key: bytes, range_end: bytes, *, after: int
) -> AsyncGenerator[WatchBatch, None]:
    """Yields batches from the writes after a revision on, until members is closed. See the port."""
    cursor = after
    pause = _FIRST_PAUSE_SECONDS
    while not members.closed.is_set():
        member = members.current
        try:
            stream = _stream(members, member, _create(key, range_end, cursor), cursor)
            with members.unless_closed():
                async with contextlib.aclosing(stream) as batches:
                    async for batch in batches:
                        pause = _FIRST_PAUSE_SECONDS
                        if batch.events:
                            cursor = batch.revision
                        yield batch
        except Unavailable as error:
            if members.closed.is_set():
                return
            members.leave(member)
            log.get().info("watch_interrupted", reason=str(error), cursor=cursor)
            await asyncio.sleep(random.uniform(0.5, 1) * pause)  # noqa: S311 - no secret
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


async def _stream(
    members: Members, member: Member, create: pb.WatchRequest, cursor: int
) -> AsyncGenerator[WatchBatch, None]:
    """One stream on one member; ends with an exception."""
    try:
        await member.connect(_CONNECT_SECONDS)
        status = await member.maintenance.Status(pb.StatusRequest(), timeout=_CONNECT_SECONDS)
    except grpc.aio.AioRpcError as error:
        raise translate(error, member.endpoint) from error
    position = Position(cursor=cursor, answers_prove=answers_prove(status.version))
    call = await etcd_call.connect(
        member.endpoint, _METHOD, metadata=_METADATA, seconds=_CONNECT_SECONDS, tls=member.tls
    )
    members.on_close.add(call.close)
    try:
        if members.closed.is_set():
            raise Unavailable("the store is closed")
        call.send(create.SerializeToString())
        while True:
            responses = map(pb.WatchResponse.FromString, await _answers(call))
            for batch in together(position, responses):
                if position.behind == _WARN_AFTER_MARKS:
                    log.get().warning(
                        "watch_progress_unproven", etcd=status.version, remedy=_REMEDY
                    )
                yield batch
    except DecodeError as error:
        raise Unavailable(f"etcd at {member.endpoint}: {error}") from error
    finally:
        members.on_close.discard(call.close)
        call.close()


_REMEDY = (
    "marks stand still: use etcd 3.5.13 or later, or start it with "
    "--experimental-watch-progress-notify-interval=500ms"
)


async def _answers(call: etcd_call.Stream) -> Sequence[bytes]:
    """Waits for responses, asking for progress whenever it is quiet."""
    for _ in range(DEAD_AFTER):
        if found := await call.messages(QUIET_SECONDS):
            return found
        call.send(_ASK)
    raise Unavailable(f"etcd was silent for {DEAD_AFTER * QUIET_SECONDS:g} s")


def _create(key: bytes, range_end: bytes, cursor: int) -> pb.WatchRequest:
    return pb.WatchRequest(
        create_request=pb.WatchCreateRequest(
            key=key, range_end=range_end, start_revision=cursor + 1, progress_notify=True
        )
    )


def _ended(response: pb.WatchResponse) -> Exception:
    if response.compact_revision:
        return Compacted(response.compact_revision)
    if "permission" in response.cancel_reason:
        return Refused(f"etcd: {response.cancel_reason}")
    return Unavailable(f"etcd ended the watch: {response.cancel_reason}")


def _event(event: pb.Event) -> Event:
    deleted = event.type == pb.Event.DELETE
    return Event(
        key=event.kv.key.decode(),
        value=None if deleted else event.kv.value,
        create_revision=0 if deleted else event.kv.create_revision,
        mod_revision=event.kv.mod_revision,
    )
