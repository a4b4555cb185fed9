"""The agent's side of the stream: makes a view out of messages and says what has been applied.

Changes wait until the barrier that completes them, so that the view always shows one revision. A
stream that ends takes nothing with it: the view stays, the next Hello names it, and what came after
the last barrier is sent again.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from deltaplane.delta.acks import Acks, Refusal
from deltaplane.delta.changes import Change, ObjectKey, Upsert
from deltaplane.delta.holding import AUDIT_SHARE, Holding
from deltaplane.delta.incoming import IncomingSnapshot
from deltaplane.delta.messages import (
    Barrier,
    BucketReplace,
    ClientMessage,
    DigestRequest,
    Digests,
    Drain,
    Drift,
    Frame,
    Hello,
    Mode,
    Reset,
    ServerMessage,
    SnapshotBegin,
    SnapshotChunk,
    SnapshotEnd,
    StreamBroken,
    Welcome,
)
from deltaplane.delta.span import EMPTY, held_span
from deltaplane.delta.view import View

DEFAULT_CREDIT_BYTES = 4 << 20
"""What may be on its way to us: 4 MiB for each 100 ms between two Acks are 40 MiB/s."""

_COUNTED = (Frame, SnapshotBegin, SnapshotChunk, SnapshotEnd, BucketReplace)
"""Messages that use up credit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """What no older view may be applied than, at the start of an agent.

    Attributes:
        lineage: lineage of the kernel state that the agent found; empty: it found none.
        revision: revision that this state stems from; 0: from nothing.
        registered: revision that the registration of the node answered; 0: none. It counts in the
            lineage of the first server that says Welcome: agents learn a lineage from no one else.
    """

    lineage: bytes = b""
    revision: int = 0
    registered: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BarrierReached:
    """The view is complete at a revision.

    Attributes:
        revision: the store revision it shows.
        lineage: lineage of that revision.
        view: everything; valid until the receiver takes the next message.
        changed: objects whose value or existence changed since the last event, those that changed
            back in between included; empty for a mere bookmark.
        complete: a verified snapshot is the base of the view: what it does not hold may be removed.
        head_revision: newest revision the server had scanned.
        head_unix_ns: when that was, by the server's clock.
        watermark: revision that every live node has passed; 0 while the server does not know.
        strict_watermark: revision that every registered node has passed, fenced ones included.
    """

    revision: int
    lineage: bytes
    view: View
    changed: frozenset[ObjectKey]
    complete: bool
    head_revision: int
    head_unix_ns: int
    watermark: int = 0
    strict_watermark: int = 0


