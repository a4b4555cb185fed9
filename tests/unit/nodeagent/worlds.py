"""Small worlds of stream objects for tests of the agent, and fakes of what surrounds it."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from deltaplane.delta.changes import ObjectKey, Removal, Upsert, incarnation_of
from deltaplane.delta.view import View
from deltaplane.errors import Conflict, DeltaplaneError, Exhausted, Invalid
from deltaplane.model.addresses import AddressPair, Prefix, format_address, parse_address
from deltaplane.model.objects import (
    BlockObject,
    DirectionPolicy,
    DirectionRule,
    EndpointObject,
    NodeObject,
    PeerSet,
    PoolObject,
    StreamObject,
    SubjectPolicy,
)
from nodeagent.control import (
    CLAIMS_AT_ONCE,
    BlockListing,
    BlockWish,
    ClaimedBlock,
    NodeFacts,
    NodeRegistration,
    PoolListing,
    Registration,
    Wanted,
)
from nodeagent.entries import InterfaceRecord
from nodeagent.netlink.inspect import Found
from nodeagent.netlink.links import PodLink
from nodeagent.netlink.message import Link
from nodeagent.routes import Route
from nodeagent.state import LocalInterface
from nodeagent.stream import BarrierReached

OWN = 1
LINEAGE = bytes(range(16))


def pair(ipv4: str | None, ipv6: str | None = None) -> AddressPair:
    return AddressPair(
        ipv4=parse_address(ipv4) if ipv4 else None, ipv6=parse_address(ipv6) if ipv6 else None
    )


def node(index: int, last: int | None = None) -> NodeObject:
    addresses = pair(f"192.0.2.{last or index}")
    return NodeObject(index=index, name=f"n{index}", addresses=addresses)


def pool(name: str, text: str) -> PoolObject:
    return PoolObject(name=name, prefix=Prefix.parse(text), block_length=24)


def block(third: int, owner: int) -> BlockObject:
    return BlockObject(prefix=Prefix.parse(f"10.0.{third}.0/24"), node_index=owner)


def endpoint(index: int, number: int, identity: int, address: str, born: int = 1) -> EndpointObject:
    return EndpointObject(
        node_index=index,
        id=number,
        identity=identity,
        addresses=pair(address),
        incarnation=born,
    )


def open_policy(identity: int) -> SubjectPolicy:
    return SubjectPolicy(identity=identity)


def isolated(identity: int, *sets: bytes) -> SubjectPolicy:
    rules = (DirectionRule(peer_sets=tuple(sorted(sets))),) if sets else ()
    return SubjectPolicy(identity=identity, ingress=DirectionPolicy(isolated=True, rules=rules))


def peer_set(name: bytes, *identities: int) -> PeerSet:
    return PeerSet(set_key=name, identities=tuple(sorted(identities)))


def local(number: int, address: str, identity: int = 0, revision: int = 0) -> LocalInterface:
    return LocalInterface(
        number=number,
        ifindex=100 + number,
        addresses=pair(address),
        pod_mac=bytes((2, 0, 0, 0, 1, number)),
        host_mac=bytes((2, 0, 0, 0, 2, number)),
        identity=identity,
        revision=revision,
    )


class Stream:
    """A view that moves from barrier to barrier as the receiver would move it."""

    def __init__(self) -> None:
        self.view = View()
        self.revision = 10
        self._objects: dict[ObjectKey, StreamObject] = {}

    def show(self, objects: Iterable[StreamObject]) -> frozenset[ObjectKey]:
        """Makes the view hold exactly these objects; what changed."""
        self.revision += 1
        wanted = {(item.kind, item.key): item for item in objects}
        changed = set()
        for key, value in self._objects.items():
            if key not in wanted:
                self.view.apply(
                    Removal(
                        kind=key[0],
                        key=key[1],
                        generation=self.revision,
                        incarnation=incarnation_of(value),
                    )
                )
                changed.add(key)
        for key, value in wanted.items():
            if self._objects.get(key) != value:
                self.view.apply(Upsert(value, self.revision))
                changed.add(key)
        self._objects = wanted
        return frozenset(changed)

    def barrier(
        self, *objects: StreamObject, complete: bool = True, watermark: int = 0
    ) -> BarrierReached:
        changed = self.show(objects)
        return BarrierReached(
            revision=self.revision,
            lineage=LINEAGE,
            view=self.view,
            changed=changed,
            complete=complete,
            head_revision=self.revision,
            head_unix_ns=0,
            watermark=watermark,
            strict_watermark=watermark,
        )


class FakeRoutes:
    """A route table in memory; `refuses` names blocks that the kernel would not take."""

    def __init__(self) -> None:
        self.routes: dict[Prefix, Route] = {}
        self.refuses: set[Prefix] = set()

    def add(self, routes: tuple[Route, ...]) -> None:
        for route in routes:
            if route.prefix in self.refuses:
                raise OSError(101, "Network is unreachable")
            self.routes[route.prefix] = route

    def delete(self, routes: tuple[Route, ...]) -> None:
        for route in routes:
            self.routes.pop(route.prefix, None)

    def dump(self) -> Mapping[Prefix, Route]:
        return dict(self.routes)


class FakeLinks:
    """Pod links in memory.

    Attributes:
        failure: raised by the next creations.
        foreign: names that somebody else has given to links of their own.
        strange: links of an agent with another UID.
    """

    def __init__(self) -> None:
        self.links: dict[str, int] = {}
        self.foreign: set[str] = set()
        self.strange: set[str] = set()
        self.failure: OSError | None = None
        self._next = 100

    def is_home(self, netns: int) -> bool:
        del netns
        return False

    async def create(self, link: PodLink, netns: int) -> int:
        del netns
        if self.failure is not None:
            raise self.failure
        self._next += 1
        self.links[link.host_name] = self._next
        return self._next

    async def remove(self, link: PodLink) -> None:
        if link.host_name not in self.foreign:
            self.links.pop(link.host_name, None)

    async def delete(self, name: str) -> None:
        self.links.pop(name, None)

    async def ours(self, node_uid: str) -> dict[str, int]:
        del node_uid
        return {name: index for name, index in self.links.items() if name not in self.strange}

    async def strangers(self, node_uid: str) -> tuple[str, ...]:
        del node_uid
        return tuple(self.strange & self.links.keys())

    async def inspect(self, link: PodLink, netns: int) -> Found:
        del netns
        index = self.links.get(link.host_name)
        return Found(
            host=None if index is None else Link(index, link.host_name, link.host_mac, 1400, ""),
            pod=None,
            addresses=frozenset(),
            routes=frozenset(),
        )


class FakeControl:
    """The services in memory.

    Attributes:
        failure: raised by every call while set.
        known: pools with their generations.
        free: blocks left, by pool.
        claims: blocks that this node owns, by request.
        registered: interfaces by number.
        refusals: calls that failed.
        revision: of the store; every release raises it by one.
        usable_after: of the next claims.
        taken: single addresses that others have.
        answer: what a registration answers.
        wishes: what a pod asks for, by name.
        may_register: registrations wait for it.
        registering: registrations that wait.
        claiming: claims that were made.
    """

    def __init__(self) -> None:
        self.failure: DeltaplaneError | None = None
        self.known = {
            name: PoolObject(name=name, prefix=Prefix.parse(prefix), block_length=length)
            for name, prefix, length in (
                ("pods4", "10.0.0.0/16", 30),
                ("pods6", "fd00::/96", 126),
            )
        }
        self.free: dict[str, list[Prefix]] = {
            "pods4": [Prefix.parse(f"10.0.{n}.0/30") for n in range(3)],
            "pods6": [Prefix.parse(f"fd00::{n}:0/126") for n in range(3)],
        }
        self.claims: dict[str, ClaimedBlock] = {}
        self.registered: dict[int, InterfaceRecord] = {}
        self.answer = Registration(identity=300, has_pod=True, revision=12)
        self.wishes: dict[str, Wanted] = {}
        self.refusals = self.registering = self.usable_after = 0
        self.revision = 1000
        self.taken: set[bytes] = set()
        self.claiming: list[str] = []
        self.requests: list[tuple[str, ...]] = []
        self.may_register = asyncio.Event()
        self.may_register.set()

    def _check(self) -> None:
        if self.failure is not None:
            self.refusals += 1
            raise self.failure

    async def register_node(self, node: NodeFacts) -> NodeRegistration:
        del node
        self._check()
        return NodeRegistration(index=OWN, revision=1)

    async def pools(self) -> PoolListing:
        self._check()
        return PoolListing(tuple((pool, 1) for pool in self.known.values()), self.revision)

    async def claim_blocks(
        self, wishes: Sequence[BlockWish], node: NodeFacts
    ) -> tuple[ClaimedBlock | DeltaplaneError, ...]:
        del node
        self._check()
        assert 1 <= len(wishes) <= CLAIMS_AT_ONCE
        self.requests.append(tuple(wish.pool for wish in wishes))
        return tuple(map(self.claim, wishes))

    def claim(self, wish: BlockWish) -> ClaimedBlock | DeltaplaneError:
        self.claiming.append(wish.request_id)
        if wish.request_id not in self.claims:
            if not self.free[wish.pool]:
                return Exhausted(f"pool {wish.pool} has no free block")
            self.claims[wish.request_id] = ClaimedBlock(
                prefix=self.free[wish.pool].pop(0),
                pool=wish.pool,
                request_id=wish.request_id,
                usable_after=self.usable_after,
            )
        return self.claims[wish.request_id]

    async def claim_address(self, address: bytes, node: NodeFacts, request_id: str) -> ClaimedBlock:
        del node
        self._check()
        self.claiming.append(request_id)
        pools = [pool for pool in self.known.values() if pool.prefix.contains(address)]
        if not pools:
            raise Invalid("address", f"{format_address(address)} is in no pool")
        if address in self.taken:
            raise Conflict(f"{format_address(address)} is taken")
        self.revision += 1
        return self.claims.setdefault(
            request_id,
            ClaimedBlock(
                prefix=Prefix(address, len(address) * 8),
                pool=pools[0].name,
                request_id=request_id,
                usable_after=self.revision,
                fixed=True,
            ),
        )

    async def release_block(self, prefix: Prefix, node: NodeFacts) -> None:
        del node
        self._check()
        for request, block in list(self.claims.items()):
            if block.prefix == prefix:
                del self.claims[request]
                if not block.fixed:
                    self.free[block.pool].append(prefix)

    async def blocks(self, node: NodeFacts, index: int) -> BlockListing:
        del node, index
        self._check()
        return BlockListing(tuple(self.claims.values()), self.revision)

    async def interfaces(self, node: NodeFacts, index: int) -> tuple[InterfaceRecord, ...]:
        del node, index
        self._check()
        return tuple(self.registered.values())

    async def register(self, record: InterfaceRecord, node: NodeFacts) -> Registration | Wanted:
        del node
        self._check()
        self.registering += 1
        await self.may_register.wait()
        self.registering -= 1
        wanted = self.wishes.get(record.pod.name)
        if wanted is not None and not _satisfies(record, wanted, self.claims.values()):
            return wanted
        self.registered[record.number] = record
        return self.answer

    async def release(self, records: Sequence[InterfaceRecord], node: NodeFacts) -> int:
        del node
        self._check()
        self.revision += 1
        for record in records:
            self.registered.pop(record.number, None)
        return self.revision


def _satisfies(record: InterfaceRecord, wanted: Wanted, blocks: Iterable[ClaimedBlock]) -> bool:
    """Whether an interface has what its pod asks for."""
    owned = list(blocks)
    for family, address in ((4, record.addresses.ipv4), (6, record.addresses.ipv6)):
        pool, fixed = wanted.wish.pool(family), wanted.wish.address(family)
        if fixed is not None and address != fixed:
            return False
        if pool and address is not None and fixed is None:
            inside = [block.pool for block in owned if block.prefix.contains(address)]
            if pool not in inside:
                return False
    return True
