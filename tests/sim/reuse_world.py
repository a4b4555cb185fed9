"""Nodes whose addresses are used again, slicer replicas and a store, in virtual time.

Everything that decides is real: registration and deletion of nodes, facts, fan-out, sender,
receiver, progress, fences, watermark, and the store with its compares and leases. Made up are the
network, the watches, which may be late, and the kernel: what a node maps is what it has applied.
"""

import random
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from deltaplane import wire
from deltaplane.delta.messages import Hello, StreamBroken
from deltaplane.delta.receiver import Floor, Receiver
from deltaplane.delta.wire import decode_request, decode_response, encode_request
from deltaplane.errors import NotFound, Unavailable
from deltaplane.model.addresses import AddressPair, Prefix
from deltaplane.store import keys
from deltaplane.store.memory import MemoryStore
from deltaplane.store.port import Delete, Event, Put
from deltaplane.v1 import common_pb2, ipam_pb2, registry_pb2
from services.endpoints.records import Node as Registration
from services.endpoints.repository.cleaning import Cleaner
from services.endpoints.repository.nodes import Nodes
from services.slicer.fanout import Fanout, Session
from services.slicer.feed import Feed
from services.slicer.progress import Progress
from services.slicer.repository import LEASE_SECONDS, Replica, Repository
from services.slicer.wire import record_from_store

STALE_AFTER = 20.0
FRESH_SECONDS = 1.5
"""An agent is up to date when it has acknowledged all that was written up to so long ago."""

KNOWN_SECONDS = 1.5
"""… and when that lasts for so long: its replica has to tell the others."""

CONTACT_SECONDS = 4.0
"""A replica counts again when it has been in contact with the store for so long."""

SERVER_KEEPALIVE_SECONDS = 12.0
CLIENT_KEEPALIVE_SECONDS = 6.0
ADDRESSES_PER_BLOCK = (3, 20, 20, 20)
"""By seed. With few of them the writes of a whole tick often cancel out, with many hardly ever."""


class Violation(AssertionError):
    """An address came back too early."""


class VirtualClock:
    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def wall_ns(self) -> int:
        return int(self.time * 1e9)


class Etcd(MemoryStore):
    """The store, and when it had which revision."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self._times: list[float] = []
        self._revisions: list[int] = []
        self._time = clock

    @property
    def revision(self) -> int:
        return self._revision

    def note(self) -> None:
        self._times.append(self._time.now())
        self._revisions.append(self._revision)

    def revision_at(self, time: float) -> int:
        position = bisect_right(self._times, time)
        return self._revisions[position - 1] if position else 0

    def forget_before(self, time: float) -> None:
        position = max(0, bisect_right(self._times, time) - 1)
        del self._times[:position], self._revisions[:position]

    def written(self, prefix: str, after: int, through: int) -> list[Event]:
        self._expire_leases()
        start = bisect_right(self._log, after, key=lambda event: event.mod_revision)
        return [
            event
            for event in self._log[start:]
            if event.mod_revision <= through and event.key.startswith(prefix)
        ]


class Line:
    """A replica's way to the store."""

    def __init__(self, store: Etcd) -> None:
        self._store = store
        self.up = True

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)

        async def guarded(*arguments: Any, **options: Any) -> Any:
            if not self.up:
                raise Unavailable("cut off")
            return await call(*arguments, **options)

        return guarded


