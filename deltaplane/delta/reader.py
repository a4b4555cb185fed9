"""What a server knows of one connected agent: a cursor, its credit, its span; no queue."""

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from deltaplane.delta.changes import ObjectKey
from deltaplane.delta.messages import Mode
from deltaplane.delta.span import EMPTY, Scope

Message = bytes | Callable[[], bytes]
"""An encoded message that is shared, or how to put one together when its turn comes."""


class Mending(enum.Enum):
    """How far a repair is.

    NOTHING: there is none. WANTED: the next barrier at the last cut asks for digests. ASKED: they
    are on their way; `Reader.sums` is what they should be, None where any view is possible.
    """

    NOTHING = enum.auto()
    WANTED = enum.auto()
    ASKED = enum.auto()


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
        acks_left: how many Acks it may send at once; see `Sender.receive`.
        scope: span of what it holds once it has the outbox.
        span_version: how often its span has changed on this stream.
        is_placed: scope is the span that its node had, to our knowledge, at cursor; not before we
            have led it anywhere, nor after an Interest until we have led it on.
        is_due: something in its span, or the span, has changed since cursor.
        owes: what it gets next, or got last, wants a barrier of its own.
        first_touch: the first revision after the acknowledged ones that touches its span, as far as
            that is remembered; 0: none is known.
        last_touch: the last one; 0: none is known.
        said: revision of the last frame, snapshot or barrier: what the next frame follows.
        interest: number of the last Interest.
        leads_to: Interest and span version that the outbox leads to; covers: those of the last
            barrier.
        mending: how far a repair is; sums: what its digests should be, by bucket, at barrier_asked.
        repairs: how many were finished; replaced: buckets that they replaced.
        worst_apply_us: from its last Ack, microseconds.
        refused: objects that it holds closed, and why.
        control: encoded messages that go first and need no credit.
        outbox: frames, chunks or buckets; all are needed before the next barrier.
        snapshots: how many were started.
        snapshot_revision: what the last one of them, or the last repair of all it holds, shows.
        snapshot_after: the last barrier before that: a later one proves it.
        renewal: how many snapshots and repairs there are with it: so many prove it, too; renewed:
            how many are acknowledged.
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
    acks_left: float = 0.0
    scope: Scope = EMPTY
    span_version: int = 0
    is_placed: bool = False
    is_due: bool = False
    owes: bool = False
    first_touch: int = 0
    last_touch: int = 0
    said: int = 0
    interest: int = 0
    leads_to: tuple[int, int] = (0, 0)
    covers: tuple[int, int] = (0, 0)
    mending: Mending = Mending.NOTHING
    sums: tuple[bytes, ...] | None = None
    barrier_asked: int = 0
    repairs: int = 0
    replaced: int = 0
    worst_apply_us: int = 0
    refused: dict[ObjectKey, str] = field(default_factory=dict)
    control: deque[bytes] = field(default_factory=deque)
    outbox: deque[Message] = field(default_factory=deque)
    snapshots: int = 0
    snapshot_revision: int = 0
    snapshot_after: int = 0
    renewal: int = 0
    renewed: int = 0
    renew: bool = False
    watermarks: tuple[int, int] = (0, 0)
    barriers: int = 0
    barrier_revision: int = 0
    barrier_at: float = float("-inf")

    def touch(self, first: int, last: int, cut: int = 0) -> None:
        """Its span is touched by something at `first`, and by nothing after `last`.

        Args:
            first: revision of the first touch that is not known yet.
            last: revision of the last one.
            cut: before `first`: whoever was not due is there already, so that all whom a tick
                touches read the same range; 0: not known.
        """
        if not self.is_due:
            self.cursor = max(self.cursor, cut)
        if self.last_touch <= self.applied:
            self.first_touch = first
        self.last_touch = max(self.last_touch, last)
        self.is_due = True

    def effective(self, head: int) -> int:
        """The newest revision that it provably agrees with; 0 before its first Ack.

        Args:
            head: everything through here has been looked at.
        """
        if not self.applied:
            return 0
        if self.last_touch <= self.applied:
            return max(head, self.applied)
        if self.first_touch > self.applied:
            return self.first_touch - 1
        return self.applied  # between the first and the last nothing is remembered
