"""An agent in virtual time: its process, and the kernel under it. The receiver is real.

What a barrier shows is compared with the oracle when the agent takes it.
"""

from collections.abc import Iterable

from deltaplane.delta.acks import Refusal
from deltaplane.delta.changes import ObjectKey
from deltaplane.delta.digest import BUCKETS, as_bytes, bucket_of
from deltaplane.delta.messages import (
    Ack,
    Barrier,
    BucketReplace,
    ClientMessage,
    DigestRequest,
    Digests,
    Frame,
    Hello,
    Interest,
    ServerMessage,
    SnapshotEnd,
    StreamBroken,
    Welcome,
)
from deltaplane.delta.receiver import BarrierReached, Floor, Receiver
from deltaplane.delta.view import Held
from deltaplane.delta.wire import decode_request, encode_request
from deltaplane.model.objects import DERIVED_KINDS, StreamObject
from tests.decoding import decode_response
from tests.sim.stream_oracle import EVERYTHING, History, Objects
from tests.sim.stream_replica import Replica, Stream
from tests.sim.stream_soundness import check_closure, is_generation_right, is_sound, summed_up
from tests.sim.violation import Violation, require


class Agent:
    """A node: the agent's process, and the kernel under it, which survives the process."""

    def __init__(self, name: str, credit: int, *, is_scoped: bool) -> None:
        self.name, self.credit, self.is_scoped = name, credit, is_scoped
        self.index = 0
        self.uid = ""
        self.registered_at = 0
        self.registered_in = b""
        self.lineage = b""
        self.revision = 0
        self.watermark = 0
        self.receiver: Receiver | None = None
        self.stream: Stream | None = None
        self.repairs = 0
        self._forget_process()

    def _forget_process(self) -> None:
        self.shown: Objects = {}
        self.history: History | None = None  # that of what is shown
        self.kernel: Objects = {}  # what it was led to by what barriers name as changed
        self.corrupted: set[ObjectKey] = set()
        self.misdated: dict[ObjectKey, Held[StreamObject]] = {}  # as spoiled: generation alone
        self.wild = False  # what was corrupted may have led to more
        self.doubting = self.mended = False
        self.mends = False  # a snapshot or repair is there but for its barrier
        self.has_content = False  # this stream has brought more than barriers
        self.doubts = self.buckets = 0
        self.is_whole = False  # the repair is of all it holds
        self.number = 0  # of the last Interest
        self.prefetched: frozenset[int] = frozenset()  # as the last barrier names it
        self.refused: dict[ObjectKey, Refusal] = {}
        self._verified: dict[ObjectKey, tuple[Held[StreamObject], StreamObject]] = {}

    @property
    def node(self) -> int:
        """Whose content it holds, for the oracle."""
        return self.index if self.is_scoped else EVERYTHING

    @property
    def is_spoiled(self) -> bool:
        """Whether its view is, or may be, not what was sent."""
        return bool(self.corrupted or self.wild or self.doubting)

    @property
    def is_mending(self) -> bool:
        """Whether a repair or a snapshot is on its way."""
        receiver = self.receiver
        return self.mends or (
            receiver is not None and bool(receiver._repairs or receiver._snapshot)
        )

    @property
    def wrong(self) -> list[ObjectKey]:
        """What was spoiled, and is not what the last barrier said.

        It may have been spoiled back, or brought again by the stream. The generation of a derived
        object is in no digest: it does nothing until it keeps a change away.
        """
        return [key for key in self.corrupted if self._is_wrong(key)]

    def _is_wrong(self, key: ObjectKey) -> bool:
        if self.receiver is None:
            return False
        view, bucket = self.receiver.view, bucket_of(*key)
        held = view.get(key)
        if (held.value if held else None) != self.shown.get(key):
            return True
        if held and not is_generation_right(held, self.revision, self.history):
            return True
        filed = view._members
        return filed is not None and (
            (key in filed[bucket]) != (held is not None)
            or summed_up(view, filed[bucket]) != as_bytes(view.digest.bucket(bucket))
        )

    def _is_misdated(self, key: ObjectKey) -> bool:
        """Whether a derived object still has the generation that it was spoiled with.

        No digest counts it, so a repair passes it by; the next change of the object is kept away,
        and that is what the digest after it tells.
        """
        kind, name = key
        spoiled = self.misdated.get(key)
        return (
            kind in DERIVED_KINDS
            and spoiled is not None
            and self.receiver is not None
            and self.receiver.view._tables[kind].get(name) is spoiled
        )

    @property
    def spoiled(self) -> str:
        """What is, or may be, wrong in its view, for people."""
        return f"{self.name}: {self.corrupted}, wild {self.wild}, doubting {self.doubting}"

    # --- lives -----------------------------------------------------------------------------------

    def start(self, history: History) -> None:
        """A process: it registers, and of the past it knows what the kernel's map says."""
        self._forget_process()
        self.registered_at, self.registered_in = history.revision, history.lineage
        self.receiver = Receiver(
            node=self.name,
            node_uid=self.uid,
            floor=Floor(
                lineage=self.lineage, revision=self.revision, registered=self.registered_at
            ),
            credit_bytes=self.credit,
        )

    def kill(self) -> None:
        """The process dies."""
        self.leave()
        self.receiver = None

    def reboot(self) -> None:
        """The machine stops; when it starts again there is no kernel state."""
        self.kill()
        self.lineage, self.revision, self.watermark = b"", 0, 0

    def leave(self) -> None:
        """The client's end of the stream goes; the server need not notice."""
        if self.stream is not None:
            self.stream.has_client = False
            self.stream.down.clear()
            self.stream = None

    # --- the stream ------------------------------------------------------------------------------

    def connect(self, replica: Replica, now: float, histories: dict[bytes, History]) -> None:
        """Starts a stream unless the replica says no."""
        if self.receiver is None:
            return
        self.leave()
        self.apply(histories)
        hello = decode_request(encode_request(self.receiver.hello()))
        require(isinstance(hello, Hello), "wire: Hello")
        assert isinstance(hello, Hello)
        require(hello.applied_revision in (0, self.revision), "hello: claims more than is applied")
        # What is wrong in the view is in the Hello, too.
        self.wild |= bool(self.wrong)
        self.doubting = self.mended = self.mends = self.has_content = False
        if replica.fanout.obstacle(hello) is not None:
            return
        session = replica.fanout.admit(hello, lambda: None, now=now)
        self.stream = Stream(replica, self.name, session)
        self.number = 0
        self.is_whole = session.reader.mode.name == "REPAIR"
        self.buckets = 0
        replica.streams.append(self.stream)

    def receive(self, count: int, now: float) -> None:
        """Takes messages that have come."""
        stream = self.stream
        if stream is None or self.receiver is None:
            return
        try:
            while stream.down and count:
                data = stream.down.popleft()
                message = decode_response(data)
                self._note(message)
                self.receiver.receive(message, len(data))
                self._look(message)
                count -= 1
        except StreamBroken as error:
            # It registered in a restored store, and its Hello could only name the lineage before.
            is_new_here = "below" in str(error) and self.lineage not in (
                b"",
                stream.replica.history.lineage,
            )
            require(is_new_here or self.is_spoiled, f"stream: {self.name} broke it:", error)
            self.leave()
            return
        self.answer(now)

    def _note(self, message: ServerMessage) -> None:
        if isinstance(message, BucketReplace):
            self.buckets += 1
        elif isinstance(message, Welcome):
            require(message.node_index == self.index, "welcome: another node's number")

    def _look(self, message: ServerMessage) -> None:
        assert self.receiver is not None
        if self.receiver.doubts > self.doubts:
            require(self.is_spoiled, f"digest: {self.name} doubted though nothing was spoiled")
            self._doubted()
        self.has_content |= isinstance(message, Frame | BucketReplace | SnapshotEnd)
        match message:
            case BucketReplace(last=True):
                bound = max(1, len(self.corrupted))
                if not (self.is_whole or self.wild):
                    require(self.buckets <= bound, "repair:", self.buckets, "buckets for", bound)
                self.repairs += 1
                self.mends = True
            case SnapshotEnd():
                self.mends = True
            case DigestRequest(revision=0):
                self.is_whole = True
            case Barrier() if self.receiver._barrier is message:
                assert self.stream is not None
                self.mended |= self.mends
                self.mends = False
                if not self.has_content:
                    return  # what an earlier stream has brought in advance may still be there
                self.prefetched = self.stream.wanted[message.interest_number]

    def _doubted(self) -> None:
        assert self.receiver is not None
        self.doubts = self.receiver.doubts
        self.doubting, self.is_whole, self.buckets = True, False, 0
        self.mended = self.mends = False

    def audit(self, now: float) -> None:
        """Looks at a part of what it holds."""
        if self.receiver is None:
            return
        try:
            self.receiver.audit()
        except StreamBroken as error:
            require(self.is_spoiled, "audit: drift though nothing was spoiled:", error)
            self.leave()
            return
        if self.receiver.doubts > self.doubts:
            require(self.is_spoiled, "audit: doubted though nothing was spoiled")
            self._doubted()
        self.answer(now)

    def answer(self, now: float) -> None:
        """Says what there is to say."""
        if self.stream is not None and self.receiver is not None:
            for message in self.receiver.poll(now):
                self._say(message)

    def _say(self, message: ClientMessage) -> None:
        assert self.stream is not None
        if isinstance(message, Ack):
            require(message.applied_revision <= self.revision, "ack: not applied")
        if isinstance(message, Digests):
            require(len(message.buckets) == BUCKETS, "digests: not all buckets")
        self.stream.up.append(encode_request(message))

    def want(self, identities: Iterable[int]) -> None:
        """Prefetches."""
        if self.stream is not None and self.receiver is not None:
            self.number += 1
            self._say(Interest(number=self.number, identities=tuple(identities)))

    # --- barriers --------------------------------------------------------------------------------

    def apply(self, histories: dict[bytes, History], refused: Iterable[Refusal] = ()) -> None:
        """Takes the last barrier, which must show what the store had, into the kernel."""
        assert self.receiver is not None
        barrier = self.receiver.take_barrier()
        if barrier is None:
            return
        was_wild = self.wild
        repaired = tuple(self.corrupted) if self.mended else ()
        if self.mended:
            self.corrupted = {key for key in self.corrupted if self._is_misdated(key)}
            self.wild = self.mended = self.doubting = False
            self._verified.clear()
        require(not self.doubting, "doubt: a doubted view is applied")
        require(barrier.complete, "complete: a barrier before a snapshot")
        history = histories[barrier.lineage]
        if barrier.lineage == self.lineage:
            require(barrier.revision >= self.revision, "stale: the kernel would go back")
        require(barrier.revision >= self.registered_at or history.lineage != self.registered_in)
        self._check(barrier, history, repaired, was_wild=was_wild)
        self.lineage, self.revision = barrier.lineage, barrier.revision
        self.history = history
        self.watermark = barrier.watermark
        self.refused = {(r.kind, r.key): r for r in refused}
        self.receiver.applied(barrier.revision, refused=self.refused.values())

    def _check(
        self,
        barrier: BarrierReached,
        history: History,
        repaired: Iterable[ObjectKey],
        *,
        was_wild: bool,
    ) -> None:
        wanted = self.prefetched if self.is_scoped else ()
        expected = history.content_at(self.node, barrier.revision, wanted)
        if not self.wild:
            self._compare(barrier, expected)
        named = self._lead_kernel(barrier).union(repaired)
        if expected is not self.shown:
            named |= expected.keys() | self.shown.keys()
            check_closure(expected, self.node)
        if was_wild:
            named |= self.kernel.keys()
        if not self.wild:
            wrong = [
                key
                for key in named - self.corrupted
                if (have := self.kernel.get(key)) is not (should := expected.get(key))
                and have != should
            ]
            require(not wrong, "changed: does not name", self.name, wrong, was_wild)
        elif self.kernel == expected and is_sound(barrier, expected, history):
            # Nothing has come of it, and the stream has brought again what was lost.
            self.wild = False
        self.shown = expected

    def _lead_kernel(self, barrier: BarrierReached) -> set[ObjectKey]:
        """Does what a kernel is made to do; the keys that are concerned."""
        for key in barrier.changed:
            if (held := barrier.view.get(key)) is None:
                self.kernel.pop(key, None)
            else:
                self.kernel[key] = held.value
        return set(barrier.changed)

    def _compare(self, barrier: BarrierReached, expected: Objects) -> None:
        verified, ignored, count = self._verified, self.corrupted, 0
        for kind, table in barrier.view._tables.items():
            for name, held in table.items():
                key = kind, name
                count += 1
                should = expected.get(key)
                if key in ignored:
                    continue
                seen = verified.get(key)
                if seen is not None and seen[0] is held and seen[1] is should:
                    continue
                if should != held.value:
                    raise Violation(
                        f"prefix: {self.name} at {barrier.revision}: {key}: {held} is not {should}"
                    )
                assert should is not None
                verified[key] = held, should
        if not ignored and count != len(expected):
            present = {(h.value.kind, h.value.key) for h in barrier.view}
            raise Violation(
                f"prefix: {self.name} at {barrier.revision}: without {expected.keys() - present}"
            )
        if ignored:
            for key in expected.keys() - ignored:
                require(barrier.view.get(key), "prefix: without", key)
