"""Simulated agents: what they say and what they keep in memory, without sockets.

Each keeps its own memory of every endpoint that it was told of. What a real one does besides (a
kernel's maps, digests of every object) is left out: the agents beside them on grpc.aio do the
digests, and the kernel is measured elsewhere.
"""

from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from bench.scale.applied import Log
from bench.scale.decoding import Content, DeltaDecoder, Endpoint, ListedDecoder
from bench.scale.http2 import CallBroken
from deltaplane.store.etcdpb import rpc_pb2
from deltaplane.v1 import registry_pb2
from deltaplane.v1 import slicer_pb2 as pb

CREDIT_BYTES = 4 << 20
"""As the real agent's."""

CREDIT_RETURN = 4
"""As the real agent's: an Ack for credit alone goes out once a quarter has been used."""

SLICER = "/deltaplane.v1.Slicer/Stream"
BASELINE = "/deltaplane.bench.Baseline/Watch"

Clock = Callable[[], int]
"""Nanoseconds of the machine's monotonic clock."""

_NOTHING = array("Q")


class Agent(Protocol):
    """One agent over all its connections.

    Attributes:
        path: the gRPC method of its stream.
        log: when it had which change.
        in_sync_ns: when this connection had everything that was there before; 0: not yet.
        snapshots: connections that began with everything instead of the rest.
        messages: received; acks: sent.
    """

    path: str
    log: Log
    in_sync_ns: int
    snapshots: int
    messages: int
    acks: int

    def hello(self) -> bytes:
        """Starts a connection: the first message."""
        ...

    def receive(self, data: bytes) -> None:
        """Takes a message."""
        ...

    def due_ns(self) -> int | None:
        """When `poll` has something to say; None: not before something comes."""
        ...

    def poll(self, now_ns: int) -> bytes | None:
        """What is to be sent now."""
        ...

    def endpoints(self) -> Iterator[tuple[int, Endpoint]]:
        """All that it holds, by endpoint key."""
        ...


