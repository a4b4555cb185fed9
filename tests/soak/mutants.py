"""Wrong systems: each breaks one rule, and the search has to find it.

Those of the store's port leave out what a transaction compares or writes; those of the agent do
things in another order. Nothing is replaced in place: a world takes the mutant instead.
"""

from collections.abc import Sequence
from typing import Any

from deltaplane.errors import DeltaplaneError
from deltaplane.store import keys
from deltaplane.store.port import Absent, Committed, Compare, CreatedAt, Operation, Put, Unchanged
from deltaplane.v1 import ipam_pb2
from nodeagent import entries
from nodeagent import ledger as steps
from nodeagent.entries import InterfaceRecord, State, Step
from nodeagent.pools import Wish, requests
from services.endpoints.repository.cleaning import Cleaner
from tests.soak.agent import SLOTS, Agent, Host
from tests.soak.book import Rows
from tests.soak.flat import Backend
from tests.soak.processes import Port
from tests.soak.services import Ipam, Registry
from tests.soak.world import World


class Forgetful(Port):
    """Leaves out compares of some keys; and operations on others."""

    compares: tuple[str, ...] = ()
    kinds: tuple[type[Compare], ...] = (Absent, Unchanged, CreatedAt)
    operations: tuple[str, ...] = ()
    only_with: str = ""

    async def transact(
        self, compares: Sequence[Compare], operations: Sequence[Operation]
    ) -> Committed:
        applies = not self.only_with or any(
            isinstance(it, Put) and it.key.startswith(self.only_with) for it in operations
        )
        if applies:
            compares = [
                it
                for it in compares
                if not (self.compares and it.key.startswith(self.compares))
                or not isinstance(it, self.kinds)
            ]
            operations = [
                it
                for it in operations
                if not (isinstance(it, Put) and it.key.startswith(self.operations or ("-",)))
            ]
        return await super().transact(compares, operations)


class BlockNotCompared(World):
    """A claim does not compare that the block is free."""

    class port(Forgetful):  # noqa: N801 - the attribute of World
        compares = (keys.BLOCKS,)
        kinds = (Absent,)


class RequestNotCompared(World):
    """A claim does not compare that its request has no block yet."""

    class port(Forgetful):  # noqa: N801
        compares = (keys.BLOCK_REQUESTS,)


class PoolNotCompared(World):
    """A claim does not compare that the pool is as it was read."""

    class port(Forgetful):  # noqa: N801
        compares = (keys.POOLS,)
        only_with = keys.BLOCKS


class NodeNotCompared(World):
    """A registration does not compare that its node is registered."""

    class port(Forgetful):  # noqa: N801
        compares = (keys.NODES, keys.BLOCKS)
        only_with = keys.ENDPOINTS


class ReleaseNotFinal(World):
    """A release leaves no mark for registrations that come late."""

    class port(Forgetful):  # noqa: N801
        operations = (keys.RELEASED_ENDPOINTS,)


class FreedForgotten(World):
    """Nobody remembers that a block was owned: its next owner does not wait."""

    class port(Forgetful):  # noqa: N801
        operations = (keys.FREED_BLOCKS,)


class AnyRelease(World):
    """A release of a block names its node, and not the claim that got it."""

    def _ipam(self) -> Ipam:
        ipam = super()._ipam()
        releaser = ipam.repository._releaser
        release = releaser.release
        releaser.release = lambda prefix, uid, _, *, node: release(prefix, uid, node=node)  # type: ignore[assignment, method-assign, misc]
        return ipam


class BlocksFirst(Cleaner):
    """A removed node's blocks go before its endpoints."""

    async def clean(self, node: str) -> int:
        listing = await self._store.list(keys.BLOCKS)
        found = [
            item.key for item in listing.items if ipam_pb2.Block.FromString(item.value).node == node
        ]
        if found:
            await self._remove_blocks(node, found)
        return await super().clean(node)


class CleanedInWrongOrder(World):
    """A removed node's blocks go before its endpoints."""

    def _registry(self) -> Registry:
        registry = super()._registry()
        registry.nodes._cleaner = BlocksFirst(registry.port)
        return registry


