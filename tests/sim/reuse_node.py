"""The nodes of `reuse_world`: what an agent takes, maps, holds and releases."""

from collections import deque
from dataclasses import dataclass, field

from deltaplane import wire
from deltaplane.delta.messages import Hello, StreamBroken
from deltaplane.delta.receiver import Floor, Receiver
from deltaplane.delta.wire import decode_request, encode_request
from deltaplane.model.addresses import AddressPair, Prefix
from deltaplane.store import keys
from deltaplane.store.port import Delete, Put
from deltaplane.v1 import common_pb2, ipam_pb2, registry_pb2
from services.endpoints.records import Node as Registration
from services.endpoints.repository.nodes import Nodes
from services.slicer.fanout import Session
from tests.decoding import decode_response
from tests.sim.reuse_plane import Etcd, Slicer, VirtualClock

KNOWN_SECONDS = 1.5
"""An agent is known to be up to date when it has been so for this long: its replica has to tell the
others."""

SERVER_KEEPALIVE_SECONDS = 12.0
CLIENT_KEEPALIVE_SECONDS = 6.0


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
