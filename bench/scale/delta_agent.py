"""A simulated agent of the slicer, without sockets.

It does what the protocol asks of an agent, and has an endpoint in memory where the real one has it
in the kernel. Digests it leaves out: in Python they cost more than the stream does. The agents on
grpc.aio beside it have them.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate

from google.protobuf.message import Message

from bench.scale.agents import Clock
from bench.scale.applied import Log
from bench.scale.decoding import Content, DeltaDecoder, ObjectKey, unbundled
from deltaplane.delta.wire.objects import deltas
from deltaplane.runtime.http2 import CallBroken
from deltaplane.v1 import slicer_pb2 as pb

CREDIT_BYTES = 4 << 20
"""As the real agent's."""

CREDIT_RETURN = 4
"""As the real agent's: an Ack for credit alone goes out once a quarter has been used."""

LAZY_ACK_NS = 10 * 10**9
"""As the real agent's: bookmarks alone are acknowledged this seldom."""

SLICER = "/deltaplane.v1.Slicer/Stream"


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
        self._table: dict[int, pb.EndpointUpsert] = {}
        self._others: dict[ObjectKey, Message] = {}
        self._index = 0
        self._lineage = b""
        self._revision = 0
        self._reset()

    def _reset(self) -> None:
        self.in_sync_ns = 0
        self._welcome: pb.Welcome | None = None
        self._pending: list[Content] = []
        self._position = self._revision
        self._continues = False
        self._snapshot: list[Sequence[Content]] | None = None
        self._snapshot_verified = False
        self._applied = self._acked = self._wanted = 0
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
            held=self._held() if self._revision else None,
        )
        return pb.StreamRequest(hello=hello).SerializeToString()

    def receive(self, data: bytes) -> None:
        """See Agent."""
        for message in unbundled(data):
            self._take(message)

    def _take(self, data: bytes) -> None:
        self.messages += 1
        found = self._decode(data)
        message = found.message
        match found.kind:
            case "frame":
                self._consumed += len(data)
                self._frame(message.frame, found.content)
            case "barrier":
                self._barrier(message.barrier)
            case "snapshot_chunk":
                self._consumed += len(data)
                self._open_snapshot().append(found.content)
            case "snapshot_begin":
                self._consumed += len(data)
                self._pending.clear()
                self._continues = False
                self._snapshot, self._snapshot_verified = [], False
                self._position = message.snapshot_begin.revision
                self.snapshots += 1
            case "snapshot_end":
                self._consumed += len(data)
                self._snapshot_ends(message.snapshot_end)
            case "welcome":
                self._welcome, self._index = message.welcome, message.welcome.node_index
            case _:
                self._refuse(found.kind)

    def _frame(self, frame: pb.Frame, content: Sequence[Content]) -> None:
        follows = frame.previous_revision == self._position == frame.revision
        if frame.revision <= self._position and not follows:
            return  # repeated
        if (previous := frame.previous_revision) > self._position:
            self._revision = 0  # the next connection begins anew
            raise CallBroken(f"frames between {self._position} and {previous} are missing")
        self._pending += content
        self._continues = frame.continues
        if not frame.continues:
            self._position = frame.revision

    def _refuse(self, kind: str | None) -> None:
        """Drain, Reset and what needs digests: the next connection begins with a snapshot."""
        self.refused += 1
        if kind not in ("drain", "reset"):
            self._revision = 0
        raise CallBroken(f"the server says {kind}")

    def _open_snapshot(self) -> list[Sequence[Content]]:
        if self._snapshot is None or self._snapshot_verified:
            raise CallBroken("a chunk outside of a snapshot")
        return self._snapshot

    def _snapshot_ends(self, end: pb.SnapshotEnd) -> None:
        parts = self._open_snapshot()
        objects = sum(len(c.endpoints) + len(c.others) for part in parts for c in part)
        if (len(parts), objects) != (end.chunks, end.objects):
            raise CallBroken(f"a snapshot of {objects} objects instead of {end.objects}")
        self._snapshot_verified = True

    def _barrier(self, barrier: pb.Barrier) -> None:
        unfinished = self._continues or (self._snapshot is not None and not self._snapshot_verified)
        if unfinished or barrier.revision < self._position or self._welcome is None:
            return  # a sign of life
        began = self._clock()
        if self._snapshot is not None:
            self._table, self._others = {}, {}
            for chunk in self._snapshot:
                for part in chunk:
                    self._apply(part)
            self._snapshot, self._lineage = None, self._welcome.lineage
        pending, self._pending = self._pending, []
        for part in pending:
            self._apply(part)
        before = self._revision
        self._revision = self._position = self._applied = barrier.revision
        if not barrier.bookmark:
            self._wanted = barrier.revision
        now = self._clock()
        for part in pending:
            self.log.note(now, part.came_after(before), part.went)
        self.in_sync_ns = self.in_sync_ns or now
        self._worst_us = max(self._worst_us, (now - began) // 1000)

    def _apply(self, part: Content) -> None:
        table = self._table
        for key in part.removed:
            table.pop(key, None)
        for number in part.left:
            self._leave(number)
        for other in part.removed_others:
            self._others.pop(other, None)
        table.update(part.endpoints)
        if part.others:
            self._others.update(part.others)

    def _leave(self, identity: int) -> None:
        """Forgets the endpoints of an identity that are not this node's own."""
        assert self._welcome is not None
        gone = [
            key
            for key, item in self._table.items()
            if item.identity == identity and item.node_index != self._welcome.node_index
        ]
        for key in gone:
            del self._table[key]

    def _held(self) -> pb.Held:
        """The span of what it holds, as `deltaplane.delta.span.held_span` reads it off a view."""
        local = {item.identity for key, item in self._table.items() if key >> 32 == self._index}
        policies = {
            item.identity: _peer_sets_of(item)
            for item in self._others.values()
            if isinstance(item, pb.SubjectPolicyUpsert)
        }
        subjects = local | policies.keys()
        peers: set[int] = set()
        for number in local:
            for key in policies.get(number, ()):
                found = self._others.get((pb.KIND_PEER_SET, key))
                if isinstance(found, pb.PeerSetUpsert):
                    peers.update(accumulate(found.identity_deltas))
        return pb.Held(
            subject_deltas=deltas(sorted(subjects)),
            peer_deltas=deltas(sorted(peers)),
            peer_sets=sorted({key for keys in policies.values() for key in keys}),
        )

    def due_ns(self) -> int | None:
        """See Agent."""
        if self._welcome is None:
            return None
        if CREDIT_RETURN * self._consumed >= CREDIT_BYTES or self._acked < self._wanted:
            return self._acked_ns + self._welcome.ack_interval_ms * 1_000_000
        return self._acked_ns + LAZY_ACK_NS if self._acked < self._applied else None

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

    def endpoints(self) -> Iterator[tuple[int, pb.EndpointUpsert]]:
        """See Agent."""
        yield from self._table.items()


def _peer_sets_of(policy: pb.SubjectPolicyUpsert) -> set[bytes]:
    directions = (policy.ingress, policy.egress)
    return {key for side in directions for rule in side.rules for key in rule.peer_sets}