@dataclass(eq=False)
class Slicer:
    """A replica. Times are those until which something is wrong with it."""

    name: str
    store: Etcd
    clock: VirtualClock
    line: Line = field(init=False)
    fanout: Fanout = field(init=False)
    progress: Progress = field(init=False)
    stalled_until: float = 0.0
    cut_until: float = 0.0
    state_late_until: float = 0.0
    progress_late_until: float = 0.0
    contact_since: float = 0.0
    lives: int = 0

    @property
    def runs(self) -> bool:
        return self.clock.now() >= self.stalled_until

    @property
    def in_contact(self) -> bool:
        """For long enough to have told the store of its agents, and to know the store's writes."""
        return self.clock.now() >= self.contact_since + CONTACT_SECONDS

    async def start(self) -> None:
        self.lives += 1
        self.line = Line(self.store)
        self.streams: list[Stream] = []
        self.repository = Repository(self.line)
        self._replica = Replica(f"{self.name}-{self.lives}", "")
        self._feed = Feed(self.repository, self._replica, self.clock)
        self.fanout = await self._feed.start()
        self._lease_at = float("-inf")
        self.progress = Progress(
            self.repository,
            self.fanout,
            self._replica.server_id,
            self.clock,
            lease=lambda: self._feed.lease,
            stale_after=STALE_AFTER,
        )
        await self._relist_progress()
        self.contact_since = self.clock.now()

    async def _relist_progress(self) -> None:
        items, revision = await self.repository.progress()
        self.progress.take_listing(items, revision)

    async def run(self) -> None:
        """What the loops of the process do until the next moment."""
        now = self.clock.now()
        if not self.runs:
            self.contact_since = now
            return
        self.line.up = now >= self.cut_until
        if not self.line.up or now < max(self.state_late_until, self.progress_late_until):
            self.contact_since = now
        if self.line.up:
            await self._watch(now)
        if self.fanout.cut_at() is not None:
            self.fanout.cut(now=now, wall_ns=self.clock.wall_ns())
        for stream in self.streams.copy():
            stream.serve(now)
        try:
            await self._keep_lease(now)
            await self.progress.step()
        except (Unavailable, NotFound):
            self.progress._published = None

    async def _watch(self, now: float) -> None:
        store = self.store
        if now >= self.state_late_until:
            if self.fanout.scanned + 1 < store._compacted:
                listing = await self.repository.listing()
                self.fanout.relist(listing.records, listing.revision, wall_ns=self.clock.wall_ns())
            events = store.written(keys.STATE, self.fanout.scanned, store.revision)
            records = tuple(record_from_store(event) for event in events)
            # A watch delivers whole revisions, and only then that nothing else happened.
            if records:
                self.fanout.take(records, records[-1].generation, wall_ns=self.clock.wall_ns())
            self.fanout.take((), store.revision, wall_ns=self.clock.wall_ns())
            self.fanout.quarantine.free(self.fanout.sender.passed()[0])
        if now >= self.progress_late_until:
            if self.progress.board.revision + 1 < store._compacted:
                await self._relist_progress()
            seen = store.written(keys.PROGRESS, self.progress.board.revision, store.revision)
            self.progress.take(seen, store.revision)

    async def _keep_lease(self, now: float) -> None:
        if now < self._lease_at + LEASE_SECONDS / 4:
            return
        self._lease_at = now
        feed = self._feed
        if not feed.lease or not await self.repository.keep_alive(feed.lease):
            feed.lease = 0
            feed.lease = await self.repository.announce(self._replica)

    def is_fresh(self, session: Session) -> bool:
        """Whether its agent has acknowledged all but the very last writes."""
        effective = self.fanout.sender.effective(session.reader)
        return effective >= self.store.revision_at(self.clock.now() - FRESH_SECONDS)


@dataclass(eq=False)
class Stream:
    """A stream and what the network holds of it. heard_at: by the client."""

    slicer: Slicer
    node: "SimNode"
    session: Session
    heard_at: float
    down: deque[bytes] = field(default_factory=deque)
    up: deque[bytes] = field(default_factory=deque)
    broken: bool = False
    lost_at: float | None = None

    def serve(self, now: float) -> None:
        """The server's end."""
        if self.session.superseded or self.broken:
            self.end()
            return
        connected = self.node.stream is self and self.node.is_reachable
        if connected:
            self.lost_at = None
        elif self.lost_at is None:
            self.lost_at = now
        elif now > self.lost_at + SERVER_KEEPALIVE_SECONDS:
            self.end()
            return
        fanout = self.slicer.fanout
        # What was sent before the line went dead may still come.
        while self.up:
            try:
                fanout.receive(self.session, decode_request(self.up.popleft()), now=now)
            except StreamBroken:
                self.end()
                return
        if connected:
            self.down.extend(fanout.sender.poll(self.session.reader, now))

    def end(self) -> None:
        self.broken = True
        self.slicer.fanout.leave(self.session)
        if self in self.slicer.streams:
            self.slicer.streams.remove(self)


