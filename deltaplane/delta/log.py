"""The log of frames that all agents read with a cursor of their own, and what can be told from it.

    start        cut           cut                cut      head
      |-----------|-------------|------------------|--------|
      (nothing before            segment (cut, cut]          scanned, nothing happened
       is known)

A cut is a revision at which the view is known exactly: the slicer folds many revisions into one
tick and computes derived objects once for it, so between two cuts only those revisions are known at
which nothing had happened yet, or nothing happened any more.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from deltaplane.delta.changes import Recorded, merge
from deltaplane.delta.encoder import Encoder
from deltaplane.delta.tick import Relevance

CHUNK_BYTES = 256 * 1024
"""Merged frames and snapshot chunks are split above this size; a single change may exceed it."""

_CHANGE_BYTES = 400
"""About what a recorded change takes in memory besides its bytes (measured: 380)."""

_NAMED_BYTES = 100
"""About what it takes to note that a node may need a change: a number in a small set."""


class Based(NamedTuple):
    """A change with its fragment, to be used in a piece with this base revision."""

    base: int
    recorded: Recorded


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What happened in (previous, revision].

    Attributes:
        previous: the cut before.
        revision: the cut at the end.
        events: revisions in it at which the store was written to, ascending; None when they are not
            known.
        oldest_change_unix_ns: when the first of them was seen.
        closed_at: when it was closed, seconds of the caller's clock.
        changes: merged; empty when the writes changed nothing on the stream.
        data: the frame message; empty without changes.
        relevance: which of the changes a node may need; None: any node any of them.
    """

    previous: int
    revision: int
    events: tuple[int, ...] | None
    oldest_change_unix_ns: int
    closed_at: float
    changes: tuple[Recorded, ...] = ()
    data: bytes = b""
    relevance: Relevance | None = None

    @property
    def cost(self) -> int:
        """About how many bytes it takes in memory."""
        named = sum(map(len, self.relevance.own.values())) if self.relevance else 0
        return 2 * len(self.data) + _CHANGE_BYTES * (1 + len(self.changes)) + _NAMED_BYTES * named

    @cached_property
    def based(self) -> tuple[Based, ...]:
        """The changes, to be used in pieces."""
        return tuple(Based(self.revision, recorded) for recorded in self.changes)

    @property
    def unchanged_until(self) -> int:
        """The last revision at which the view is still as it was at the cut before."""
        return self.events[0] - 1 if self.events else self.previous


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much history is kept. max_bytes: of memory, about; max_seconds: age."""

    max_bytes: int = 256 << 20
    max_seconds: float = 900.0


@dataclass(slots=True)
class Log:
    """Segments without gaps from `start` to `cut`; `head` is at or after `cut`."""

    encoder: Encoder
    start: int
    limits: Limits = field(default_factory=Limits)
    head: int = 0
    _segments: list[Segment] = field(default_factory=list)
    _bytes: int = 0
    # By cursor, of the range from there to the last cut.
    _ranges: dict[int, tuple[Based, ...]] = field(default_factory=dict)
    _merges: dict[int, tuple[bytes, ...]] = field(default_factory=dict)
    # What was merged for one reader lives as long as the last cut: others go by its identity.
    _own: list[Based] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.head = max(self.head, self.start)

    @property
    def cut(self) -> int:
        """The last revision at which the view is known exactly."""
        return self._segments[-1].revision if self._segments else self.start

    def append(self, segment: Segment) -> None:
        """Adds what happened after the last cut and forgets what is beyond the limits."""
        assert segment.previous == self.cut <= self.head < segment.revision, (segment, self.head)
        self._segments.append(segment)
        self._bytes += segment.cost
        self.head = max(self.head, segment.revision)
        self._ranges.clear()
        self._merges.clear()
        self._own.clear()
        self._trim(segment.closed_at)

    def _trim(self, now: float) -> None:
        surplus = 0
        while surplus < len(self._segments) - 1 and (
            self._bytes > self.limits.max_bytes
            or self._segments[surplus].closed_at < now - self.limits.max_seconds
        ):
            self._bytes -= self._segments[surplus].cost
            surplus += 1
        if surplus:
            self.start = self._segments[surplus - 1].revision
            del self._segments[:surplus]

    def cut_for(self, revision: int) -> int | None:
        """A cut at which the view is the same as at a revision; None when the log has none."""
        if not self.start <= revision <= self.head:
            return None
        if revision == self.start:
            return revision
        index = self._first_at_or_after(revision)
        if index == len(self._segments):
            return self.cut
        segment = self._segments[index]
        if revision == segment.revision or (segment.events and revision >= segment.events[-1]):
            return segment.revision
        return segment.previous if revision <= segment.unchanged_until else None

    def effective(self, applied: int) -> int:
        """The newest revision up to which the store is, at every revision, what `applied` shows.

        That is head if nothing was written since. A segment without changes is not enough: what
        came and went inside it has left none, but another replica may have shown it, even to an
        agent that still has a stream here. A history that is gone proves nothing.
        """
        if not self.start <= applied <= self.head:
            return applied
        for segment in self._segments[self._first_after(applied) :]:
            if segment.events is None:
                return max(applied, segment.previous)
            if (later := bisect.bisect_right(segment.events, applied)) < len(segment.events):
                return segment.events[later] - 1
        return self.head

    def changed_at(self, after: int) -> float | None:
        """When the first change after a revision was published, seconds; None: no change."""
        for segment in self._segments[self._first_after(after) :]:
            if segment.changes:
                return segment.closed_at
        return None

    def oldest_change_between(self, after: int, through: int) -> int | None:
        """When the first change of (after, through] was seen, Unix nanoseconds; None: no change."""
        for segment in self._segments[self._first_after(after) :]:
            if segment.revision > through:
                break
            if segment.changes:
                return segment.oldest_change_unix_ns
        return None

    def read(self, cursor: int) -> tuple[bytes, ...] | None:
        """Frame messages that lead from a cut to the last one; None when the log starts later.

        A reader that is one frame behind gets that frame; one further behind gets all of the range
        merged, once for everybody at the same cursor.
        """
        if not self.start <= cursor <= self.cut:
            return None
        behind = [s for s in self._segments[self._first_after(cursor) :] if s.changes]
        if len(behind) <= 1:
            return tuple(segment.data for segment in behind)
        if cursor not in self._merges:
            self._merges[cursor] = self._merge(cursor, behind)
        return self._merges[cursor]

    def changes_after(self, cursor: int) -> tuple[Based, ...] | None:
        """What led from a cut to the last one, merged; None when the log starts later."""
        if not self.start <= cursor <= self.cut:
            return None
        if cursor not in self._ranges:
            behind = [s for s in self._segments[self._first_after(cursor) :] if s.changes]
            self._ranges[cursor] = tuple(self._merged(behind))
        return self._ranges[cursor]

    def relevant_after(self, cursor: int, node_index: int) -> Sequence[Based] | None:
        """What of `changes_after` a node may need, without a look at the rest.

        Its span at the cursor must be the one that the ticks knew, and have changed in one segment
        at most: at each cut on the way it is then the one there or the one now, and a tick that
        passes over a change does so because one of the two is not told of it.

        Returns:
            None: not known; look at everything.
        """
        found: list[Based] = []
        changed = sources = 0
        for segment in self._segments[self._first_after(cursor) :]:
            if (relevance := segment.relevance) is None:
                return None
            changed += node_index in relevance.unsettled
            if segment.changes:
                sources += 1
                found.extend(segment.based[position] for position in relevance.of(node_index))
        if changed > 1:
            return None
        if sources <= 1:
            return found  # each object once: it is what was merged
        keys = [based.recorded.change.object_key for based in found]
        if len(set(keys)) == len(keys):
            return found
        merged = self._merge_based(found)
        self._own.extend(merged)
        return merged

    def oldest_after(self, cursor: int) -> int:
        """When the first change after a cut was seen, Unix nanoseconds; 0: there is none."""
        return self.oldest_change_between(cursor, self.cut) or 0

    def _merged(self, segments: Sequence[Segment]) -> Sequence[Based]:
        if len(segments) == 1:
            return segments[0].based
        return self._merge_based([based for segment in segments for based in segment.based])

    def _merge_based(self, history: Sequence[Based]) -> list[Based]:
        base_of = {based.recorded.change.object_key: based.base for based in history}
        found = []
        for recorded in merge(based.recorded for based in history):
            base = base_of[recorded.change.object_key]
            fragment = recorded.fragment or self.encoder.change(recorded.change, base)
            found.append(Based(base, replace(recorded, fragment=fragment)))
        return found

    def _merge(self, cursor: int, segments: Sequence[Segment]) -> tuple[bytes, ...]:
        survivors: dict[int, list[bytes]] = {segment.revision: [] for segment in segments}
        for based in self._merged(segments):
            survivors[based.base].append(based.recorded.fragment)

        frames: list[bytes] = []
        pieces: list[bytes] = []
        size, previous, oldest = 0, cursor, segments[0].oldest_change_unix_ns
        for segment in segments:
            if fragments := survivors[segment.revision]:
                pieces.append(self.encoder.piece(segment.revision, fragments))
                size += len(pieces[-1])
            if pieces and (size >= CHUNK_BYTES or segment is segments[-1]):
                frames.append(self.encoder.frame(previous, segment.revision, oldest, pieces))
                previous, size, pieces = segment.revision, 0, []
        return tuple(frames)

    def _first_at_or_after(self, revision: int) -> int:
        return bisect.bisect_left(self._segments, revision, key=lambda s: s.revision)

    def _first_after(self, revision: int) -> int:
        return bisect.bisect_right(self._segments, revision, key=lambda s: s.revision)
