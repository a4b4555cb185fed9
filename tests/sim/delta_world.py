"""A store, slicer replicas and agents in virtual time, and what must hold at every barrier."""

from collections import deque
from dataclasses import dataclass, field

from deltaplane.delta.changes import Upsert
from deltaplane.delta.log import Limits
from deltaplane.delta.messages import Hello
from deltaplane.delta.receiver import BarrierReached, Floor, Receiver
from deltaplane.delta.sender import Sender
from deltaplane.delta.span import span
from deltaplane.delta.view import View
from deltaplane.delta.wire import (
    ProtobufEncoder,
    decode_request,
    decode_response,
    encode_request,
)
from deltaplane.model.objects import StreamObject
from deltaplane.policy.compiler import Compiler
from services.slicer.facts import Content, Facts, Record
from services.slicer.fanout import Fanout, Session

LINEAGE = b"L" * 16

Values = dict[tuple[int, bytes], StreamObject]


def values(view: View) -> Values:
    return {(held.value.kind, held.value.key): held.value for held in view}


class Store:
    """All writes ever made, so that any revision can be shown from scratch."""

    def __init__(self) -> None:
        self.history: list[Record] = []
        self.revision = 10
        self._oracle: dict[int, View] = {}

    def write(self, key: str, content: Content | None) -> None:
        self.revision += 1
        self.history.append(Record(key=key, generation=self.revision, content=content))

    def listing(self, revision: int) -> list[Record]:
        last: dict[str, Record] = {}
        for record in self.history:
            if record.generation <= revision:
                last[record.key] = record
        found = [record for record in last.values() if record.content is not None]
        return sorted(found, key=lambda record: record.generation)

    def view_at(self, revision: int) -> View:
        """The oracle: the stream's objects, derived from scratch."""
        if revision not in self._oracle:
            view = View()
            for change in facts_of(self.listing(revision)).flush(revision):
                view.apply(change)
            self._oracle[revision] = view
        return self._oracle[revision]

    def values_at(self, revision: int, node_index: int = 0) -> Values:
        """What a node should hold at a revision; 0: everything."""
        view = self.view_at(revision)
        if not node_index:
            return values(view)
        scope = span(view, node_index)
        found = values(view).items()
        return {key: value for key, value in found if scope.holds(value, node_index)}


def facts_of(records: list[Record]) -> Facts:
    facts = Facts(Compiler())
    for record in records:
        facts.apply(record)
    return facts


@dataclass(slots=True)
class Replica:
    """A slicer process: what it has read of the store may be behind."""

    store: Store
    limits: Limits
    is_scoped: bool = False
    fanout: Fanout = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        revision = self.store.revision
        facts = facts_of(self.store.listing(revision))
        sender = Sender(
            lineage=LINEAGE,
            server_id="replica",
            encoder=ProtobufEncoder(),
            revision=revision,
            objects=facts.flush(revision),
            limits=self.limits,
            is_scoped=self.is_scoped,
        )
        self.fanout = Fanout(facts, sender)

    def watch(self, through: int) -> None:
        after = self.fanout.scanned
        records = [r for r in self.store.history if after < r.generation <= through]
        self.fanout.take(records, through, wall_ns=through)

    def relist(self) -> None:
        revision = self.store.revision
        self.fanout.relist(self.store.listing(revision), revision, wall_ns=revision)

    def cut(self, now: float) -> None:
        if self.fanout.cut_at() is not None:
            self.fanout.cut(now=now, wall_ns=int(now))


@dataclass(slots=True)
class Stream:
    """An open stream: what the network holds in each direction."""

    replica: Replica
    session: Session
    down: deque[bytes] = field(default_factory=deque)