class ErasingFirst(Agent):
    """The journal forgets an interface before the registry does."""

    async def release(self, record: InterfaceRecord) -> None:
        await self._kernel(lambda: self.host.links.pop(record.number, None))
        if record.number in self.host.ledger.interfaces:
            await self._write(
                lambda ledger: steps.erase(ledger, record.number, revision=0, lineage=b"", now=0.0)
            )
        await self._world.release(self, record)


class RegisteringFirst(Agent):
    """The registry hears of an interface before it is in the journal."""

    async def add(self, slot: int, wish: Wish | None = None) -> bool:
        attachment, pod = SLOTS[slot]
        await self._resumed.wait()
        async with self._alone(attachment):
            asked = requests(self.host.ledger.pools, (), wish or Wish())
            try:
                await self.claim(asked)
                begun = steps.begin(
                    self.host.ledger,
                    attachment,
                    attempt=self._world.attempt(),
                    pod=pod,
                    requests=asked,
                )
                await self.register(begun.record)
            except DeltaplaneError:
                return False
            try:
                await self._write(
                    lambda now: (
                        steps.begin(
                            now, attachment, attempt=begun.record.attempt, pod=pod, requests=asked
                        ).step
                    )
                )
            except DeltaplaneError:
                return False
            await self._link(begun.record)
            await self._write(lambda now: steps.commit(now, begun.record.number))
        return True


class NotWaiting(Agent):
    """Addresses are handed out again as soon as they are released."""

    async def barrier(self) -> None:
        before, self._world.watermark = self._world.watermark, self._world.backend.head()
        try:
            await super().barrier()
        finally:
            self._world.watermark = before


class TakingAtOnce(Agent):
    """A block that another node has lost a moment ago is used at once."""

    async def _take(self, ordinal: int, pool: str, block: ipam_pb2.Block) -> None:
        eager = ipam_pb2.Block()
        eager.CopyFrom(block)
        eager.usable_after_revision = 0
        await super()._take(ordinal, pool, eager)


class GivingBackInUse(Agent):
    """A block is given back while an interface is being made in it."""

    async def give_back(self) -> None:
        await self._resumed.wait()
        async with self._claiming:
            ledger = self.host.ledger
            idle = next((b for b in ledger.blocks.values() if b.is_idle(ledger.progress)), None)
            if idle is not None:
                await self.process.turn()
                await self._world.release_block(self, idle)
                await self._write(lambda now: steps.drop_block(now, idle.ordinal))


class NotRetiring(Agent):
    """A restart does not look at half-made interfaces."""

    async def start(self) -> None:
        self._resumed.set()
        await self._patiently(lambda: self._world.register_node(self))
        await self.compare()
        await self.finish()


class NotUndoing(Agent):
    """An ADD that fails leaves what it has begun."""

    async def _undo(self, record: InterfaceRecord) -> None:
        now = self.host.ledger.interfaces.get(record.number)
        if now is not None and now.state is State.READY:
            await super()._undo(record)


class NotComparing(Agent):
    """A restart does not compare its blocks with those it owns."""

    async def compare(self) -> None:
        await self.process.turn()


class LosingWrites(Rows):
    """The journal keeps addresses free that were released."""

    def write(self, step: entries.Step) -> None:
        super().write(
            Step(
                step.ledger,
                tuple(it for it in step.writes if not isinstance(it, entries.PutReleased)),
            )
        )

    def fork(self) -> "LosingWrites":
        return LosingWrites(
            self.number, self.ordinal, self.interfaces, self.blocks, self.released, self.pools
        )


class JournalLoses(World):
    """Memory knows of quarantined addresses, the journal does not."""

    def __init__(self, backend: Backend, hosts: list[Host], *rest: Any) -> None:
        for host in hosts:
            host.book = LosingWrites(**vars(host.book))
        super().__init__(backend, hosts, *rest)


def _with(kind: type[Agent]) -> type[World]:
    return type(kind.__name__, (World,), {"agent": kind, "__doc__": kind.__doc__})


MUTANTS: Sequence[type[World]] = (
    BlockNotCompared,
    RequestNotCompared,
    PoolNotCompared,
    NodeNotCompared,
    ReleaseNotFinal,
    FreedForgotten,
    CleanedInWrongOrder,
    JournalLoses,
    *map(
        _with,
        (
            ErasingFirst,
            RegisteringFirst,
            NotWaiting,
            TakingAtOnce,
            GivingBackInUse,
            NotRetiring,
            NotUndoing,
            NotComparing,
        ),
    ),
)
