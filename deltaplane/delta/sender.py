"""The server's side of the stream: one view, one log, and for each agent a cursor and its credit.

There is no queue per agent. An agent that is slow keeps its cursor where it is and later reads the
range merged; what it makes us hold is shared with everybody else, or at most one merge or snapshot
of the view.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from deltaplane.delta.changes import Change, ObjectKey, Recorded, incarnation_of, merge
from deltaplane.delta.encoder import Encoder
from deltaplane.delta.log import Limits, Log, Segment
from deltaplane.delta.messages import (
    PROTOCOL,
    Ack,
    Barrier,
    Control,
    Hello,
    Mode,
    Nack,
    StreamBroken,
    Welcome,
)
from deltaplane.delta.snapshot import Snapshots
from deltaplane.delta.view import Outcome, View

BOOKMARK_SECONDS = 1.0
"""An agent hears from us at least this often."""

WATERMARK_SECONDS = 0.05
"""A new watermark comes to an agent at most this often, and …"""

WATERMARK_SECONDS_PER_READER = 0.0002
"""… for all agents together not more than 5,000 times a second."""

DIGEST_EVERY = 5
"""Every so many barriers carry the root digest."""

POLL_MESSAGES = 16
"""Messages that one poll returns at most: with chunks of 256 KiB, 4 MiB wait to be written."""


@dataclass(slots=True, kw_only=True)
class Reader:
    """One connected agent.

    Attributes:
        node: node name.
        node_index: node number.
        cursor: the cut through which everything has been put into the outbox.
        through: the revision, cursor or later, that the outbox leads to.
        credit: bytes that may still be sent; a message may take it below zero.
        applied: last acknowledged revision; 0 before the first.
        mode: how it was brought up to date.
        heard_at: when its last message came, seconds.
        worst_apply_us: from its last Ack, microseconds.
        refused: objects that it holds closed, and why.
        control: encoded messages that go first and need no credit.
        outbox: encoded frames or chunks, shared with other readers; all are needed before the next
            barrier.
        snapshots: how many were started.
        snapshot_revision: what the last one of them shows.
        snapshot_after: the last barrier before that snapshot: a later one proves it.
        renew: a snapshot is due instead of what comes next.
        watermarks: of the last barrier, as `Sender.watermarks`.
        barriers: how many were sent.
        barrier_revision: of the last one.
        barrier_at: when it was sent, seconds.
    """

    node: str
    node_index: int
    cursor: int
    through: int
    credit: int
    applied: int
    mode: Mode
    heard_at: float
    worst_apply_us: int = 0
    refused: dict[ObjectKey, str] = field(default_factory=dict)
    control: deque[bytes] = field(default_factory=deque)
    outbox: deque[bytes] = field(default_factory=deque)
    snapshots: int = 0
    snapshot_revision: int = 0
    snapshot_after: int = 0
    renew: bool = False
    watermarks: tuple[int, int] = (0, 0)
    barriers: int = 0
    barrier_revision: int = 0
    barrier_at: float = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """What a publisher hands over at once.

    Attributes:
        revision: the new cut.
        changes: in the order in which they happened.
        events: revisions at which the store was written to, ascending; None: not known (a new
            listing).
        oldest_change_unix_ns: when the first of them was seen.
    """

    revision: int
    changes: Sequence[Change]
    events: tuple[int, ...] | None
    oldest_change_unix_ns: int


@dataclass(frozen=True, slots=True)
class Published:
    """Changes on the stream and bytes of their frame; both 0 when a tick changed nothing."""

    changes: int
    size: int


class Sender:
    """One lineage's view, published to any number of readers.

    Attributes:
        watermarks: revisions that every live node, and every registered node, has passed.
    """

    def __init__(
        self,
        *,
        lineage: bytes,
        server_id: str,
        encoder: Encoder,
        revision: int,
        objects: Iterable[Change] = (),
        head_unix_ns: int = 0,
        limits: Limits | None = None,
    ) -> None:
        """Starts from the objects of a listing at a revision."""
        self.lineage = lineage
        self.view = View()
        for change in objects:
            self.view.apply(change)
        self.readers: dict[str, Reader] = {}
        self.watermarks = (0, 0)
        self._server_id = server_id
        self._encoder = encoder
        self._log = Log(encoder, revision, limits or Limits())
        self._snapshots = Snapshots(self.view, encoder)
        # What a frame names as its predecessor: ticks without changes have no frame.
        self._last_frame = revision
        self._head_unix_ns = head_unix_ns
        self._barriers: dict[tuple[int, bool], bytes] = {}

    @property
    def head(self) -> int:
        """Newest revision scanned."""
        return self._log.head

    @property
    def cut(self) -> int:
        """The last revision at which the view is known exactly: nothing was written since."""
        return self._log.cut

    # --- the writer ------------------------------------------------------------------------------

    def publish(self, tick: Tick, *, now: float, wall_ns: int) -> Published:
        """Folds a tick into the view and adds one frame to the log."""
        history = []
        for change in tick.changes:
            held = self.view.get(change.object_key)
            before = None if held is None else incarnation_of(held.value)
            if self.view.apply(change) is not Outcome.STALE:
                history.append(Recorded(change, before))
        merged = tuple(
            Recorded(r.change, r.before, self._encoder.change(r.change, tick.revision))
            for r in merge(history)
        )
        data = b""
        if merged:
            piece = self._encoder.piece(tick.revision, [r.fragment for r in merged])
            data = self._encoder.frame(
                self._last_frame, tick.revision, tick.oldest_change_unix_ns, [piece]
            )
            self._last_frame = tick.revision
        self._log.append(
            Segment(
                previous=self._log.cut,
                revision=tick.revision,
                events=tick.events,
                oldest_change_unix_ns=tick.oldest_change_unix_ns,
                closed_at=now,
                changes=merged,
                data=data,
            )
        )
        self._snapshots.touch(r.change for r in history)
        self._scanned(wall_ns)
        return Published(len(merged), len(data))

    def advance(self, revision: int, *, wall_ns: int) -> None:
        """Notes that nothing happened up to a revision."""
        self._log.head = max(self._log.head, revision)
        self._scanned(wall_ns)

    def set_watermarks(self, live: int, strict: int) -> bool:
        """Takes new watermarks, which every agent hears of soon; False: they are known."""
        if self.watermarks == (live, strict):
            return False
        self.watermarks = live, strict
        self._barriers.clear()
        return True

    def passed(self) -> tuple[int, int]:
        """The watermarks, moved on to where something was written next: that much they prove."""
        live, strict = (self._log.effective(w) if w else 0 for w in self.watermarks)
        return live, strict

    def _scanned(self, wall_ns: int) -> None:
        self._head_unix_ns = wall_ns
        self._barriers.clear()

    # --- the readers -----------------------------------------------------------------------------

    def is_behind(self, hello: Hello) -> bool:
        """Whether the agent has seen revisions that we have not: it must wait or go elsewhere."""
        seen = max(hello.applied_revision, hello.floor_revision)
        # Without a lineage, the floor is what the agent was told when it registered.
        return hello.lineage in (b"", self.lineage) and seen > self.head

    def connect(self, hello: Hello, *, node_index: int, now: float, fenced: bool = False) -> Reader:
        """Admits an agent, in place of an older stream of the same node.

        Args:
            hello: its first message.
            node_index: number of its node.
            now: seconds.
            fenced: the node is: it gets a snapshot, whatever it holds.

        Raises:
            StreamBroken: no common protocol version, or `is_behind`.
        """
        if not hello.protocol_min <= PROTOCOL <= hello.protocol_max:
            raise StreamBroken(
                f"this server speaks protocol {PROTOCOL}, the agent "
                f"{hello.protocol_min}..{hello.protocol_max}"
            )
        if self.is_behind(hello):
            raise StreamBroken(f"the agent has seen more than revision {self.head}")
        cut = None if fenced else self._resumable_from(hello)
        reader = Reader(
            node=hello.node,
            node_index=node_index,
            cursor=self._log.cut if cut is None else cut,
            through=self.head if cut is None else max(cut, hello.applied_revision),
            credit=hello.credit_bytes,
            applied=0 if cut is None else hello.applied_revision,
            mode=Mode.SNAPSHOT if cut is None else Mode.RESUME,
            heard_at=now,
        )
        self.readers[hello.node] = reader
        self._say(
            reader,
            Welcome(
                lineage=self.lineage,
                server_id=self._server_id,
                mode=reader.mode,
                head_revision=self.head,
                bookmark_period_ms=int(BOOKMARK_SECONDS * 1000),
                ack_interval_ms=max(100, len(self.readers) // 2),
                node_index=node_index,
            ),
        )
        if cut is None:
            self._start_snapshot(reader)
        else:
            # The next frame starts at the cut: tell the agent that it is there already.
            reader.control.append(self._next_barrier(reader, reader.through, now))
        return reader

    def _resumable_from(self, hello: Hello) -> int | None:
        if hello.lineage != self.lineage or not hello.applied_revision:
            return None
        cut = self._log.cut_for(hello.applied_revision)
        if cut == self._log.cut and hello.root_digest not in (b"", self.view.digest.root):
            return None  # it does not hold what it thinks it holds
        return cut

    def disconnect(self, reader: Reader) -> None:
        """Forgets an agent, unless a newer stream has taken its place."""
        if self.readers.get(reader.node) is reader:
            del self.readers[reader.node]

    def renew(self, reader: Reader) -> None:
        """Gives a connected agent a snapshot, once what is on its way has been sent."""
        reader.renew = True

    def is_renewed(self, reader: Reader, since: int) -> bool:
        """Whether the agent has applied a snapshot of this revision or a later one."""
        return (
            reader.snapshot_revision >= since
            and reader.applied >= reader.snapshot_revision
            and reader.applied > reader.snapshot_after
        )

    def say(self, reader: Reader, message: Control) -> None:
        """Puts a message in front of everything else."""
        self._say(reader, message)

    def _say(self, reader: Reader, message: Control) -> None:
        reader.control.append(self._encoder.control(message))

    def receive(self, reader: Reader, message: Hello | Ack | Nack, *, now: float) -> None:
        """Takes a message of an admitted agent.

        Raises:
            StreamBroken: a second Hello, or an acknowledgement of what was never sent.
        """
        reader.heard_at = now
        match message:
            case Hello():
                raise StreamBroken("a second Hello")
            case Ack():
                if message.applied_revision > reader.barrier_revision:
                    raise StreamBroken(
                        f"revision {message.applied_revision} acknowledged, "
                        f"{reader.barrier_revision} sent"
                    )
                reader.applied = max(reader.applied, message.applied_revision)
                reader.credit += message.added_credit_bytes
                reader.worst_apply_us = message.worst_apply_us
            case Nack(reason=""):
                reader.refused.pop((message.kind, message.key), None)
            case Nack():
                reader.refused[message.kind, message.key] = message.reason

    def effective(self, reader: Reader) -> int:
        """The newest revision that the agent provably agrees with; 0 before its first Ack."""
        return self._log.effective(reader.applied) if reader.applied else 0

    def current_at(self, reader: Reader, now: float) -> float | None:
        """When the agent was last up to date, seconds; None: not since it is connected."""
        if not reader.applied:
            return None
        changed_at = self._log.changed_at(reader.applied)
        return now if changed_at is None else changed_at

    def unacknowledged_since_ns(self, reader: Reader) -> int | None:
        """When its oldest unacknowledged change was seen, Unix ns; None: there is none."""
        return self._log.oldest_change_between(reader.applied, self._log.cut)

    def oldest_change_between(self, after: int, through: int) -> int | None:
        """When the first change of (after, through] was seen, Unix ns; None: no change."""
        return self._log.oldest_change_between(after, through)

    # --- what to write ---------------------------------------------------------------------------

    def poll(self, reader: Reader, now: float) -> list[bytes]:
        """The next messages for an agent, encoded and counted as sent.

        Empty when there is nothing to say, or no credit; call again until then.
        """
        out: list[bytes] = []
        while reader.control:
            out.append(reader.control.popleft())
        outbox = reader.outbox
        while reader.credit > 0 and len(out) < POLL_MESSAGES:
            if not outbox and not self._refill(reader):
                break
            while outbox and reader.credit > 0 and len(out) < POLL_MESSAGES:
                data = outbox.popleft()
                reader.credit -= len(data)
                out.append(data)
        if (barrier := self._barrier(reader, now)) is not None:
            out.append(barrier)
        return out

    def bookmark_at(self, reader: Reader) -> float:
        """When `poll` will have something to say even if nothing happens, seconds."""
        if reader.watermarks == self.watermarks:
            return reader.barrier_at + BOOKMARK_SECONDS
        pause = max(WATERMARK_SECONDS, WATERMARK_SECONDS_PER_READER * len(self.readers))
        return reader.barrier_at + min(pause, BOOKMARK_SECONDS)

    def _refill(self, reader: Reader) -> bool:
        """Puts what lies between cursor and last cut into the outbox; False: nothing does."""
        frames = None if reader.renew else self._log.read(reader.cursor)
        if frames is None:
            self._start_snapshot(reader)
            return True
        if reader.cursor != self._log.cut:
            reader.cursor, reader.through = self._log.cut, self.head
        reader.outbox.extend(frames)
        return bool(frames)

    def _start_snapshot(self, reader: Reader) -> None:
        reader.snapshots += 1
        reader.snapshot_revision, reader.snapshot_after = self.head, reader.barrier_revision
        reader.renew = False
        reader.cursor, reader.through = self._log.cut, self.head
        reader.outbox.extend(self._snapshots.messages(reader.snapshots, self.head))

    def _barrier(self, reader: Reader, now: float) -> bytes | None:
        """A barrier when the outbox has been sent and leads to something new, or as a sign of life.

        In the middle of a snapshot or merge the sign of life repeats the last revision.
        """
        complete = not reader.outbox
        due = now >= self.bookmark_at(reader)
        if not due and not (complete and reader.through > reader.barrier_revision):
            return None
        if not complete:
            return self._next_barrier(reader, reader.barrier_revision, now)
        current = reader.cursor == self._log.cut
        return self._next_barrier(reader, self.head if current else reader.through, now)

    def _next_barrier(self, reader: Reader, revision: int, now: float) -> bytes:
        reader.barrier_revision, reader.barrier_at = revision, now
        reader.barriers += 1
        reader.watermarks = self.watermarks
        # The view, and with it the digest, is known at the last cut; nothing has changed up to
        # head.
        with_digest = revision >= self._log.cut and reader.barriers % DIGEST_EVERY == 0
        return self._encoded_barrier(revision, with_digest=with_digest)

    def _encoded_barrier(self, revision: int, *, with_digest: bool) -> bytes:
        key = (revision, with_digest)
        if key not in self._barriers:
            live, strict = self.passed()
            self._barriers[key] = self._encoder.control(
                Barrier(
                    revision=revision,
                    head_revision=self.head,
                    head_unix_ns=self._head_unix_ns,
                    watermark_revision=live,
                    strict_watermark_revision=strict,
                    root_digest=self.view.digest.root if with_digest else b"",
                )
            )
        return self._barriers[key]