class Agent:
    """An agent process and the kernel under it, which survives it."""

    def __init__(self, name: str, store: Store, credit: int, node_index: int = 0) -> None:
        """node_index: of a node that is told of its span; 0: it is told of everything."""
        self.name = name
        self.node_index = node_index
        self.store = store
        self.credit = credit
        self.kernel_revision = 0
        self.stream: Stream | None = None
        self.last: BarrierReached | None = None
        self.start()

    def start(self) -> None:
        """A restarted process knows of its past only what the kernel's map says."""
        self.stream, self.last = None, None
        self.receiver = Receiver(
            node=self.name,
            node_uid=self.name,
            floor=Floor(lineage=LINEAGE, revision=self.kernel_revision),
            credit_bytes=self.credit,
        )

    def connect(self, replica: Replica, now: float) -> None:
        self.cut()
        self.apply(now)
        hello = decode_request(encode_request(self.receiver.hello()))
        assert isinstance(hello, Hello)
        if replica.fanout.obstacle(hello) is not None:
            return
        session = replica.fanout.admit(hello, lambda: None, now=now)
        self.stream = Stream(replica, session)

    def cut(self) -> None:
        if self.stream is not None:
            self.stream.replica.fanout.leave(self.stream.session)
            self.stream = None

    def kill(self) -> None:
        self.cut()
        self.start()

    def pull(self, now: float) -> None:
        """The server writes what it may."""
        if self.stream is not None:
            sender = self.stream.replica.fanout.sender
            self.stream.down.extend(sender.poll(self.stream.session.reader, now))

    def receive(self, count: int, now: float) -> None:
        while self.stream is not None and self.stream.down and count:
            data = self.stream.down.popleft()
            self.receiver.receive(decode_response(data), len(data))
            count -= 1
        self.answer(now)

    def answer(self, now: float) -> None:
        if self.stream is None:
            return
        for message in self.receiver.poll(now):
            fanout, session = self.stream.replica.fanout, self.stream.session
            fanout.receive(session, decode_request(encode_request(message)), now=now)

    def apply(self, now: float) -> None:
        barrier = self.receiver.take_barrier()
        if barrier is None:
            return
        assert barrier.complete
        assert barrier.revision >= self.kernel_revision, "never stale"
        found = values(barrier.view)
        assert found == self.store.values_at(barrier.revision, self.node_index), "prefix"
        self.check_closure(barrier.view)
        before = values_before(self.last)
        changed = {k for k in found.keys() | before.keys() if found.get(k) != before.get(k)}
        assert changed <= barrier.changed, "changed names what changed"
        self.last = snapshot_of(barrier, found)
        self.kernel_revision = barrier.revision
        self.receiver.applied(barrier.revision)
        self.answer(now)

    def check_closure(self, view: View) -> None:
        for held in view.endpoints.values():
            assert held.value.identity.to_bytes(4) in view.identities
            if self.node_index in (0, held.value.node_index):
                assert held.value.identity.to_bytes(4) in view.subject_policies
            assert held.value.node_index.to_bytes(4) in view.nodes
        for policy in view.subject_policies.values():
            for direction in (policy.value.ingress, policy.value.egress):
                for rule in direction.rules:
                    assert set(rule.peer_sets) <= view.peer_sets.keys()

    def check_effective(self) -> None:
        """What the server vouches for is what the kernel shows."""
        if self.stream is None:
            return
        sender = self.stream.replica.fanout.sender
        effective = sender.effective(self.stream.session.reader)
        if effective:
            for revision in range(self.kernel_revision + 1, effective + 1):
                shown = self.store.values_at(self.kernel_revision, self.node_index)
                assert self.store.values_at(revision, self.node_index) == shown, "effective"


def values_before(last: BarrierReached | None) -> Values:
    return {} if last is None else values(last.view)


def snapshot_of(barrier: BarrierReached, found: Values) -> BarrierReached:
    """The barrier with a view of its own: the receiver goes on changing its own."""
    view = View()
    for held in barrier.view:
        view.apply(Upsert(held.value, held.generation))
    assert values(view) == found
    return BarrierReached(
        revision=barrier.revision,
        lineage=barrier.lineage,
        view=view,
        changed=barrier.changed,
        complete=barrier.complete,
        head_revision=barrier.head_revision,
        head_unix_ns=barrier.head_unix_ns,
    )
