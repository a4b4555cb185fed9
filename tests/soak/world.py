"""A small cluster on the deterministic loop: two nodes or more, two replicas of each service.

agent ──network──► ipam, registry ──port──► store
  │                                           │
  └── journal, kernel                         └── checks see every write
"""

import contextlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from deltaplane.errors import DeltaplaneError, Unavailable
from deltaplane.model.addresses import AddressPair
from deltaplane.model.identity import LabelSet
from deltaplane.model.objects import PoolObject
from deltaplane.store import keys
from deltaplane.v1 import ipam_pb2
from nodeagent.addressing import Block
from nodeagent.control import NodeFacts
from nodeagent.entries import InterfaceRecord, State
from services.endpoints.repository.identities import Numbered
from services.ipam.changing import Change
from services.ipam.pools import Pool
from services.ipam.wire import AddressClaim, Claim, pool_from_record
from tests.soak.agent import Agent, Host
from tests.soak.book import Book, Rows
from tests.soak.checks import Checks, block_of_key
from tests.soak.faults import Faults
from tests.soak.flat import Backend, FlatStore
from tests.soak.loop import Loop
from tests.soak.processes import Network, Port, Process
from tests.soak.services import Ipam, Registry, node_of, release_of, request_of

REPLICAS = 2


@dataclass(frozen=True, slots=True)
class Seen:
    """What a node that applies everything knows.

    Attributes:
        revision: of the store.
        holders: key of the endpoint by address, as text.
        pools: with their generations.
        fixed: node UID by the address of a block of one address.
    """

    revision: int
    holders: dict[str, bytes]
    pools: tuple[tuple[PoolObject, int], ...]
    fixed: Mapping[bytes, str]

    def foreign(self, node: NodeFacts) -> frozenset[bytes]:
        """Single addresses that other nodes have claimed."""
        return frozenset(address for address, uid in self.fixed.items() if uid != node.uid)


