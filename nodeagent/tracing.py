"""Follows sampled changes on their way into this node's kernel: frame, barrier, map, Ack.

The stream tells what comes and goes, the agent when a barrier is applied. What is too much at once
is not followed: the bound is per barrier, and a trace is a sample anyway.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from deltaplane.delta.changes import Change, Upsert
from deltaplane.delta.messages import Ack, ClientMessage, Frame, ServerMessage
from deltaplane.runtime import propagation, tracing
from deltaplane.runtime.propagation import Stage
from deltaplane.runtime.trace import Traceparent

AT_ONCE = 16
"""Sampled changes that are followed from a frame to its acknowledgement."""

_RECEIVED_TO_APPLIED = propagation.observer(Stage.RECEIVED_TO_APPLIED)


@dataclass(slots=True)
class _Followed:
    """A sampled change. revision: of its frame; times are Unix ns, 0: not yet."""

    parent: Traceparent
    revision: int
    received_ns: int
    barrier_ns: int = 0
    applied_ns: int = 0


class Following:
    """What this agent follows. Everything is called from the event loop.

    Args:
        wall_ns: the time, Unix ns.
    """

    def __init__(self, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._wall_ns = wall_ns
        self._followed: deque[_Followed] = deque()
        self._first_ns = 0

    def received(self, message: ServerMessage) -> None:
        """A message of the stream has been decoded."""
        if not isinstance(message, Frame):
            return
        if not self._first_ns:
            self._first_ns = self._wall_ns()
        if tracing.is_on():
            for change in message.changes:
                self._follow(change, message.revision)

    def _follow(self, change: Change, revision: int) -> None:
        if not isinstance(change, Upsert) or not change.traceparent:
            return
        parent = tracing.sampled(change.traceparent)
        if parent is not None and len(self._followed) < AT_ONCE:
            self._followed.append(_Followed(parent, revision, self._wall_ns()))

    def applied(self, revision: int, *, barrier_ns: int) -> None:
        """The kernel agrees with a barrier, whose turn came then."""
        now = self._wall_ns()
        if self._first_ns:
            _RECEIVED_TO_APPLIED((now - self._first_ns) / 1e9)
            self._first_ns = 0
        for change in self._followed:
            if change.revision <= revision and not change.applied_ns:
                change.barrier_ns, change.applied_ns = barrier_ns, now

    def sent(self, message: ClientMessage) -> None:
        """A message to the slicer has been written; an Ack ends what it acknowledges."""
        if not self._followed or not isinstance(message, Ack):
            return
        now = self._wall_ns()
        while self._followed and self._followed[0].applied_ns:
            if self._followed[0].revision > message.applied_revision:
                return
            change = self._followed.popleft()
            tracing.record(
                "apply",
                [change.parent],
                start_ns=change.received_ns,
                end_ns=now,
                events=(
                    ("barrier", change.barrier_ns),
                    ("applied", change.applied_ns),
                    ("acknowledged", now),
                ),
                attributes={"revision": message.applied_revision},
            )

    def lost(self) -> None:
        """The stream has ended: what was not acknowledged comes again, or in a snapshot."""
        self._followed.clear()
        self._first_ns = 0
