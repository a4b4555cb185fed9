"""Nodes that allocate and release through the real services, and what they saw: a history.

Each node is an agent's allocator: a journal on disk and `GrpcControlPlane`. What they record is the
form that the checker of recorded histories reads.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from deltaplane.errors import DeltaplaneError, Exhausted, Unavailable
from deltaplane.model.addresses import AddressPair, format_address
from nodeagent.addressing import Progress
from nodeagent.blocks import request_id
from nodeagent.choosing import is_available
from nodeagent.cni.netconf import Attachment, PodName
from nodeagent.control import BlockWish, GrpcControlPlane, NodeFacts
from nodeagent.entries import InterfaceRecord, State
from nodeagent.journal import Journal
from nodeagent.pools import requests

T = TypeVar("T")

LINEAGE = b"L" * 16
RETRY_SECONDS = 0.05
MOST_HELD = 6
CRASHES = 0.05
"""Share of operations in whose middle the node's program dies."""

Record = dict[str, object]


class Died(Exception):
    """The node's program has died in the middle of something."""


@dataclass
class Cluster:
    """What the nodes share: the history, and how far each of them is.

    Attributes:
        acked: revision by node.
        history: in the order of completion.
    """

    acked: dict[str, int] = field(default_factory=dict)
    history: list[Record] = field(default_factory=list)
    ended: bool = False

    @property
    def watermark(self) -> int:
        """What every node has acknowledged."""
        return min(self.acked.values(), default=0)


class Allocator:
    """One node."""

    def __init__(
        self, cluster: Cluster, number: int, folder: Path, control: GrpcControlPlane, seed: int
    ) -> None:
        self.facts = NodeFacts(
            name=f"node-{number}",
            uid=f"uid-{number}",
            addresses=AddressPair(ipv4=bytes((198, 19, 0, number + 1))),
            boot_id="boot",
        )
        self.crashes = 0
        self._cluster = cluster
        self._path = folder / f"journal-{number}.db"
        self._journal = Journal(self._path)
        self._control = control
        self._random = random.Random(seed + number)
        self._made = 0
        cluster.acked[self.facts.name] = 0

    async def run(self) -> None:
        """Allocates and releases until the cluster ends; then finishes what it has begun."""
        await self._patiently(lambda: self._control.register_node(self.facts))
        while not self._cluster.ended:
            await self._learn()
            try:
                held = [it for it in self._interfaces() if it.state is State.READY]
                if held and self._random.random() < len(held) / MOST_HELD:
                    await self._release(self._random.choice(held))
                else:
                    await self._allocate()
            except Died:
                await self._recover()
        await self._recover()
        self._journal.close()

    # --- operations ------------------------------------------------------------------------------

    async def _allocate(self) -> None:
        self._made += 1
        handle = f"{self.facts.name}-{self._made}"
        started = time.monotonic()
        try:
            record = await self._begin(handle)
        except Exhausted:
            self._tell("alloc", handle, started, "exhausted")
            return
        except DeltaplaneError:
            self._tell("alloc", handle, started, "error")
            return
        self._perhaps_die(record, started)
        try:
            await self._control.register(record, self.facts)
        except DeltaplaneError:
            # It may be registered, and stays held until that is undone.
            self._tell("alloc", handle, started, "unknown", record)
            await self._release(record)
            return
        self._perhaps_die(record, started)
        self._journal.commit(record.number)
        self._tell("alloc", handle, started, "ok", record)

    async def _release(self, record: InterfaceRecord) -> None:
        started = time.monotonic()
        handle = record.attachment.container_id
        if self._journal.ledger.interfaces[record.number].state is not State.RELEASING:
            self._journal.retire(record.number)
        if self._random.random() < CRASHES:
            self._tell("release", handle, started, "unknown", record)
            raise Died
        revision = await self._patiently(lambda: self._control.release([record], self.facts))
        self._journal.erase(record.number, revision=revision, lineage=LINEAGE, now=time.time())
        self._tell("release", handle, started, "ok", record)

    def _perhaps_die(self, record: InterfaceRecord, started: float) -> None:
        if self._random.random() < CRASHES:
            handle = record.attachment.container_id
            self._tell("alloc", handle, started, "unknown", record)
            raise Died

    async def _begin(self, handle: str) -> InterfaceRecord:
        asked = requests(self._journal.ledger.pools, ())
        for request in asked:
            if not is_available(self._journal.ledger, request):
                await self._claim(request.pools)
        begun = self._journal.begin(
            Attachment(network="net", container_id=handle, ifname="eth0"),
            attempt=handle,
            pod=PodName(namespace="shop", name=handle, uid=""),
            requests=asked,
        )
        return begun.record

    async def _claim(self, pools: tuple[str, ...]) -> None:
        ordinal = self._journal.next_ordinal()
        for pool in pools:
            wish = BlockWish(pool, request_id(pool, ordinal))
            (block,) = await self._control.claim_blocks([wish], self.facts)
            if isinstance(block, DeltaplaneError):
                raise block
            self._journal.add_block(
                ordinal, pool, block.prefix, usable_after=block.usable_after, lineage=LINEAGE
            )

    # --- the life of the program -----------------------------------------------------------------

    async def _recover(self) -> None:
        """A restart: opens the journal, and undoes what was half made."""
        self.crashes += 1
        self._journal.close()
        self._journal = Journal(self._path)
        await self._learn()
        for record in self._interfaces():
            if record.state in (State.ALLOCATING, State.RELEASING):
                while record.number in self._journal.ledger.interfaces:
                    try:
                        await self._release(record)
                    except Died:
                        continue

    async def _learn(self) -> None:
        """A barrier: pools, and how far all are."""
        listing = await self._patiently(self._control.pools)
        self._journal.learn_pools(listing.pools, lineage=LINEAGE, revision=listing.revision)
        self._cluster.acked[self.facts.name] = listing.revision
        mark = self._cluster.watermark
        progress = Progress(lineage=LINEAGE, head=listing.revision, watermark=mark, strict=mark)
        self._journal.observe(progress, frozenset(), time.time())

    def _interfaces(self) -> list[InterfaceRecord]:
        return list(self._journal.ledger.interfaces.values())

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(RETRY_SECONDS)

    def _tell(
        self,
        operation: str,
        handle: str,
        started: float,
        result: str,
        record: InterfaceRecord | None = None,
    ) -> None:
        told: Record = {
            "op": operation,
            "handle": handle,
            "t0": started,
            "t1": time.monotonic(),
            "result": result,
            "node": self.facts.name,
        }
        if record is not None:
            told["ips"] = [format_address(address) for address in record.addresses]
        self._cluster.history.append(told)


def final(held: Mapping[str, str]) -> Record:
    """The last record: who has which address in the end."""
    return {"op": "final", "held": dict(held), "t0": time.monotonic()}