class SimNode:
    """A machine: kernel, agent, journal. Times are those until which something is wrong with it."""

    def __init__(self, number: int, world: "Etcd", nodes: Nodes, clock: VirtualClock) -> None:
        self.name, self.uid = f"node-{number}", f"uid-{number}"
        self.store, self.nodes, self.clock = world, nodes, clock
        self.strict = number % 2 == 0
        self.addresses_per_block = 0
        self.index = 0
        self.mapped: dict[bytes, tuple[int, int]] = {}
        self.kernel_revision = 0
        self.kernel_lineage = b""
        self.current_at = float("-inf")
        self.fresh_since = 0.0
        self.excused = False
        self.cut_until = self.slow_until = self.down_until = 0.0
        self.stream: Stream | None = None
        self.blocks: dict[Prefix, None] = {}
        self.held: dict[bytes, int] = {}
        self.cooling: dict[bytes, int] = {}
        self.next_id = 1
        self.watermarks = (0, 0)
        self.receiver: Receiver | None = None

    @property
    def is_reachable(self) -> bool:
        return self.clock.now() >= max(self.cut_until, self.down_until)

    @property
    def is_registered(self) -> bool:
        return self.index != 0

    async def start(self) -> None:
        """The agent starts: it registers, and knows what the pinned map says."""
        node = Registration(
            name=self.name, uid=self.uid, addresses=AddressPair(ipv4=bytes((198, 19, 0, 1)))
        )
        stored, revision = await self.nodes.register(node)
        self.index = stored.index
        self.stream = None
        self.watermarks = (0, 0)
        self.receiver = Receiver(
            node=self.name,
            node_uid=self.uid,
            floor=Floor(
                lineage=self.kernel_lineage, revision=self.kernel_revision, registered=revision
            ),
        )

    def kill(self) -> None:
        self.receiver = None
        if self.stream is not None:
            self.stream.broken = True
            self.stream = None

    def reboot(self) -> None:
        self.kill()
        self.mapped, self.kernel_revision, self.kernel_lineage = {}, 0, b""

    async def delete(self) -> None:
        """The operator removes the node; what its kernel holds stays as it is."""
        await self.nodes.delete(self.name)
        self.index = 0
        self.excused = True
        self.current_at = float("-inf")  # if it comes back, then as another node
        self.kill()
        self.blocks.clear()
        self.held.clear()
        self.cooling.clear()

    # --- the stream ------------------------------------------------------------------------------

    def connect(self, slicer: Slicer) -> None:
        receiver = self.receiver
        if receiver is None or not slicer.runs or not self.is_reachable:
            return
        self.apply()
        hello = decode_request(encode_request(receiver.hello()))
        assert isinstance(hello, Hello)
        if slicer.fanout.obstacle(hello) is not None:
            return
        now = self.clock.now()
        session = slicer.fanout.admit(hello, lambda: None, now=now)
        self.stream = Stream(slicer, self, session, now)
        slicer.streams.append(self.stream)

    def leave(self, *, politely: bool) -> None:
        if self.stream is not None:
            self.stream.broken = politely
            self.stream = None

    def run(self) -> None:
        now, stream, receiver = self.clock.now(), self.stream, self.receiver
        if stream is None or receiver is None or now < self.down_until:
            return
        if stream.broken or now > stream.heard_at + CLIENT_KEEPALIVE_SECONDS:
            self.leave(politely=False)
            return
        if not self.is_reachable:
            return
        try:
            while stream.down:
                data = stream.down.popleft()
                receiver.receive(decode_response(data), len(data))
                stream.heard_at = now
        except StreamBroken:
            self.leave(politely=True)
            return
        self.apply()
        stream.up.extend(encode_request(message) for message in receiver.poll(now))

    def apply(self) -> None:
        assert self.receiver is not None
        if self.clock.now() < self.slow_until and self.stream is not None:
            return
        barrier = self.receiver.take_barrier()
        if barrier is None:
            return
        self.mapped = {
            address: (held.value.node_index, held.value.id)
            for held in barrier.view.endpoints.values()
            for address in held.value.addresses
        }
        self.kernel_revision, self.kernel_lineage = barrier.revision, barrier.lineage
        self.watermarks = (barrier.watermark, barrier.strict_watermark)
        self.receiver.applied(barrier.revision)
        if self.is_registered:
            self.excused = False

    def note_whether_current(self, fenced: set[str]) -> None:
        """A node counts once it is live: from the moment that its fence is gone."""
        stream, now = self.stream, self.clock.now()
        if not (
            stream is not None
            and keys.fence(self.name) not in fenced
            and not stream.broken
            and self.is_reachable
            and stream.slicer.in_contact
            and stream.session.reader.node_index == self.index
            and stream.slicer.is_fresh(stream.session)
        ):
            self.fresh_since = now
        elif now >= self.fresh_since + KNOWN_SECONDS:
            self.current_at = now

    # --- addresses -------------------------------------------------------------------------------

    async def claim(self, prefix: Prefix) -> None:
        """A block that was owned before is usable once its loss is known everywhere."""
        freed = await self.store.get(keys.freed_block(prefix))
        record = ipam_pb2.Block(
            prefix=wire.prefix_to_proto(prefix),
            pool="pool",
            node=self.name,
            node_uid=self.uid,
            node_index=self.index,
            request_id="1",
        )
        await self.store.transact(
            [],
            [
                Put(keys.block(prefix), record.SerializeToString()),
                Delete(keys.freed_block(prefix)),
            ],
        )
        self.blocks[prefix] = None
        usable_after = freed.mod_revision if freed else 0
        for number in range(self.addresses_per_block):
            self.cooling[prefix.address[:3] + bytes((number,))] = usable_after

    def free(self) -> list[bytes]:
        """The rule: an address is free when the watermark has reached its release revision."""
        watermark = self.watermarks[self.strict]
        return [address for address, released in self.cooling.items() if released <= watermark]

    async def hold(self, address: bytes) -> None:
        number, self.next_id = self.next_id, self.next_id + 1
        record = registry_pb2.Endpoint(
            node=self.name,
            node_index=self.index,
            id=number,
            namespace="shop",
            pod=f"pod-{number}",
            addresses=common_pb2.AddressPair(ipv4=address),
            identity=300,
            state=registry_pb2.Endpoint.STATE_READY,
        )
        key = self._key(number)
        await self.store.transact(
            [],
            [
                Put(key, record.SerializeToString()),
                Put(keys.node_endpoint(self.name, number), key.encode()),
                Put(keys.address(address), key.encode()),
            ],
        )
        del self.cooling[address]
        self.held[address] = number

    async def release(self, address: bytes, *, silent: bool) -> None:
        """silent: the answer is a later revision, as when an earlier call had done it."""
        number = self.held.pop(address)
        committed = await self.store.transact(
            [],
            [
                Delete(self._key(number)),
                Delete(keys.node_endpoint(self.name, number)),
                Delete(keys.address(address)),
            ],
        )
        revision = committed.revision
        if silent:
            put = Put(keys.ROOT + "other", str(number).encode())
            revision = (await self.store.transact([], [put])).revision
        self.cooling[address] = revision

    def _key(self, number: int) -> str:
        return keys.endpoint("shop", f"pod-{number}", self.name, number)


