"""What an agent is sent next: frames or a snapshot, buckets of a repair, barriers."""

from collections.abc import Collection, Iterator, Sequence
from functools import partial

from deltaplane.delta.buckets import Buckets
from deltaplane.delta.delivery import Delivery
from deltaplane.delta.digest import BUCKETS
from deltaplane.delta.encoder import Encoder
from deltaplane.delta.log import CHUNK_BYTES, Based, Log
from deltaplane.delta.messages import (
    Barrier,
    Control,
    DigestRequest,
    Digests,
    SnapshotBegin,
    SnapshotEnd,
)
from deltaplane.delta.pieces import Pieces, grouped
from deltaplane.delta.reader import Mending, Message, Reader
from deltaplane.delta.span import EMPTY, Scope
from deltaplane.delta.span_digest import SpanDigest
from deltaplane.delta.span_index import SpanIndex
from deltaplane.delta.view import View

BOOKMARK_SECONDS = 1.0
"""An agent hears from us at least this often, …"""

BOOKMARKS_PER_SECOND = 400
"""… unless there are more agents than that: then each hears from us as much more seldom, …"""

LONGEST_BOOKMARK_SECONDS = 2.5
"""… up to this. It is less than the four periods after which an agent gives a stream up."""

WATERMARK_SECONDS = 0.05
"""A new watermark comes to an agent that waits for it at most this often, and …"""

WATERMARK_SECONDS_PER_READER = 0.0002
"""… for all agents together not more than 5,000 times a second."""

DIGEST_EVERY = 5
"""Every so many barriers carry the root digest."""

POLL_MESSAGES = 16
"""Messages that one poll returns at most: with chunks of 256 KiB, 4 MiB wait to be written."""

_GROUP_BYTES = CHUNK_BYTES - 64
"""Pieces that share a message; the rest is its head."""