class DeltaAgent:
    """An agent of the slicer: snapshot, frames, barriers, acknowledgements, credit."""

    path: str = SLICER

    def __init__(self, name: str, uid: str, decoder: DeltaDecoder, clock: Clock) -> None:
        self.log = Log()
        self.in_sync_ns = 0
        self.snapshots = self.messages = self.acks = 0
        self.refused = 0  # messages of a later protocol
        self._name, self._uid = name, uid
        self._decode, self._clock = decoder, clock
        self._table: dict[int, Endpoint] = {}
        self._others: dict[tuple[str, object], object] = {}
        self._lineage = b""
        self._revision = 0
        self._reset()

    def _reset(self) -> None:
        self.in_sync_ns = 0
        self._welcome: pb.Welcome | None = None
        self._pending: list[Content] = []
        self._position = self._revision
        self._snapshot: list[Content] | None = None
        self._snapshot_verified = False
        self._applied = self._acked = 0
        self._consumed = 0
        self._acked_ns = 0
        self._received_ns = 0
        self._worst_us = 0

    def hello(self) -> bytes:
        """See Agent."""
        self._reset()
        hello = pb.Hello(
            node=self._name,
            node_uid=self._uid,
            protocol_min=1,
            protocol_max=1,
            lineage=self._lineage,
            applied_revision=self._revision,
            credit_bytes=CREDIT_BYTES,
            floor_revision=self._revision,
        )
        return pb.StreamRequest(hello=hello).SerializeToString()

    def receive(self, data: bytes) -> None:
        """See Agent."""
        self.messages += 1
        found = self._decode(data)
        message = found.message
        match found.kind:
            case "frame":
                assert found.content is not None
                self._consumed += len(data)
                if message.frame.revision > self._position:
                    self._continue(message.frame.previous_revision)
                    self._pending.append(found.content)
                    self._position = message.frame.revision
            case "barrier":
                self._barrier(message.barrier)
            case "snapshot_chunk":
                assert found.content is not None
                self._consumed += len(data)
                self._open_snapshot().append(found.content)
            case "snapshot_begin":
                self._consumed += len(data)
                self._pending.clear()
                self._snapshot, self._snapshot_verified = [], False
                self._position = message.snapshot_begin.revision
                self.snapshots += 1
            case "snapshot_end":
                self._consumed += len(data)
                self._snapshot_ends(message.snapshot_end)
            case "welcome":
                self._welcome = message.welcome
            case _:
                self._refuse(found.kind)

    def _continue(self, previous: int) -> None:
        if previous > self._position:
            self._revision = 0  # the next connection begins anew
            raise CallBroken(f"frames between {self._position} and {previous} are missing")

    def _refuse(self, kind: str | None) -> None:
        """Drain, Reset and what needs digests: the next connection begins with a snapshot."""
        self.refused += 1
        if kind not in ("drain", "reset"):
            self._revision = 0
        raise CallBroken(f"the server says {kind}")

    def _open_snapshot(self) -> list[Content]:
        if self._snapshot is None or self._snapshot_verified:
            raise CallBroken("a chunk outside of a snapshot")
        return self._snapshot

    def _snapshot_ends(self, end: pb.SnapshotEnd) -> None:
        parts = self._open_snapshot()
        objects = sum(len(part.endpoints) + len(part.others) for part in parts)
        if (len(parts), objects) != (end.chunks, end.objects):
            raise CallBroken(f"a snapshot of {objects} objects instead of {end.objects}")
        self._snapshot_verified = True

    def _barrier(self, barrier: pb.Barrier) -> None:
        unfinished = self._snapshot is not None and not self._snapshot_verified
        if unfinished or barrier.revision < self._position or self._welcome is None:
            return  # a sign of life
        began = self._clock()
        if self._snapshot is not None:
            self._table, self._others = {}, {}
            for part in self._snapshot:
                self._apply(part)
            self._snapshot, self._lineage = None, self._welcome.lineage
        pending, self._pending = self._pending, []
        for part in pending:
            self._apply(part)
        self._revision = self._position = self._applied = barrier.revision
        now = self._clock()
        for part in pending:
            self.log.note(now, part.came, part.went)
        self.in_sync_ns = self.in_sync_ns or now
        self._worst_us = max(self._worst_us, (now - began) // 1000)

    def _apply(self, part: Content) -> None:
        table = self._table
        table.update(part.endpoints)
        for key in part.removed:
            table.pop(key, None)
        if part.others:
            self._others.update(part.others)

    def due_ns(self) -> int | None:
        """See Agent."""
        starving = CREDIT_RETURN * self._consumed >= CREDIT_BYTES
        if self._welcome is None or not (starving or self._applied > self._acked):
            return None
        return self._acked_ns + self._welcome.ack_interval_ms * 1_000_000

    def poll(self, now_ns: int) -> bytes | None:
        """See Agent."""
        due = self.due_ns()
        if due is None or now_ns < due:
            return None
        ack = pb.Ack(
            applied_revision=self._applied,
            received_revision=self._position,
            added_credit_bytes=self._consumed,
            worst_apply_us=self._worst_us,
        )
        self._acked, self._acked_ns = self._applied, now_ns
        self._consumed = self._worst_us = 0
        self.acks += 1
        return pb.StreamRequest(ack=ack).SerializeToString()

    def endpoints(self) -> Iterator[tuple[int, Endpoint]]:
        """See Agent."""
        yield from self._table.items()


class ListedAgent:
    """An agent of a baseline: lists, then watches; it acknowledges nothing, as in Kubernetes."""

    path: str = BASELINE

    def __init__(self, decoder: ListedDecoder, clock: Clock) -> None:
        self.log = Log()
        self.in_sync_ns = 0
        self.snapshots = self.messages = self.acks = 0
        self._decode, self._clock = decoder, clock
        self._resume_at = 0

    def hello(self) -> bytes:
        """See Agent."""
        self.in_sync_ns = 0
        if not self._resume_at:
            self.snapshots += 1
        create = rpc_pb2.WatchCreateRequest(start_revision=self._resume_at)
        return rpc_pb2.WatchRequest(create_request=create).SerializeToString()

    def receive(self, data: bytes) -> None:
        """See Agent."""
        self.messages += 1
        found = self._decode(data)
        for name, value in found.objects:
            self._take(name, value)
        self._resume_at = max(self._resume_at, found.resume_at)
        if found.complete:
            self.in_sync_ns = self._clock()

    def _take(self, name: bytes, value: Endpoint | Mapping[int, Endpoint] | None) -> None:
        raise NotImplementedError

    def due_ns(self) -> int | None:
        """See Agent."""
        return None

    def poll(self, now_ns: int) -> bytes | None:  # noqa: ARG002 - it has nothing to say
        """See Agent."""
        return None


class EndpointAgent(ListedAgent):
    """One object for each endpoint, by name."""

    def __init__(self, decoder: ListedDecoder, clock: Clock) -> None:
        super().__init__(decoder, clock)
        self._table: dict[bytes, registry_pb2.Endpoint] = {}

    def _take(self, name: bytes, value: Endpoint | Mapping[int, Endpoint] | None) -> None:
        if value is None:
            if (gone := self._table.pop(name, None)) is not None:
                self._note(_NOTHING, array("Q", (gone.node_index << 32 | gone.id,)))
            return
        assert isinstance(value, registry_pb2.Endpoint)
        self._table[name] = value
        self._note(array("Q", (value.node_index << 32 | value.id,)), _NOTHING)

    def _note(self, came: "array[int]", went: "array[int]") -> None:
        if self.in_sync_ns:
            self.log.note(self._clock(), came, went)

    def endpoints(self) -> Iterator[tuple[int, Endpoint]]:
        """See Agent."""
        for item in self._table.values():
            yield item.node_index << 32 | item.id, item


class SliceAgent(ListedAgent):
    """Slices by name; what changed in one is found by comparing."""

    def __init__(self, decoder: ListedDecoder, clock: Clock) -> None:
        super().__init__(decoder, clock)
        self._table: dict[bytes, Mapping[int, Endpoint]] = {}

    def _take(self, name: bytes, value: Endpoint | Mapping[int, Endpoint] | None) -> None:
        old: Mapping[int, Endpoint] = self._table.pop(name, {})
        new: Mapping[int, Endpoint] = value if isinstance(value, Mapping) else {}
        if new:
            self._table[name] = new
        if self.in_sync_ns:
            came = array("Q", new.keys() - old.keys())
            self.log.note(self._clock(), came, array("Q", old.keys() - new.keys()))

    def endpoints(self) -> Iterator[tuple[int, Endpoint]]:
        """See Agent."""
        for members in self._table.values():
            yield from members.items()