class World:
    """All of it; a seed decides what happens."""

    def __init__(self, seed: int, *, nodes: int = 5, slicers: int = 3) -> None:
        self.random = random.Random(seed)
        self.clock = VirtualClock()
        self.store = Etcd(self.clock)
        self.cycles = 0
        self.fences_seen = 0
        self.superseded: set[tuple[bytes, tuple[int, int]]] = set()
        self._last_owner: dict[bytes, tuple[int, int]] = {}
        registry = Nodes(self.store, Cleaner(self.store))
        self.nodes = [SimNode(n, self.store, registry, self.clock) for n in range(1, nodes + 1)]
        for node in self.nodes:
            node.addresses_per_block = ADDRESSES_PER_BLOCK[seed % len(ADDRESSES_PER_BLOCK)]
        self.slicers = [Slicer(f"slicer-{n}", self.store, self.clock) for n in range(slicers)]
        self.unowned = [Prefix(bytes((10, 244, n, 0)), 26) for n in range(nodes)]
        self._watermark = (0, 0)

    async def start(self) -> None:
        for node in self.nodes:
            await node.start()
            await node.claim(self.unowned.pop())
        for slicer in self.slicers:
            await slicer.start()

    # --- what happens ----------------------------------------------------------------------------

    async def tick(self, seconds: float) -> None:
        """Everybody runs once; then time passes."""
        self.store.note()
        order: list[Slicer | SimNode] = [*self.slicers, *self.nodes]
        self.random.shuffle(order)
        for one in order:
            if isinstance(one, Slicer):
                await one.run()
            else:
                one.run()
        fenced = await self.fenced()
        for node in self.nodes:
            node.note_whether_current(fenced)
            self.check_mapped(node, fenced)
        self.check_watermark()
        self.clock.time += seconds

    async def use(self) -> None:
        """Pods come and go on all nodes that work."""
        for node in self.nodes:
            if node.receiver is None or not node.is_registered:
                continue
            for address in node.free():
                if self.random.random() < 0.5:
                    await self.check_reuse(node, address)
                    await node.hold(address)
                    if (before := self._last_owner.get(address)) is not None:
                        self.superseded.add((address, before))
                    self._last_owner[address] = node.index, node.held[address]
                    self.cycles += 1
            for address in list(node.held):
                if self.random.random() < 0.3:
                    await node.release(address, silent=self.random.random() < 0.1)

    async def fenced(self) -> set[str]:
        return {item.key for item in (await self.store.list(keys.FENCES)).items}

    async def check_reuse(self, owner: SimNode, address: bytes) -> None:
        """Nobody who counts may map an address that is handed out."""
        fenced = await self.fenced()
        for node in self.nodes:
            if address not in node.mapped or node.excused:
                continue
            what = f"{node.name} maps {address.hex()} to {node.mapped[address]}"
            if owner.strict:
                raise Violation(f"{what}, which {owner.name} uses again, strictly")
            if keys.fence(node.name) not in fenced:
                raise Violation(f"{what}, which {owner.name} uses again, and is not fenced")
            ago = self.clock.now() - node.current_at
            if ago < STALE_AFTER - FRESH_SECONDS:
                raise Violation(
                    f"{what}, which {owner.name} uses again; up to date {ago:.1f} s ago"
                )
            self.fences_seen += 1

    def check_mapped(self, node: SimNode, fenced: set[str]) -> None:
        """Nobody who counts goes back to an owner from before a reuse."""
        if node.excused or keys.fence(node.name) in fenced:
            return
        for address, owner in node.mapped.items():
            if (address, owner) in self.superseded:
                raise Violation(f"{node.name} maps {address.hex()} to {owner}, long gone")

    def check_watermark(self) -> None:
        found = [slicer.progress.board.watermark for slicer in self.slicers]
        best = max((w.live, w.strict) for w in found)
        if any(w.strict > w.live for w in found) or best < self._watermark:
            raise Violation(f"the watermark went from {self._watermark} to {best}")
        self._watermark = best if best[0] >= self._watermark[0] else self._watermark

    async def compact(self) -> None:
        self.store.compact(max(1, self.store.revision_at(self.clock.now() - 15.0)))
        self.store.forget_before(self.clock.now() - 30.0)

    def choice(self, items: Sequence[Any]) -> Any:
        return self.random.choice(items)
