"""Nodes whose addresses are used again, slicer replicas and a store, in virtual time.

Everything that decides is real: registration and deletion of nodes, facts, fan-out, sender,
receiver, progress, fences, watermark, and the store with its compares and leases. Made up are the
network, the watches, which may be late, and the kernel: what a node maps is what it has applied.
"""

import random
from collections.abc import Sequence
from typing import Any

from deltaplane.model.addresses import Prefix
from deltaplane.store import keys
from services.endpoints.repository.cleaning import Cleaner
from services.endpoints.repository.nodes import Nodes
from tests.sim.reuse_node import SimNode
from tests.sim.reuse_plane import FRESH_SECONDS, STALE_AFTER, Etcd, Slicer, VirtualClock
from tests.sim.violation import Violation

ADDRESSES_PER_BLOCK = (3, 20, 20, 20)
"""By seed. With few of them the writes of a whole tick often cancel out, with many hardly ever."""


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