class World:
    """The cluster. `fork` makes a copy to play with.

    Attributes:
        watermark: what every barrier tells.
    """

    port = Port
    agent = Agent

    def __init__(
        self,
        backend: Backend,
        hosts: list[Host],
        faults: Faults,
        loop: Loop,
        numbered: Mapping[LabelSet, Numbered] = MappingProxyType({}),
    ) -> None:
        self.backend = backend
        self.hosts = hosts
        self.faults = faults
        self.loop = loop
        self.numbered = numbered
        self.watermark = 0
        self.checks = Checks(hosts, self.items)
        backend.on_commit = lambda changes: self.checks.store(changes)  # noqa: PLW0108 - the checks of a fork are others
        self.network = Network(faults, loop)
        self.ipam = [self._ipam() for _ in range(REPLICAS)]
        self.registry = [self._registry() for _ in range(REPLICAS)]
        self.agents = {host.facts.name: self.agent(self, host) for host in hosts}
        self.leftovers = False
        self.journal: Callable[[], Book] = Rows
        self._attempts = 0

    def host(self, name: str) -> Host:
        """A machine by the name of its node."""
        return next(host for host in self.hosts if host.facts.name == name)

    def items(self) -> Mapping[str, Any]:
        """Everything that is stored."""
        return self.backend.items

    def fork(self, kind: "type[World]", faults: Faults, loop: Loop) -> "World":
        """A copy of a world at rest, right or wrong."""
        assert isinstance(self.backend, FlatStore)
        hosts = [host.fork() for host in self.hosts]
        other = kind(self.backend.fork(), hosts, faults, loop, self.numbered)
        other.agents = {host.facts.name: other.agent(other, host, resumed=True) for host in hosts}
        other.watermark = self.watermark
        other.checks = self.checks.fork(hosts, other.items)
        other._attempts = self._attempts
        return other

    # --- what happens ----------------------------------------------------------------------------

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Begins something."""
        self.loop.create_task(work)

    def restart(self, host: Host) -> None:
        """A dead agent's successor."""
        host.ledger = host.book.load()
        successor = self.agent(self, host)
        self.agents[host.facts.name] = successor
        self.start(successor.start())

    def advance(self) -> None:
        """Moves the watermark to what every live node has acknowledged."""
        acked = [
            host.acked
            for host in self.hosts
            if not host.joining
            and self.checks.nodes.get(host.facts.name, ("", 0))[0] == host.facts.uid
        ]
        self.watermark = max(self.watermark, min(acked, default=self.backend.head()))

    async def delete_node(self, name: str) -> None:
        """What `deltaplane node delete` does."""
        self.leftovers = True
        operator = Process("operator", lambda: None)
        for _ in range(3):
            try:
                await self.network.call(
                    operator, self.registry, lambda service: service.nodes.delete(name)
                )
            except Unavailable:
                continue
            return

    async def change_pool(self, change: Change) -> None:
        """What `deltaplane pool …` does."""
        await self._operate(lambda it: it.repository.update_pool(change))

    async def create_pool(self, pool: Pool) -> None:
        """Creates it, or finds it."""
        await self._operate(lambda it: it.repository.create_pool(pool))

    async def delete_pool(self, name: str) -> None:
        """Deletes it, unless it is in use."""
        await self._operate(lambda it: it.repository.delete_pool(name))

    async def _operate(self, work: Callable[[Ipam], Coroutine[Any, Any, object]]) -> None:
        operator = Process("operator", lambda: None)
        with contextlib.suppress(DeltaplaneError):  # people read it
            await self.network.call(operator, self.ipam, work)

    async def replace_node(self, host: Host) -> None:
        """The machine loses its disk; its successor takes the name."""
        await self.delete_node(host.facts.name)
        agent = self.agents[host.facts.name]
        agent.process.alive = False
        host.facts = replace(host.facts, uid=f"{host.facts.uid}+", boot_id="next")
        host.book, host.links, host.view, host.joining = self.journal(), {}, {}, True
        host.acked = 0
        self.restart(host)

    async def rejoin(self, host: Host) -> None:
        """The agent is restarted."""
        await self.agents[host.facts.name].process.turn()
        self.agents[host.facts.name].process.die()

    def settle(self) -> None:
        """Everything goes well from now on: what was begun ends, what is left over goes."""
        self.loop.run(until=self._is_broken)
        self.faults.stop()
        if self.leftovers:
            self.loop.do(self.registry[0].repairer.repair(thorough=False))
        for host in self.hosts:
            if self.checks.nodes.get(host.facts.name, ("", 0))[0] != host.facts.uid:
                self.agents[host.facts.name].process.die()
        self.loop.run(until=self._is_broken)
        for host in self.hosts:
            if not self._is_tidy(host):
                self.start(self._tidy(host))
        self.loop.run(until=self._is_broken)

    def _is_tidy(self, host: Host) -> bool:
        """Whether a comparison would find nothing."""
        name = host.facts.name
        owned = {prefix for prefix, owner in self.checks.owners.items() if owner[0] == name}
        blocks = host.ledger.blocks.values()
        return (
            {block.prefix for block in blocks} == owned
            and not any(block.releasing for block in blocks)
            and not any(it.state is State.RELEASING for it in host.ledger.interfaces.values())
        )

    async def _tidy(self, host: Host) -> None:
        agent = self.agents[host.facts.name]
        await agent.finish()
        await agent.compare()

    def _is_broken(self) -> bool:
        return bool(self.checks.broken)

    # --- calls of agents -------------------------------------------------------------------------

    def attempt(self) -> str:
        """A new attempt."""
        self._attempts += 1
        return f"attempt-{self._attempts}"

    async def register_node(self, agent: Agent) -> None:
        facts = agent.host.facts
        while True:
            try:
                await self.network.call(
                    agent.process, self.registry, lambda it: it.nodes.register(node_of(facts))
                )
            except Unavailable:
                raise
            except DeltaplaneError:
                await self.delete_node(facts.name)  # what people do when they read the refusal
            else:
                return

    async def register(self, agent: Agent, record: InterfaceRecord) -> None:
        request = request_of(record, agent.host.facts)
        (outcome,) = await self.network.call(
            agent.process, self.registry, lambda it: it.registrar.register([request])
        )
        if isinstance(outcome, DeltaplaneError):
            raise outcome

    async def release(self, agent: Agent, record: InterfaceRecord) -> int:
        facts = agent.host.facts
        releases = [release_of(record, facts)]
        revision, _ = await self.network.call(
            agent.process,
            self.registry,
            lambda it: it.endpoints.release(facts.name, facts.uid, releases),
        )
        return revision

    async def claim_block(self, agent: Agent, pool: str, request: str) -> ipam_pb2.Block:
        facts = agent.host.facts
        claim = Claim(pool=pool, node=facts.name, node_uid=facts.uid, request_id=request)
        return await self.network.call(
            agent.process, self.ipam, lambda it: it.repository.claim_block(claim)
        )

    async def claim_address(self, agent: Agent, address: bytes, request: str) -> ipam_pb2.Block:
        facts = agent.host.facts
        claim = AddressClaim(
            address=address, node=facts.name, node_uid=facts.uid, request_id=request
        )
        return await self.network.call(
            agent.process, self.ipam, lambda it: it.repository.claim_address(claim)
        )

    async def release_block(self, agent: Agent, block: Block) -> None:
        uid = agent.host.facts.uid
        owned = await self.blocks_of(agent)
        its = (block.prefix.address, block.prefix.length)
        found = [it for it in owned if (it.prefix.address, it.prefix.length) == its]
        if not found:
            return
        try:
            await self.network.call(
                agent.process,
                self.ipam,
                lambda it: it.repository.release_block(block.prefix, uid, found[0].request_id),
            )
        except Unavailable:
            raise
        except DeltaplaneError:
            pass  # it is somebody else's by now

    async def blocks_of(self, agent: Agent) -> list[ipam_pb2.Block]:
        facts = agent.host.facts
        found, _ = await self.network.call(
            agent.process,
            self.ipam,
            lambda it: it.repository.list_blocks(node=facts.name, pool=""),
        )
        known = self.checks.nodes.get(facts.name, ("", 0))
        return [b for b in found if (b.node_uid, b.node_index) == known]

    def snapshot(self) -> Seen:
        """What the stream says now."""
        holders: dict[str, bytes] = {}
        pools = []
        fixed = {}
        for key, item in self.items().items():
            if key.startswith(keys.ADDRESSES):
                holders[key[len(keys.ADDRESSES) :]] = item.value
            elif key.startswith(keys.POOLS):
                pools.append((pool_object(item), item.mod_revision))
            elif key.startswith(keys.BLOCKS) and key.endswith(("-32", "-128")):
                block = ipam_pb2.Block.FromString(item.value)
                fixed[block_of_key(key).address] = block.node_uid
        return Seen(self.backend.head(), holders, tuple(pools), fixed)

    # --- inside ----------------------------------------------------------------------------------

    def _ipam(self) -> Ipam:
        def died() -> None:
            self.ipam[self.ipam.index(replica)] = self._ipam()

        process = Process("ipam", died)
        replica = Ipam(process, self.port(process, self.backend, self.faults, self.loop))
        return replica

    def _registry(self) -> Registry:
        def died() -> None:
            self.leftovers = True
            self.registry[self.registry.index(replica)] = self._registry()

        process = Process("registry", died)
        port = self.port(process, self.backend, self.faults, self.loop)
        replica = Registry(process, port, self.numbered)
        return replica


def pool_object(item: Any) -> PoolObject:
    """A pool as it travels on the stream."""
    pool = pool_from_record(item).pool
    return PoolObject(
        name=pool.name,
        prefix=pool.prefix,
        block_length=pool.block_length,
        reserved=pool.reserved,
        draining=pool.draining,
    )


def host(name: str, number: int) -> Host:
    """A fresh machine."""
    facts = NodeFacts(
        name=name,
        uid=f"uid-of-{name}",
        addresses=AddressPair(ipv4=bytes((198, 19, 0, number))),
        boot_id="first",
    )
    return Host(facts=facts, book=Rows())