class Writer:
    """Puts messages together; what can be shared among readers is made once.

    Attributes:
        watermarks: revisions that every live node, and every registered node, has passed.
        waiting: numbers of the nodes that wait for a watermark; they hear of a new one soon.
        head_unix_ns: when the log's head was scanned.
    """

    def __init__(
        self,
        *,
        encoder: Encoder,
        log: Log,
        view: View,
        digest: SpanDigest,
        index: SpanIndex,
        pieces: Pieces,
        readers: Collection[str],
        is_scoped: bool,
    ) -> None:
        self.watermarks = (0, 0)
        self.waiting: frozenset[int] = frozenset()
        self.head_unix_ns = 0
        self._encoder = encoder
        self._log = log
        self._view = view
        self._digest = digest
        self._index = index
        self._pieces = pieces
        self._readers = readers
        self._is_scoped = is_scoped
        self._delivery = Delivery(encoder, pieces)
        self._buckets = Buckets(pieces, digest, is_scoped=is_scoped)
        self._barriers: dict[tuple[int, bytes, bool, int, int], bytes] = {}
        self._chunks: tuple[bytes, ...] | None = None

    def changed(self) -> None:
        """The log, and with it the view, has another cut."""
        self._delivery.forget()
        self._chunks = None
        self.scanned()

    def scanned(self) -> None:
        """Head or watermarks are others now."""
        self._barriers.clear()

    def scope(self, node_index: int) -> Scope:
        """The span that a node should have; EMPTY while everybody is told everything."""
        return self._index.scope(node_index) if self._is_scoped else EMPTY

    def root(self, scope: Scope, node_index: int) -> bytes:
        """Root digest of what a node with this span should hold."""
        if not self._is_scoped:
            return self._digest.root
        return self._digest.root_of(scope, node_index)

    def say(self, reader: Reader, message: Control) -> None:
        """Puts a message in front of everything else."""
        reader.control.append(self._encoder.control(message))

    # --- the next messages -----------------------------------------------------------------------

    def poll(self, reader: Reader, now: float) -> list[bytes]:
        """The next messages for an agent, encoded and counted as sent; see `Sender.poll`."""
        out: list[bytes] = []
        while reader.control:
            out.append(reader.control.popleft())
        outbox = reader.outbox
        while reader.credit > 0 and len(out) < POLL_MESSAGES:
            if not outbox and not self._refill(reader):
                break
            while outbox and reader.credit > 0 and len(out) < POLL_MESSAGES:
                message = outbox.popleft()
                data = message if isinstance(message, bytes) else message()
                reader.credit -= len(data)
                out.append(data)
        if (barrier := self._barrier(reader, now)) is not None:
            out.append(barrier)
        return out

    def _refill(self, reader: Reader) -> bool:
        """Puts what lies between cursor and last cut into the outbox; False: nothing does."""
        if reader.mending is Mending.ASKED and reader.sums is None:
            return False  # nobody knows yet what it holds
        if reader.renew or (reader.is_due and reader.cursor < self._log.start):
            self.start_snapshot(reader)
            return True
        if not reader.is_due:
            reader.cursor, reader.through = self._log.cut, self._log.head
            reader.is_placed = True
            return False
        reader.is_due, reader.owes = False, True
        before = len(reader.outbox)
        if self._is_scoped:
            reader.outbox.extend(self._frames(reader))
        else:
            reader.outbox.extend(self._log.read(reader.cursor) or ())
        reader.cursor, reader.through = self._log.cut, self._log.head
        reader.is_placed = True
        reader.leads_to = reader.interest, reader.span_version
        return len(reader.outbox) > before

    def _frames(self, reader: Reader) -> Iterator[Message]:
        changes = self._relevant(reader)
        old, new = reader.scope, self.scope(reader.node_index)
        if old != new:
            reader.scope, reader.span_version = new, reader.span_version + 1
        pieces = self._delivery.pieces(
            changes,
            revision=self._log.cut,
            old=old,
            new=new,
            node_index=reader.node_index,
        )
        groups = grouped(filter(None, pieces), _GROUP_BYTES)
        # A span may change where no revision does: such a frame repeats the last one.
        said, revision = reader.said, max(self._log.cut, reader.said)
        oldest = self._log.oldest_after(reader.cursor)
        for number, group in enumerate(groups, 1):
            yield self._encoder.frame(said, revision, oldest, group, continues=number < len(groups))
        if groups:
            reader.said = revision

    def _relevant(self, reader: Reader) -> Sequence[Based]:
        """What has happened since its cursor, but for what does not concern it."""
        changes = None
        if reader.is_placed:
            changes = self._log.relevant_after(reader.cursor, reader.node_index)
        if changes is None:
            changes = self._log.changes_after(reader.cursor)
        assert changes is not None
        return changes

    # --- snapshots -------------------------------------------------------------------------------

    def start_snapshot(self, reader: Reader) -> None:
        """Puts a snapshot into the outbox."""
        self._renewed(reader)
        reader.snapshots += 1
        reader.mending, reader.sums = Mending.NOTHING, None
        scope = self._moved_to_cut(reader)
        begin = SnapshotBegin(id=reader.snapshots, revision=self._log.head)
        reader.outbox.append(self._encoder.control(begin))
        reader.said = self._log.head
        if not self._is_scoped:
            reader.outbox.extend(self._shared_chunks(reader.snapshots))
            return
        pieces = filter(None, self._pieces.of(scope, reader.node_index))
        groups = grouped(pieces, _GROUP_BYTES)
        for sequence, group in enumerate(groups):
            # Put together when their turn comes: until then only the pieces are held, by all.
            reader.outbox.append(partial(self._encoder.chunk, reader.snapshots, sequence, group))
        objects = sum(1 for _ in self._pieces.objects_of(scope, reader.node_index))
        root = self.root(scope, reader.node_index)
        reader.outbox.append(self._end(reader.snapshots, len(groups), objects, root))

    def _renewed(self, reader: Reader) -> None:
        reader.renew = False  # another one would show the same
        reader.snapshot_revision, reader.snapshot_after = self._log.head, reader.barrier_revision
        reader.renewal = reader.snapshots + reader.repairs + 1

    def _moved_to_cut(self, reader: Reader) -> Scope:
        reader.cursor, reader.through = self._log.cut, self._log.head
        reader.is_due, reader.owes = False, True
        reader.scope, reader.is_placed = self.scope(reader.node_index), True
        reader.leads_to = reader.interest, reader.span_version
        return reader.scope

    def _shared_chunks(self, snapshot_id: int) -> tuple[bytes, ...]:
        """Of everything; most agents that ask for one ask for their first."""
        if snapshot_id != 1:
            return self._all_chunks(snapshot_id)
        if self._chunks is None:
            self._chunks = self._all_chunks(snapshot_id)
        return self._chunks

    def _all_chunks(self, snapshot_id: int) -> tuple[bytes, ...]:
        chunks = [
            self._encoder.chunk(snapshot_id, sequence, group)
            for sequence, group in enumerate(grouped(self._pieces.everything(), _GROUP_BYTES))
        ]
        end = self._end(snapshot_id, len(chunks), len(self._view), self._digest.root)
        return (*chunks, end)

    def _end(self, snapshot_id: int, chunks: int, objects: int, root: bytes) -> bytes:
        return self._encoder.control(
            SnapshotEnd(id=snapshot_id, chunks=chunks, objects=objects, root_digest=root)
        )

    # --- repairs ---------------------------------------------------------------------------------

    def start_repair(self, reader: Reader) -> None:
        """Asks an agent that has just come what it holds: it may be any view of this lineage."""
        self._renewed(reader)
        self._moved_to_cut(reader)
        reader.mending, reader.sums, reader.owes = Mending.ASKED, None, False
        self.say(reader, DigestRequest(revision=0))

    def compare(self, reader: Reader, message: Digests) -> None:
        """Takes an agent's digests: the first ones without a question, then the answer to ours."""
        if reader.mending is not Mending.ASKED:
            # Not with the next bookmark: until it is mended nothing counts as applied.
            reader.mending, reader.owes = Mending.WANTED, True
            return
        if reader.sums is None:
            self._renewed(reader)
            sums = self._buckets.sums(self._moved_to_cut(reader), reader.node_index)
        elif message.revision != reader.barrier_asked:
            return
        else:
            sums, snapshots = reader.sums, reader.snapshots
            self._refill(reader)
            if reader.snapshots != snapshots:
                return  # a snapshot is on its way instead
        reader.mending, reader.sums = Mending.NOTHING, None
        # One that agrees is repeated if all do: the agent waits for the last one.
        unequal = [b for b in range(BUCKETS) if sums[b] != message.buckets[b]] or [0]
        reader.repairs += 1
        reader.replaced += len(unequal)
        # Not the cut alone: the agent may be at the head, and takes no frame for older than it is.
        revision = reader.said = max(reader.through, reader.said)
        for bucket, pieces in self._buckets.contents(reader.scope, reader.node_index, unequal):
            last = bucket == unequal[-1]
            reader.outbox.append(partial(self._encoder.bucket, bucket, revision, pieces, last=last))
        reader.owes = True

    # --- barriers --------------------------------------------------------------------------------

    @property
    def bookmark_seconds(self) -> float:
        """Between two signs of life of a stream on which nothing happens."""
        wanted = max(BOOKMARK_SECONDS, len(self._readers) / BOOKMARKS_PER_SECOND)
        return min(wanted, LONGEST_BOOKMARK_SECONDS)

    def bookmark_at(self, reader: Reader) -> float:
        """When `poll` will have something to say even if nothing happens, seconds."""
        if reader.watermarks == self.watermarks or reader.node_index not in self.waiting:
            return reader.barrier_at + self.bookmark_seconds
        pause = max(WATERMARK_SECONDS, WATERMARK_SECONDS_PER_READER * len(self._readers))
        return reader.barrier_at + min(pause, self.bookmark_seconds)

    def _barrier(self, reader: Reader, now: float) -> bytes | None:
        """A barrier when the outbox has been sent and leads to something new, or as a sign of life.

        In the middle of a snapshot, merge or repair the sign of life repeats the last revision.
        """
        complete = not reader.outbox and not (
            reader.mending is Mending.ASKED and reader.sums is None
        )
        due = now >= self.bookmark_at(reader)
        if not due and not (complete and reader.owes):
            return None
        if not complete:
            return self.next_barrier(reader, reader.barrier_revision, now)
        is_bookmark = not reader.owes and bool(reader.barriers)
        reader.owes, reader.covers = False, reader.leads_to
        current = reader.cursor == self._log.cut and not reader.is_due
        # Head may have moved since the last refill, and a barrier with it: none goes back.
        through = max(reader.through, reader.barrier_revision)
        barrier = self.next_barrier(
            reader,
            self._log.head if current else through,
            now,
            is_current=current,
            is_bookmark=is_bookmark,
        )
        if current and reader.mending is Mending.WANTED:
            reader.mending, reader.barrier_asked = Mending.ASKED, reader.barrier_revision
            reader.sums = self._buckets.sums(reader.scope, reader.node_index)
            self.say(reader, DigestRequest(revision=reader.barrier_revision))
        return barrier

    def next_barrier(
        self,
        reader: Reader,
        revision: int,
        now: float,
        *,
        is_current: bool = False,
        is_bookmark: bool = False,
    ) -> bytes:
        """A barrier, counted as sent.

        Args:
            reader: the agent's.
            revision: that it completes.
            now: seconds.
            is_current: the agent holds what is known at the last cut; nothing has changed up to
                head.
            is_bookmark: nothing in its span was written since the barrier before.
        """
        reader.barrier_revision, reader.barrier_at = revision, now
        reader.said = max(reader.said, revision)
        reader.barriers += 1
        reader.watermarks = self.watermarks
        digest = b""
        if is_current and reader.barriers % DIGEST_EVERY == 0:
            digest = self.root(reader.scope, reader.node_index)
        key = (revision, digest, is_bookmark, *reader.covers)
        if key not in self._barriers:
            self._barriers[key] = self._encode_barrier(*key)
        return self._barriers[key]

    def passed(self) -> tuple[int, int]:
        """The watermarks, moved on to where something was written next: that much they prove."""
        live, strict = (self._log.effective(w) if w else 0 for w in self.watermarks)
        return live, strict

    def _encode_barrier(
        self,
        revision: int,
        digest: bytes,
        is_bookmark: bool,  # noqa: FBT001 - part of the key
        interest: int,
        span_version: int,
    ) -> bytes:
        live, strict = self.passed()
        return self._encoder.control(
            Barrier(
                revision=revision,
                head_revision=self._log.head,
                head_unix_ns=self.head_unix_ns,
                watermark_revision=live,
                strict_watermark_revision=strict,
                interest_number=interest,
                span_version=span_version,
                root_digest=digest,
                bookmark=is_bookmark,
            )
        )