class Receiver:
    """State across streams: the view, its lineage and revision. A stream starts with `hello`.

    Attributes:
        lineage: of the view; empty before the first.
        revision: of the view; 0 before the first.
        doubts: how often the view was found not to be what it should be.
    """

    def __init__(
        self,
        *,
        node: str,
        node_uid: str,
        boot_id: str = "",
        floor: Floor | None = None,
        credit_bytes: int = DEFAULT_CREDIT_BYTES,
    ) -> None:
        self._holding = Holding()
        self._acks = Acks(credit_bytes)
        self.lineage = b""
        self.revision = 0
        self.doubts = 0
        self._node, self._node_uid, self._boot_id = node, node_uid, boot_id
        self._floor = floor or Floor()
        self._credit_bytes = credit_bytes
        self._registered_in = b""
        self._trusted = False
        # Whether a repair may make the view right again: not after one that did not.
        self._repairable = False
        # It is of no single revision, or of one that was never applied, or is doubted: only a
        # repair or a snapshot helps.
        self._mixed = False
        self._node_index = 0
        self._barrier: Barrier | None = None  # the last one that nobody has taken yet
        self._reset_stream()

    @property
    def view(self) -> View:
        """What is held."""
        return self._holding.view

    def _reset_stream(self) -> None:
        """Forgets what belonged to the stream before."""
        self.welcome: Welcome | None = None
        self.drain: Drain | None = None
        self._position = self.revision  # everything through here has been received
        self._pending: list[Change] = []
        self._snapshot: IncomingSnapshot | None = None
        self._continues = False  # a frame has come in part
        self._repairs = False  # until the last bucket of a repair, barriers complete nothing
        self._mended = False  # the last bucket has come; a barrier is to follow
        self._digests: Digests | None = None  # to be sent
        # Snapshots and repairs: that are there in full, that the last barrier contained, and that
        # the one contained that was taken last.
        self._renewals = self._shown_renewals = self._taken_renewals = 0
        self._acks.restart()

    # --- a new stream ----------------------------------------------------------------------------

    def hello(self) -> Hello:
        """Starts a stream; what was received after the last barrier of the old one is dropped.

        The last barrier must have been taken and applied: the Hello says that it is.
        """
        assert self._barrier is None, "the last barrier has not been applied"
        if self._mixed:
            self._trusted = False
        self._reset_stream()
        held, repairable = self._trusted, self._trusted or self._repairable
        # Without a view the next best is the lineage in which the registration counts.
        lineage = self.lineage or self._registered_in or self._floor.lineage
        return Hello(
            node=self._node,
            node_uid=self._node_uid,
            boot_id=self._boot_id,
            lineage=lineage,
            applied_revision=self.revision if held else 0,
            root_digest=self.view.digest.root if repairable else b"",
            credit_bytes=self._credit_bytes,
            floor_revision=self._floor_in(lineage),
            held=held_span(self.view, self._node_index) if held else EMPTY,
        )

    def _floor_in(self, lineage: bytes) -> int:
        """The smallest revision that we may be shown in a lineage; empty: in the next one."""
        floor = self._floor
        seen = self.revision if lineage == self.lineage else 0
        kernel = floor.revision if lineage == floor.lineage else 0
        registered = floor.registered if self._registered_in in (b"", lineage) else 0
        return max(seen, kernel, registered)

    # --- messages in -----------------------------------------------------------------------------

    def receive(self, message: ServerMessage, size: int) -> None:
        """Takes the next message of the stream. size: its bytes on the wire.

        Raises:
            Drift: the view is not what the server has: the next Hello asks for a snapshot.
            StreamBroken: the message is not allowed here.
        """
        if self.welcome is None and not isinstance(message, Welcome | Reset):
            raise StreamBroken(f"{type(message).__name__} before Welcome")
        if isinstance(message, _COUNTED):
            self._acks.consumed += size
        match message:
            case Welcome():
                self._welcomed(message)
            case Frame():
                self._frame(message)
            case Barrier():
                self._barrier_received(message)
            case SnapshotBegin() | SnapshotChunk() | SnapshotEnd():
                self._snapshot_part(message)
            case BucketReplace():
                self._bucket(message)
            case DigestRequest():
                # Buckets follow, also when a snapshot has settled what we asked them for.
                self._repairs, self._mended = True, False
                self._digests = self._holding.summed_up(message.revision)
            case Drain() | Reset():
                self._goodbye(message)

    def _goodbye(self, message: Drain | Reset) -> None:
        if isinstance(message, Reset):
            raise StreamBroken(f"reset by the server: {message.reason}")
        self.drain = message

    def _snapshot_part(self, message: SnapshotBegin | SnapshotChunk | SnapshotEnd) -> None:
        match message:
            case SnapshotBegin():
                self._snapshot_begins(message)
            case SnapshotChunk():
                self._open_snapshot(message.id).take(message)
            case SnapshotEnd():
                self._snapshot_ends(message)

    def _welcomed(self, message: Welcome) -> None:
        if self.welcome is not None:
            raise StreamBroken("a second Welcome")
        held = self._trusted or self._repairable
        if message.mode is not Mode.SNAPSHOT and (not held or message.lineage != self.lineage):
            raise self._drift("resumed, though we hold no view of this lineage")
        if message.mode is Mode.REPAIR:
            self._repairs = True
        elif message.mode is not Mode.SNAPSHOT:
            if not self._trusted:
                raise self._drift("resumed, though our view is not to be trusted")
            self._acks.applied = self.revision
        self._node_index = message.node_index
        self._registered_in = self._registered_in or message.lineage
        self.welcome = message

    def _frame(self, message: Frame) -> None:
        follows = message.previous_revision == self._position == message.revision
        if message.revision <= self._position and not follows:
            return  # repeated
        if self._snapshot is not None and not self._snapshot.verified:
            raise StreamBroken("a frame inside a snapshot")
        if not (self._trusted or self._mended) and self._snapshot is None:
            raise StreamBroken("a frame before the snapshot")
        if message.previous_revision > self._position:
            raise self._drift(f"frames between {self._position} and {message.previous_revision}")
        self._pending.extend(message.changes)
        self._continues = message.continues
        if not message.continues:
            self._position = message.revision

    def _snapshot_begins(self, message: SnapshotBegin) -> None:
        assert self.welcome is not None
        floor = self._floor_in(self.welcome.lineage)
        if message.revision < floor:
            raise StreamBroken(f"snapshot of {message.revision}, below {floor}, which we have seen")
        self._pending.clear()
        self._continues = self._repairs = self._mended = False
        self._snapshot = IncomingSnapshot(message)

    def _snapshot_ends(self, message: SnapshotEnd) -> None:
        snapshot = self._open_snapshot(message.id)
        if not snapshot.verify(message):
            raise self._drift("a snapshot whose count or digest does not match")
        self._position = snapshot.revision
        self._renewals += 1

    def _open_snapshot(self, snapshot_id: int) -> IncomingSnapshot:
        snapshot = self._snapshot
        if snapshot is None or snapshot.id != snapshot_id or snapshot.verified:
            raise StreamBroken(f"part of snapshot {snapshot_id}, which has not begun")
        return snapshot

    def _barrier_received(self, message: Barrier) -> None:
        unfinished = self._continues or (self._snapshot is not None and not self._snapshot.verified)
        absent = not (self._trusted or self._mended) and self._snapshot is None
        if unfinished or absent or message.revision < self._position:
            return  # a sign of life in the middle of a snapshot, merge or repair
        assert self.welcome is not None
        if self._snapshot is not None:
            self._holding.replace(self._snapshot.view)
            self.lineage = self.welcome.lineage
            self._snapshot, self._mixed = None, False
            self._trusted = self._repairable = True
        self._take_pending()
        self.revision = self._position = message.revision
        # One that nobody has taken yet would be taken with a later view.
        self._barrier = None
        if self._repairs:
            # The kernel is not told of this revision, so no Hello may claim it.
            self._mixed = True
            return
        if message.root_digest not in (b"", self.view.digest.root):
            self._doubt(f"another digest at revision {message.revision}")
            return
        self._mended = self._mixed = False
        self._trusted = True
        if message.root_digest:
            self._repairable = True
        if not message.bookmark:
            self._acks.wanted = message.revision
        self._barrier, self._shown_renewals = message, self._renewals

    def _take_pending(self) -> None:
        self._holding.apply(self._pending, self._node_index)
        self._pending.clear()

    # --- repairs ---------------------------------------------------------------------------------

    def audit(self, share: int = AUDIT_SHARE) -> None:
        """Hashes one part in `share` of the buckets anew; all of them in `share` calls.

        Raises:
            Drift: there is a difference, and a repair has not helped.
        """
        if not self._trusted or self._repairs:
            return
        if reason := self._holding.audit(share):
            self._doubt(reason)

    def _doubt(self, reason: str) -> None:
        """Asks for a repair: until its end nothing counts as applied."""
        self.doubts += 1
        self._barrier = None
        if not self._repairable:
            raise self._drift(reason)
        self._repairable, self._mended = False, False
        self._repairs = self._mixed = True
        self._digests = self._holding.summed_up(self.revision)

    def _bucket(self, message: BucketReplace) -> None:
        if not self._repairs:
            raise StreamBroken(f"bucket {message.bucket} outside of a repair")
        if not all(isinstance(change, Upsert) for change in message.changes):
            raise StreamBroken("a removal inside a bucket")
        self._mixed, self._barrier = True, None
        self._take_pending()
        content = (change for change in message.changes if isinstance(change, Upsert))
        try:
            self._holding.replace_bucket(message.bucket, content)
        except ValueError as error:
            raise StreamBroken(str(error)) from error
        if message.last:
            # It is of one revision again; to count as applied it needs a barrier, like any other.
            self._repairs, self._mended = False, True
            self._renewals += 1
            self._position = max(self._position, message.revision)

    def _drift(self, reason: str) -> Drift:
        self._trusted, self._repairable, self._barrier = False, False, None
        return Drift(reason)

    # --- barriers --------------------------------------------------------------------------------

    def take_barrier(self) -> BarrierReached | None:
        """The last barrier, with all that changed since the one taken before; None: nothing new."""
        if (barrier := self._barrier) is None:
            return None
        self._barrier, self._taken_renewals = None, self._shown_renewals
        return BarrierReached(
            revision=barrier.revision,
            lineage=self.lineage,
            view=self.view,
            changed=self._holding.take_changed(),
            complete=self._trusted,
            head_revision=barrier.head_revision,
            head_unix_ns=barrier.head_unix_ns,
            watermark=barrier.watermark_revision,
            strict_watermark=barrier.strict_watermark_revision,
        )

    def applied(
        self, revision: int, *, refused: Iterable[Refusal] = (), took_seconds: float = 0.0
    ) -> None:
        """Notes that the kernel agrees with the view at the revision of a barrier taken before.

        Args:
            revision: of that barrier.
            refused: all objects that are held closed now, also those of earlier barriers.
            took_seconds: from the barrier's arrival to here.
        """
        self._acks.note(revision, self._taken_renewals, refused, took_seconds)

    # --- messages out ----------------------------------------------------------------------------

    def ack_due_at(self) -> float | None:
        """When `poll` will have something to say, seconds; None: not before something happens."""
        if self.welcome is None:
            return None
        if self._digests is not None:
            return float("-inf")
        return self._acks.due_at(self.welcome.ack_interval_ms / 1000)

    def poll(self, now: float) -> tuple[ClientMessage, ...]:
        """Nacks and an Ack, if there is something new and the last one is an ack interval ago."""
        due = self.ack_due_at()
        if due is None or now < due:
            return ()
        if self._digests is not None:
            digests, self._digests = self._digests, None
            return (digests,)
        return self._acks.take(now, self.revision)
