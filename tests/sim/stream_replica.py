"""Slicer replicas, what they write for each other, and what the network holds of their streams.

Facts, fan-out, sender and watermark are real.
"""

from collections import deque
from dataclasses import dataclass, field

from deltaplane.delta.digest import BUCKETS
from deltaplane.delta.log import Limits
from deltaplane.delta.messages import Interest
from deltaplane.delta.sender import Sender
from deltaplane.delta.wire import ProtobufEncoder, decode_request
from deltaplane.policy.compiler import Compiler
from services.slicer.facts import Facts
from services.slicer.fanout import Fanout, Session
from services.slicer.watermark import (
    Watermark,
    advance,
    decode_coverage,
    encode_coverage,
)
from tests.sim.stream_oracle import History
from tests.sim.violation import require

ENCODER = ProtobufEncoder()


@dataclass(eq=False)
class Stream:
    """A stream and what the network holds of it.

    agent: name of the agent. wanted: identities of each Interest.
    """

    replica: "Replica"
    agent: str
    session: Session
    down: deque[bytes] = field(default_factory=deque)
    up: deque[bytes] = field(default_factory=deque)
    has_client: bool = True
    has_server: bool = True
    wanted: dict[int, frozenset[int]] = field(default_factory=lambda: {0: frozenset()})


@dataclass(eq=False)
class Board:
    """What replicas write for each other: coverages by server, and the watermark."""

    history: History
    coverages: dict[str, bytes] = field(default_factory=dict)
    watermark: Watermark = field(default_factory=Watermark)


class Replica:
    """A slicer process."""

    def __init__(
        self, name: str, history: History, board: Board, limits: Limits, *, is_scoped: bool
    ) -> None:
        self.name, self.limits, self.is_scoped = name, limits, is_scoped
        self.history, self.board = history, board
        self.streams: list[Stream] = []
        self.start(history, board)

    def start(self, history: History, board: Board) -> None:
        """A new process, which lists the store; its streams are broken."""
        for stream in self.streams:
            stream.has_server = False
        self.streams = []
        self.history, self.board = history, board
        board.coverages.pop(self.name, None)
        facts = Facts(Compiler())
        for record in history.listing():
            facts.apply(record)
        sender = Sender(
            lineage=history.lineage,
            server_id=self.name,
            encoder=ENCODER,
            revision=history.revision,
            objects=facts.flush(history.revision),
            limits=self.limits,
            is_scoped=self.is_scoped,
        )
        facts.released.clear()
        self.fanout = Fanout(facts, sender)

    def watch(self, through: int) -> None:
        """Takes the writes up to a revision, transactions as a whole."""
        records = self.history.written(self.fanout.scanned, through)
        self.fanout.take(records, through, wall_ns=through)

    def relist(self) -> None:
        """The history after what it has seen is compacted."""
        revision = self.history.revision
        self.fanout.relist(self.history.listing(), revision, wall_ns=revision)

    def cut(self, now: float) -> None:
        """Publishes what is pending."""
        if self.fanout.cut_at() is not None:
            self.fanout.cut(now=now, wall_ns=int(now))

    def serve(self, stream: Stream, count: int, now: float) -> None:
        """Takes messages of a stream and writes what it may."""
        if stream.session.superseded:
            self.end(stream)
        if not stream.has_server:
            return
        while stream.up and count:
            message = decode_request(stream.up.popleft())
            count -= 1
            if isinstance(message, Interest):
                known = self.fanout.sender.view.identities
                stream.wanted[message.number] = frozenset(
                    n for n in message.identities if n.to_bytes(4) in known
                )
            self.fanout.receive(stream.session, message, now=now)
        reader = stream.session.reader
        messages = self.fanout.sender.poll(reader, now)
        if stream.has_client:
            stream.down.extend(messages)
        objects = len(self.fanout.sender.view)
        require(len(reader.outbox) <= 2 * (objects + BUCKETS), "memory: the outbox is a queue")
        require(len(reader.control) <= 4, "memory: control messages gather")

    def end(self, stream: Stream) -> None:
        """The server's end goes."""
        if stream.has_server:
            stream.has_server = False
            self.fanout.leave(stream.session)
            self.streams.remove(stream)

    # --- the watermark ---------------------------------------------------------------------------

    def publish(self) -> None:
        """Tells the others what it vouches for."""
        own = self.fanout.coverage(self.fanout.sender.cut)
        self.board.coverages[self.name] = encode_coverage(own)

    def advance(self) -> None:
        """Moves the watermark on: with what it knows, which may be old."""
        board, facts = self.board, self.fanout.facts
        others = [decode_coverage(c) for s, c in board.coverages.items() if s != self.name]
        following = advance(
            [self.fanout.coverage(self.fanout.sender.cut), *others],
            nodes={node.object.index for node in facts.nodes.values()},
            fenced=facts.fences.keys(),
            epoch=self.history.unfenced_at,
            scanned=self.fanout.scanned,
            current=board.watermark,
        )
        if following is not None:
            require(following.strict <= following.live, "watermark: strict above live")
            board.watermark = following

    def outgrown(self) -> list[str]:
        """Names of the nodes whose fences may go, compared with what is stored now."""
        stored = self.history.fences
        found = self.fanout.outgrown(self.board.watermark)
        return [fence.node for fence in found if stored.get(fence.node_index) == fence]
