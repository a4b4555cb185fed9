"""Fan-out: facts in, ticks cut, streams admitted, acknowledgements counted. No I/O and no clock.

Everybody who waits for something registers a callback: a stream's writer for new messages, a
receipt for new acknowledgements. A callback only sets a flag; the waiting is the shell's.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from deltaplane.delta.changes import ObjectKey
from deltaplane.delta.messages import Ack, ClientMessage, Drain, Hello, Mode, Nack
from deltaplane.delta.reader import Reader
from deltaplane.delta.sender import Published, Sender
from deltaplane.delta.tick import Tick
from deltaplane.errors import Conflict, Internal, NotFound, Unavailable
from deltaplane.model.objects import BRAKED
from services.slicer.admission import Admission
from services.slicer.facts import Facts, Record
from services.slicer.pacing import STRAGGLERS, Pacer
from services.slicer.quarantine import Quarantine
from services.slicer.receipts import POLICY_KINDS, Effective, describe
from services.slicer.timings import Timings
from services.slicer.watermark import Coverage, Fence, Group, Watermark, may_unfence

Wake = Callable[[], None]

DRAIN_SPREAD_SECONDS = 1.0
"""Agents of a stopping replica come back over this time, not all at once."""


@dataclass(slots=True, eq=False)
class Session:
    """One stream.

    Attributes:
        reader: what the sender knows of it.
        wake: for its writer.
        passed: revision that the agent has said it agrees with; None: its view was not of this
            lineage, and it has not said anything yet.
        superseded: a newer stream of the same node has taken its place.
        round: number of the round in which its writer was woken and has not come to rest since; 0:
            it rests.
        delivered: snapshots and repairs that admission knows of.
    """

    reader: Reader
    wake: Wake
    passed: int | None = None
    superseded: bool = False
    round: int = 0
    delivered: int = 0


def _described(refused: Mapping[ObjectKey, str]) -> tuple[str, ...]:
    return tuple(describe(kind, key, reason) for (kind, key), reason in sorted(refused.items()))


def _nothing() -> None:
    """Nobody waits."""


@dataclass(slots=True)
class _Pending:
    """What has been taken from the store since the last cut."""

    events: list[int] = field(default_factory=list)
    revision: int = 0
    oldest_unix_ns: int = 0
    history_lost: bool = False


class Fanout:
    """One replica's state."""

    def __init__(self, facts: Facts, sender: Sender) -> None:
        """Takes facts that are flushed, and the sender that was built from that flush."""
        self.facts = facts
        self.sender = sender
        self.pacer = Pacer()
        self.admission = Admission()
        self.quarantine = Quarantine()
        self.timings = Timings()
        self.sessions: dict[str, Session] = {}
        self.watchers: set[Wake] = set()
        self.draining = False
        self._pending = _Pending(revision=sender.head)
        self._round = self._writing = self._stragglers = 0
        self._round_over: Wake = _nothing

    @property
    def scanned(self) -> int:
        """Newest revision that the facts show; the sender may still lag behind."""
        return self._pending.revision

    # --- the store's side ------------------------------------------------------------------------

    def take(self, records: Collection[Record], revision: int, *, wall_ns: int) -> None:
        """Takes what was written through a revision; without records, that nothing was.

        Raises:
            Internal: the watch has vouched for that revision before it delivered these records.
        """
        if revision <= self._pending.revision:
            if records:
                raise Internal(
                    f"the store's watch delivers writes of revision {revision} after it said that "
                    f"everything through {self._pending.revision} was delivered; start again"
                )
            return
        for record in records:
            if not self._has_news:
                self._pending.oldest_unix_ns = wall_ns
            if not self._pending.events or self._pending.events[-1] != record.generation:
                self._pending.events.append(record.generation)
            self.facts.apply(record)
        self._pending.revision = revision
        if not self._has_news:
            self.sender.advance(revision, wall_ns=wall_ns)
            self._notify()

    def relist(self, records: Iterable[Record], revision: int, *, wall_ns: int) -> None:
        """Takes a whole listing: the history before it is gone."""
        if revision <= self._pending.revision:
            return
        if not self._has_news:
            self._pending.oldest_unix_ns = wall_ns
        self._pending.history_lost = True
        self.facts.relist(records, revision)
        self._pending.revision = revision

    @property
    def due(self) -> list[Session]:
        """Sessions whose agent should be sent something new."""
        return [session for session in self.sessions.values() if session.reader.is_due]

    @property
    def _has_news(self) -> bool:
        return bool(self._pending.events) or self._pending.history_lost

    def cut_at(self) -> float | None:
        """When the next tick should be cut, seconds; it may be past. None: nothing to cut."""
        return self.pacer.cut_at(urgent=self.facts.urgent) if self._has_news else None

    def cut(self, *, now: float, wall_ns: int) -> Published:
        """Publishes what is pending. The caller wakes the sessions."""
        pending, self._pending = self._pending, _Pending(revision=self._pending.revision)
        structural = self.facts.structural  # flushing forgets it
        changes = self.facts.flush(pending.revision)
        published = self.sender.publish(
            Tick(
                revision=pending.revision,
                changes=changes,
                events=None if pending.history_lost else tuple(pending.events),
                oldest_change_unix_ns=pending.oldest_unix_ns,
                structural=structural,
            ),
            now=now,
            wall_ns=wall_ns,
        )
        self.timings.cut(changes, self._told)
        self.quarantine.add(self.facts.released, wall_ns)
        self.quarantine.expect(self.facts.awaited)
        self.facts.released.clear()
        self._renew_fenced()
        self._notify()
        return published

    def _told(self, identity: int) -> Iterable[int]:
        """Nodes that enforce the policies of an identity; unscoped, it is not known who does."""
        if self.sender.is_scoped:
            return self.sender.index.nodes_with(identity)
        return (node.object.index for node in self.facts.nodes.values())

    def _renew_fenced(self) -> None:
        for fence in self.facts.fences.values():
            session = self.sessions.get(fence.node)
            if session is None or session.reader.node_index != fence.node_index:
                continue
            if session.reader.snapshot_revision < fence.created:
                self.sender.renew(session.reader)
                session.wake()

    # --- rounds ----------------------------------------------------------------------------------

    def begin_round(self, over: Wake) -> list[Session]:
        """Those whose writers should be woken; `over` is called when most have come to rest.

        Whoever is still writing from an earlier round is slow and does not count.
        """
        due = self.due
        fresh = [session for session in due if not session.round]
        self._round += 1
        for session in fresh:
            session.round = self._round
        self._writing, self._stragglers = len(fresh), int(len(fresh) * STRAGGLERS)
        self._round_over = over
        if not fresh:
            over()
        return due

    def rested(self, session: Session) -> None:
        """A writer has nothing to write, or is gone."""
        number, session.round = session.round, 0
        if number == self._round and number:
            self._writing -= 1
            if self._writing <= self._stragglers:
                self._round_over()

    def _notify(self) -> None:
        for wake in tuple(self.watchers):
            wake()

    # --- the agents' side ------------------------------------------------------------------------

    def obstacle(self, hello: Hello) -> NotFound | Conflict | Unavailable | None:
        """Why an agent cannot be admitted now; time may remove it. None: it can."""
        if self.draining:
            return Unavailable("this replica is stopping; connect to another one")
        node = self.facts.nodes.get(hello.node)
        if node is None:
            return NotFound(f"node {hello.node!r} is not registered; the agent registers first")
        if node.uid != hello.node_uid:
            return Conflict(
                f"node {hello.node!r} is registered with UID {node.uid!r}, not {hello.node_uid!r}"
            )
        if self.sender.is_behind(hello):
            seen = max(hello.applied_revision, hello.floor_revision)
            return Unavailable(
                f"the agent has seen revision {seen}, this replica only {self.sender.head}"
            )
        return None

    def postponed(self, hello: Hello, *, now: float, chance: float) -> float | None:
        """Seconds after which an agent may come again; None: it is admitted; `obstacle` said None.

        It is decided before any work is done for it, so a repair that only the agent's digest shows
        to be needed is not postponed; it counts.

        Args:
            hello: its first message.
            now: seconds.
            chance: random, 0 to 1.
        """
        fenced = self.facts.nodes[hello.node].object.index in self.facts.fences
        known = hello.lineage == self.sender.lineage and hello.applied_revision >= self.sender.start
        if known and hello.applied_revision and not fenced:
            return None
        return self.admission.postponed(now, chance)

    def delivering(self, session: Session, *, written: int, now: float) -> None:
        """Notes a snapshot or repair that has begun; written: its messages that were polled."""
        reader = session.reader
        begun = reader.snapshots + reader.repairs
        if begun == session.delivered:
            return
        session.delivered = begun
        own = sum(not isinstance(message, bytes) for message in reader.outbox)
        # Without scopes all are sent the same bytes: only what is being written is its own.
        self.admission.take(session, own + written if self.sender.is_scoped else own, now)

    def admit(self, hello: Hello, wake: Wake, *, now: float) -> Session:
        """Starts a session, in place of an older one of the same node; `obstacle` has said None.

        Raises:
            StreamBroken: no common protocol version.
        """
        index = self.facts.nodes[hello.node].object.index
        fenced = index in self.facts.fences
        reader = self.sender.connect(hello, node_index=index, now=now, fenced=fenced)
        if (older := self.sessions.get(hello.node)) is not None:
            older.superseded = True
            older.wake()
        known = hello.lineage == self.sender.lineage and hello.applied_revision
        session = self.sessions[hello.node] = Session(reader, wake, known or None)
        self.delivering(session, written=0, now=now)
        if reader.mode is Mode.REPAIR:
            self.admission.take(session, 1, now)  # how much it will be, its digests say
        self._notify()
        return session

    def receive(self, session: Session, message: ClientMessage, *, now: float) -> int | None:
        """Takes an agent's message.

        Returns:
            When the oldest change that it acknowledges was seen, Unix ns; None: there is none.

        Raises:
            StreamBroken: the message is not allowed.
        """
        before = session.reader.applied
        self.sender.receive(session.reader, message, now=now)
        session.wake()  # it may have brought credit, or asked for something
        if not isinstance(message, Ack):
            if isinstance(message, Nack) and message.reason.startswith(BRAKED):
                # It has taken its snapshot; when it acknowledges it, people decide.
                self.admission.forget(session)
            return None
        self._time(session, now)
        if self.sender.is_renewed(session.reader, session.reader.snapshot_revision):
            self.admission.give_back(session, now)
        self._notify()
        if not before:
            return None  # a snapshot says nothing about how long a change took
        return self.sender.delays.acknowledged_since_ns(session.reader, before)

    def _time(self, session: Session, now: float) -> None:
        """Notes how long the policies took that an Ack says are in force."""
        reader, before = session.reader, session.passed
        session.passed = after = max(before or 0, self.sender.effective(reader))
        refuses = any(kind in POLICY_KINDS for kind, _ in reader.refused)
        # A new view, or one of another life: how long it was out of date is not known.
        if before is not None and not refuses:
            self.timings.passed(reader.node_index, before, after, now)

    def leave(self, session: Session) -> None:
        """Ends a session."""
        self.sender.disconnect(session.reader)
        self.admission.forget(session)
        self.rested(session)
        if self.sessions.get(session.reader.node) is session:
            del self.sessions[session.reader.node]
        self._notify()

    def drain(self, *, deadline_seconds: float) -> None:
        """Tells every agent when to come back, and admits nobody any more."""
        self.draining = True
        for number, session in enumerate(self.sessions.values()):
            share = number / len(self.sessions)
            message = Drain(
                deadline_ms=int(deadline_seconds * 1000),
                retry_after_ms=int(share * DRAIN_SPREAD_SECONDS * 1000),
            )
            self.sender.say(session.reader, message)
            session.wake()

    def effective(self, wall_ns: int) -> tuple[Effective, ...]:
        """What this replica vouches for at a time, one entry for each connected agent."""
        return tuple(
            Effective(
                node_index=session.reader.node_index,
                revision=self.sender.effective(session.reader),
                refused=_described(refused) if (refused := session.reader.refused) else (),
                lagging_seconds=self._lag(session, wall_ns),
            )
            for session in self.sessions.values()
        )

    def lags(self, wall_ns: int) -> list[float]:
        """Seconds since the oldest unacknowledged change was seen, for each agent; 0: none."""
        return [self._lag(session, wall_ns) for session in self.sessions.values()]

    def _lag(self, session: Session, wall_ns: int) -> float:
        since_ns = self.sender.delays.unacknowledged_since_ns(session.reader)
        return 0.0 if since_ns is None else max(0.0, (wall_ns - since_ns) / 1e9)

    # --- the watermark's side --------------------------------------------------------------------

    def set_watermark(self, watermark: Watermark) -> None:
        """Takes a new watermark: what it frees is forgotten, and who waits for it hears of it."""
        waiting = self.quarantine.nodes
        changed = self.sender.set_watermarks(watermark.live, watermark.strict, waiting)
        self.quarantine.free(self.sender.passed()[0])
        if changed:
            for session in self.sessions.values():
                if waiting is None or session.reader.node_index in waiting:
                    session.wake()
            self._notify()

    def coverage(self, target: int) -> Coverage:
        """What this replica vouches for, not above target: beyond nobody waits."""
        passed: tuple[dict[int, int], dict[int, int]] = ({}, {})
        for session in self.sessions.values():
            index = session.reader.node_index
            if effective := self.sender.effective(session.reader):
                passed[index in self.facts.fences][index] = effective
        groups = (
            Group(revision=min(target, *group.values()), nodes=frozenset(group))
            for group in passed
            if group
        )
        return Coverage(lineage=self.sender.lineage, groups=tuple(groups))

    def current(self, now: float) -> dict[int, float]:
        """When each connected agent was last up to date, seconds; by node number."""
        delays = self.sender.delays
        found = ((s.reader, delays.current_at(s.reader, now)) for s in self.sessions.values())
        return {reader.node_index: at for reader, at in found if at is not None}

    def outgrown(self, watermark: Watermark) -> list[Fence]:
        """Fences of connected agents that may go as long as the watermark is this one."""
        return [
            fence
            for fence in self.facts.fences.values()
            if (session := self.sessions.get(fence.node)) is not None
            and session.reader.node_index == fence.node_index
            and may_unfence(
                effective=self.sender.effective(session.reader),
                renewed=self.sender.is_renewed(session.reader, fence.created),
                watermark=watermark.live,
            )
        ]
