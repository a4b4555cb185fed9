"""The server's side of the stream: one view, one log, and for each agent a cursor and its credit.

There is no queue per agent. An agent that is slow keeps its cursor where it is and later reads the
range merged; what it makes us hold is shared with everybody else, or at most one merge or snapshot
of the view.

    publish ──► view, spans ──► log ──► touched readers
                                             │ poll
             cursor, span held ──► Delivery ─┴─► frames, barrier
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deltaplane.delta.changes import Change, Recorded, Upsert, merge
from deltaplane.delta.delays import Delays
from deltaplane.delta.encoder import Encoder
from deltaplane.delta.log import Limits, Log, Segment
from deltaplane.delta.messages import (
    PROTOCOL,
    Ack,
    ClientMessage,
    Control,
    Digests,
    Hello,
    Interest,
    Mode,
    Nack,
    StreamBroken,
    Welcome,
)
from deltaplane.delta.pieces import Pieces
from deltaplane.delta.reader import Reader
from deltaplane.delta.span import EMPTY
from deltaplane.delta.span_digest import SpanDigest
from deltaplane.delta.span_index import SpanIndex
from deltaplane.delta.tick import Tick, relevance, touches
from deltaplane.delta.view import Outcome, View
from deltaplane.delta.writer import BOOKMARK_SECONDS, Writer

ACKS_AT_ONCE = 100
ACKS_PER_SECOND = 50.0
"""An agent that keeps the interval of `Welcome` sends at most ten a second."""

INTEREST_AT_MOST = 4096
"""Identities that one agent may ask for in advance."""


@dataclass(frozen=True, slots=True)
class Published:
    """Changes on the stream and bytes of their frame; both 0 when a tick changed nothing."""

    changes: int
    size: int


class Sender:
    """One lineage's view, published to any number of readers.

    Attributes:
        view: at the last cut.
        index: the spans in it.
        pieces: of the view, encoded.
        readers: connected agents by node name.
        is_scoped: agents are told of their span; False: of everything.
        delays: since when readers wait.
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
        is_scoped: bool = False,
    ) -> None:
        """Starts from the objects of a listing at a revision, which was made at head_unix_ns."""
        digest = SpanDigest()
        self.lineage = lineage
        self.view = View(digest)
        for change in objects:
            self.view.apply(change)
        self.index = SpanIndex(held.value for held in self.view)
        self.pieces = Pieces(self.view, encoder)
        self.readers: dict[str, Reader] = {}
        self.is_scoped = is_scoped
        self._server_id = server_id
        self._encoder = encoder
        self._log = Log(encoder, revision, limits or Limits())
        self.delays = Delays(self._log, is_scoped=is_scoped)
        self._writer = Writer(
            encoder=encoder,
            log=self._log,
            view=self.view,
            digest=digest,
            index=self.index,
            pieces=self.pieces,
            readers=self.readers,
            is_scoped=is_scoped,
        )
        self._writer.head_unix_ns = head_unix_ns
        self._by_index: dict[int, Reader] = {}
        # What a frame for everybody names as its predecessor: ticks without changes have no frame.
        self._last_frame = revision

    @property
    def head(self) -> int:
        """Newest revision scanned."""
        return self._log.head

    @property
    def start(self) -> int:
        """The oldest revision from which changes are known."""
        return self._log.start

    @property
    def cut(self) -> int:
        """The last revision at which the view is known exactly: nothing was written since."""
        return self._log.cut

    @property
    def watermarks(self) -> tuple[int, int]:
        """Revisions that every live node, and every registered node, has passed."""
        return self._writer.watermarks

    # --- the writer ------------------------------------------------------------------------------

    def publish(self, tick: Tick, *, now: float, wall_ns: int) -> Published:
        """Folds a tick into the view and adds one frame to the log."""
        history = []
        for change in tick.changes:
            held = self.view.get(change.object_key)
            before = None if held is None else held.value
            if self.view.apply(change) is not Outcome.STALE:
                history.append(Recorded(change, before))
                self.index.replace(before, change.value if isinstance(change, Upsert) else None)
        merged = tuple(
            Recorded(r.change, r.before, self._encoder.change(r.change, tick.revision))
            for r in merge(history)
        )
        data = b"" if self.is_scoped else self._frame(tick, merged)
        previous = self._log.cut
        self._log.append(
            Segment(
                previous=previous,
                revision=tick.revision,
                events=tick.events,
                oldest_change_unix_ns=tick.oldest_change_unix_ns,
                closed_at=now,
                changes=merged,
                data=data,
                relevance=relevance(self.index, history, merged) if self.is_scoped else None,
            )
        )
        self.pieces.touch(history)
        self._writer.head_unix_ns = wall_ns
        self._writer.changed()
        self._touch(tick, previous, history)
        size = len(data) or sum(len(recorded.fragment) for recorded in merged)
        return Published(len(merged), size)

    def _frame(self, tick: Tick, merged: Sequence[Recorded]) -> bytes:
        """The frame of everything; empty without changes."""
        if not merged:
            return b""
        piece = self._encoder.piece(tick.revision, [r.fragment for r in merged])
        data = self._encoder.frame(
            self._last_frame, tick.revision, tick.oldest_change_unix_ns, [piece]
        )
        self._last_frame = tick.revision
        return data

    def _touch(self, tick: Tick, previous: int, history: Sequence[Recorded]) -> None:
        """Notes which readers a tick concerns, and since when."""
        begins, structural = tick.first_event or previous + 1, tick.structural
        if tick.events is None or not self.is_scoped:
            structural = begins
        touched = touches(self.index, history, first=begins) if self.is_scoped else {}
        self.index.unsettled.clear()
        if structural is not None:
            for reader in self.readers.values():
                first = min(structural, touched.get(reader.node_index, structural))
                reader.touch(first, tick.revision, previous)
            return
        for node_index, first in touched.items():
            if (concerned := self._by_index.get(node_index)) is not None:
                concerned.touch(first, tick.revision, previous)

    def advance(self, revision: int, *, wall_ns: int) -> None:
        """Notes that nothing happened up to a revision."""
        self._log.head = max(self._log.head, revision)
        self._writer.head_unix_ns = wall_ns
        self._writer.scanned()

    def set_watermarks(self, live: int, strict: int, waiting: frozenset[int] | None = None) -> bool:
        """Takes new watermarks; False: they are known.

        Args:
            live: that every live node has passed.
            strict: that every registered node has passed.
            waiting: numbers of the nodes that should hear of them soon, the others with their next
                bookmark; None: all.
        """
        if self.watermarks == (live, strict):
            return False
        self._writer.watermarks = live, strict
        self._writer.waiting = frozenset(self._by_index) if waiting is None else waiting
        self._writer.scanned()
        return True

    def passed(self) -> tuple[int, int]:
        """The watermarks, moved on to where something was written next: that much they prove."""
        return self._writer.passed()

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
        if (older := self.readers.get(hello.node)) is not None:
            self.disconnect(older)
        self.index.prefetch(node_index, frozenset())
        mode, cut = (Mode.SNAPSHOT, 0) if fenced else self._rung(hello, node_index)
        resumes = mode in (Mode.RESUME, Mode.PATCH)
        reader = Reader(
            node=hello.node,
            node_index=node_index,
            cursor=cut if resumes else self._log.cut,
            through=max(cut, hello.applied_revision) if resumes else self.head,
            credit=hello.credit_bytes,
            applied=hello.applied_revision if resumes else 0,
            mode=mode,
            heard_at=now,
            acks_left=ACKS_AT_ONCE,
            scope=hello.held if resumes and self.is_scoped else EMPTY,
        )
        self.readers[hello.node] = self._by_index[node_index] = reader
        self._writer.say(
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
        if mode is Mode.SNAPSHOT:
            self._writer.start_snapshot(reader)
        elif mode is Mode.REPAIR:
            self._writer.start_repair(reader)
        else:
            if mode is Mode.PATCH or cut != self._log.cut:
                reader.touch(reader.applied + 1, self._log.cut)
            # The next frame starts at the cut: tell the agent that it is there already.
            reader.control.append(self._writer.next_barrier(reader, reader.through, now))
        return reader

    def _rung(self, hello: Hello, node_index: int) -> tuple[Mode, int]:
        """The cheapest step of the ladder that is provably right, and the cut it starts from."""
        if hello.lineage != self.lineage:
            return Mode.SNAPSHOT, 0
        cut = self._log.cut_for(hello.applied_revision) if hello.applied_revision else None
        if cut is None:
            return (Mode.REPAIR if hello.root_digest else Mode.SNAPSHOT), 0
        held = hello.held if self.is_scoped else EMPTY
        digests = b"", self._writer.root(held, node_index)
        if cut == self._log.cut and hello.root_digest not in digests:
            return Mode.REPAIR, 0  # it does not hold what it thinks it holds
        same = held == self._writer.scope(node_index)
        return (Mode.RESUME if same else Mode.PATCH), cut

    def disconnect(self, reader: Reader) -> None:
        """Forgets an agent, unless a newer stream has taken its place."""
        if self.readers.get(reader.node) is reader:
            del self.readers[reader.node]
        if self._by_index.get(reader.node_index) is reader:
            del self._by_index[reader.node_index]
            self.index.prefetch(reader.node_index, frozenset())

    def renew(self, reader: Reader) -> None:
        """Gives a connected agent a snapshot, once what is on its way has been sent."""
        reader.renew = True

    def is_renewed(self, reader: Reader, since: int) -> bool:
        """Whether the agent has applied a snapshot of this revision or a later one."""
        return (
            reader.snapshot_revision >= since
            and reader.applied >= reader.snapshot_revision
            and (reader.applied > reader.snapshot_after or reader.renewed >= reader.renewal)
        )

    def say(self, reader: Reader, message: Control) -> None:
        """Puts a message in front of everything else."""
        self._writer.say(reader, message)

    def receive(self, reader: Reader, message: ClientMessage, *, now: float) -> None:
        """Takes a message of an admitted agent.

        Raises:
            StreamBroken: a second Hello, an acknowledgement of what was never sent, too many of
                them, too large an Interest.
        """
        silent, reader.heard_at = now - reader.heard_at, now
        reader.acks_left = min(ACKS_AT_ONCE, reader.acks_left + silent * ACKS_PER_SECOND)
        match message:
            case Hello():
                raise StreamBroken("a second Hello")
            case Ack():
                self._acknowledged(reader, message)
            case Nack(reason=""):
                reader.refused.pop((message.kind, message.key), None)
            case Nack():
                reader.refused[message.kind, message.key] = message.reason
            case Digests():
                self._writer.compare(reader, message)
            case Interest():
                self._interest(reader, message)

    def _acknowledged(self, reader: Reader, message: Ack) -> None:
        if message.applied_revision > reader.barrier_revision:
            raise StreamBroken(
                f"revision {message.applied_revision} acknowledged, {reader.barrier_revision} sent"
            )
        if message.renewals > reader.snapshots + reader.repairs:
            raise StreamBroken(
                f"{message.renewals} snapshots and repairs acknowledged, "
                f"{reader.snapshots + reader.repairs} sent"
            )
        reader.acks_left -= 1
        if reader.acks_left < 0:
            raise StreamBroken(f"more than {ACKS_AT_ONCE} acknowledgements at once")
        reader.applied = max(reader.applied, message.applied_revision)
        reader.renewed = max(reader.renewed, message.renewals)
        reader.credit += message.added_credit_bytes
        reader.worst_apply_us = message.worst_apply_us

    def _interest(self, reader: Reader, message: Interest) -> None:
        if len(message.identities) > INTEREST_AT_MOST:
            raise StreamBroken(
                f"an interest in {len(message.identities)} identities; {INTEREST_AT_MOST} may be"
            )
        if message.number <= reader.interest:
            return
        known = self.view.identities
        wanted = frozenset(n for n in message.identities if n.to_bytes(4) in known)
        reader.interest, reader.is_due, reader.is_placed = message.number, True, False
        self.index.prefetch(reader.node_index, wanted)

    # --- what they have --------------------------------------------------------------------------

    def effective(self, reader: Reader) -> int:
        """The newest revision that the agent provably agrees with; 0 before its first Ack."""
        if self.is_scoped:
            return reader.effective(self.head)
        return self._log.effective(reader.applied) if reader.applied else 0

    # --- what to write ---------------------------------------------------------------------------

    def poll(self, reader: Reader, now: float) -> list[bytes]:
        """The next messages for an agent, encoded and counted as sent.

        Empty when there is nothing to say, or no credit; call again until then.
        """
        return self._writer.poll(reader, now)

    def bookmark_at(self, reader: Reader) -> float:
        """When `poll` will have something to say even if nothing happens, seconds."""
        return self._writer.bookmark_at(reader)
