"""The node's side: ADD, DEL, claims and restarts over the pure ledger, in the agent's order.

The order of writes is the one of `nodeagent.interfaces` and docs/design/addresses.md. Every await
is a place where others run, and nearly all are places where the agent may die.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from deltaplane.errors import Conflict, DeltaplaneError, Exhausted, NotFound, Refused, Unavailable
from deltaplane.model.addresses import Prefix
from deltaplane.v1 import ipam_pb2
from nodeagent import ledger as steps
from nodeagent.addressing import Block, Progress
from nodeagent.blocks import request_id
from nodeagent.choosing import choose
from nodeagent.cni.netconf import Attachment, PodName
from nodeagent.control import NodeFacts
from nodeagent.entries import InterfaceRecord, Ledger, State, Step
from nodeagent.pools import Request, Wish, requests
from tests.soak.book import Book, Rows
from tests.soak.faults import Fate, Point
from tests.soak.processes import Crashed, Process

if TYPE_CHECKING:
    from tests.soak.world import World

T = TypeVar("T")

LINEAGE = bytes(15) + b"\x01"

SLOTS = tuple(
    (
        Attachment(network="pods", container_id=f"container-{number}", ifname="eth0"),
        PodName(namespace="shop", name=f"pod-{number}", uid=f"uid-{number}"),
    )
    for number in range(10)
)
"""Pods that tests talk about by number."""


@dataclass
class Host:
    """A machine: what is left of it when its agent dies.

    Attributes:
        facts: how it registers.
        book: its journal.
        ledger: the ledger of the running agent, or of the last one.
        links: addresses by endpoint number, as the kernel has them.
        view: who has which address, as its data path knows it.
        acked: revision that it has acknowledged; 0: none.
        joining: registered, but not live yet.
    """

    facts: NodeFacts
    book: Book
    ledger: Ledger = field(default_factory=Ledger)
    links: dict[int, frozenset[bytes]] = field(default_factory=dict)
    view: dict[str, bytes] = field(default_factory=dict)
    acked: int = 0
    joining: bool = True

    def fork(self) -> "Host":
        """A copy for a forked world."""
        assert isinstance(self.book, Rows)
        return Host(
            self.facts,
            self.book.fork(),
            self.ledger,
            dict(self.links),
            self.view,
            self.acked,
            self.joining,
        )


class Agent:
    """One life of an agent. It serves calls once it has looked at what the last one left."""

    def __init__(self, world: "World", host: Host, *, resumed: bool = False) -> None:
        self.host = host
        self.process = Process(host.facts.name, self._died)
        self._world = world
        self._turns: dict[Attachment, asyncio.Lock] = {}
        self._claiming = asyncio.Lock()
        self._resumed = asyncio.Event()
        if resumed:
            self._resumed.set()

    # --- ADD and DEL -----------------------------------------------------------------------------

    async def add(self, slot: int, wish: Wish | None = None) -> bool:
        """Whether the pod got its interface."""
        attachment, pod = SLOTS[slot]
        await self._resumed.wait()
        async with self._alone(attachment):
            try:
                record = await self._begin(attachment, pod, wish or Wish())
            except DeltaplaneError:
                return False
            try:
                await self._link(record)
                await self.register(record)
                await self._write(lambda ledger: steps.commit(ledger, record.number))
            except DeltaplaneError:
                await self._undo(record)
                return False
        return True

    async def delete(self, slot: int) -> None:
        """Removes a pod's interface; what cannot be done now follows later."""
        attachment, _ = SLOTS[slot]
        await self._resumed.wait()
        async with self._alone(attachment):
            record = self.host.ledger.find(attachment)
            if record is not None:
                await self._undo(record)

    async def _undo(self, record: InterfaceRecord) -> None:
        await self._write(lambda ledger: steps.retire(ledger, record.number))
        try:
            await self.release(record)
        except DeltaplaneError:
            self._world.loop.create_task(self._release_later(record))

    async def _release_later(self, record: InterfaceRecord) -> None:
        while record.number in self.host.ledger.interfaces:
            await self._pause()
            try:
                await self.release(record)
            except Unavailable:
                continue

    async def release(self, record: InterfaceRecord) -> None:
        """Undoes a RELEASING interface; may be repeated."""
        await self._kernel(lambda: self.host.links.pop(record.number, None))
        revision, lineage = 0, b""
        try:
            revision = await self._world.release(self, record)
            lineage = LINEAGE
        except (Conflict, NotFound, Refused):
            pass  # not registered any more: what it had went with the node
        if record.number in self.host.ledger.interfaces:
            await self._write(
                lambda ledger: (
                    steps.erase(ledger, record.number, revision=revision, lineage=lineage, now=0.0)
                    if record.number in ledger.interfaces
                    else Step(ledger)
                )
            )

    async def register(self, record: InterfaceRecord) -> None:
        """Tells the registry."""
        await self._world.register(self, record)

    async def _link(self, record: InterfaceRecord) -> None:
        addresses = frozenset(record.addresses)
        await self._kernel(lambda: self.host.links.__setitem__(record.number, addresses))

    async def _begin(self, attachment: Attachment, pod: PodName, wish: Wish) -> InterfaceRecord:
        asked = requests(self.host.ledger.pools, (), wish)
        for _ in range(2):
            try:
                return await self._open(attachment, pod, asked)
            except Exhausted:
                await self.claim(asked)
        return await self._open(attachment, pod, asked)

    async def _open(
        self, attachment: Attachment, pod: PodName, asked: Iterable[Request]
    ) -> InterfaceRecord:
        attempt = self._world.attempt()
        opened: list[InterfaceRecord] = []

        def step(ledger: Ledger) -> Step:
            begun = steps.begin(ledger, attachment, attempt=attempt, pod=pod, requests=asked)
            opened.append(begun.record)
            return begun.step

        await self._write(step)
        return opened[0]

    # --- blocks ----------------------------------------------------------------------------------

    async def claim(self, asked: Iterable[Request]) -> None:
        """Claims a block for each request that no block can serve now."""
        async with self._claiming:
            for request in asked:
                if not self._can_serve(request):
                    await self._claim(request)

    def _can_serve(self, request: Request) -> bool:
        try:
            choose(self.host.ledger, request)
        except DeltaplaneError:
            return False
        return True

    async def _claim(self, request: Request) -> None:
        refusal: DeltaplaneError | None = None
        ordinal = self.host.ledger.last_ordinal + 1
        if request.address is not None:
            name = request_id(request.address.hex(), ordinal)
            block = await self._world.claim_address(self, request.address, name)
            await self._take(ordinal, block.pool, block)
            return
        for pool in request.pools:
            try:
                block = await self._world.claim_block(self, pool, request_id(pool, ordinal))
            except (Exhausted, Refused, NotFound) as error:
                refusal = error
                continue
            await self._take(ordinal, pool, block)
            return
        if refusal is not None:
            raise refusal

    async def _take(self, ordinal: int, pool: str, block: ipam_pb2.Block) -> None:
        await self._write(
            lambda ledger: steps.add_block(
                ledger,
                ordinal,
                pool,
                Prefix(block.prefix.address, block.prefix.length),
                fixed=block.fixed,
                usable_after=block.usable_after_revision,
                lineage=LINEAGE,
            )
        )

    async def give_back(self) -> None:
        """Gives back a block that holds nothing and waits for nothing, if there is one."""
        await self._resumed.wait()
        async with self._claiming:
            ledger = self.host.ledger
            idle = next((b for b in ledger.blocks.values() if b.is_idle(ledger.progress)), None)
            if idle is None:
                return
            try:
                await self._write(lambda now: steps.release_block(now, idle.ordinal))
            except Conflict:
                return  # an ADD was faster
            await self._give_back(idle)

    async def _give_back(self, block: Block) -> None:
        await self._patiently(lambda: self._world.release_block(self, block))
        await self._write(lambda ledger: steps.drop_block(ledger, block.ordinal))

    # --- the life of the agent -------------------------------------------------------------------

    async def start(self) -> None:
        """Finishes what the last life began, registers the node, compares blocks."""
        for record in list(self.host.ledger.interfaces.values()):
            if record.state is State.ALLOCATING:
                await self._write(partial(steps.retire, number=record.number))
        for number in list(self.host.links):
            known = self.host.ledger.interfaces.get(number)
            if known is None or known.state is State.LOST:
                self.host.links.pop(number)
        self._resumed.set()
        await self._patiently(lambda: self._world.register_node(self))
        await self.compare()
        await self.finish()
        for record in list(self.host.ledger.interfaces.values()):
            await self._register_again(record)

    async def compare(self) -> None:
        """Makes the journal's blocks those that the node owns."""
        async with self._claiming:
            owned = await self._patiently(lambda: self._world.blocks_of(self))
            mine = {Prefix(b.prefix.address, b.prefix.length): b for b in owned}
            for block in list(self.host.ledger.blocks.values()):
                if block.prefix not in mine:
                    await self._drop(block)
                elif block.releasing:
                    await self._give_back(block)
                    mine.pop(block.prefix)
            known = {block.prefix for block in self.host.ledger.blocks.values()}
            for prefix, found in mine.items():
                if prefix not in known:
                    await self._take(self.host.ledger.last_ordinal + 1, found.pool, found)

            await self._close_strays()

    async def _drop(self, block: Block) -> None:
        await self._write(lambda ledger: steps.drop_block(ledger, block.ordinal))

    async def _close_strays(self) -> None:
        """Closes what has an address of no block; the last life may have died before it did."""
        for number in steps.strays(self.host.ledger):
            record = self.host.ledger.interfaces.get(number)
            if record is not None and record.state is State.READY:
                await self._write(partial(steps.lose, number=number))
                self.host.links.pop(number, None)

    async def finish(self) -> None:
        """Finishes postponed releases."""
        for record in list(self.host.ledger.interfaces.values()):
            if record.state is State.RELEASING:
                async with self._alone(record.attachment):
                    if record.number in self.host.ledger.interfaces:
                        await self._patiently(partial(self.release, record))

    async def _register_again(self, record: InterfaceRecord) -> None:
        async with self._alone(record.attachment):
            now = self.host.ledger.interfaces.get(record.number)
            if now is not None and now.state is State.READY:
                with contextlib.suppress(DeltaplaneError):
                    await self._patiently(partial(self.register, record))

    async def barrier(self) -> None:
        """Applies all that the store has now, and acknowledges it."""
        await self._resumed.wait()
        await self.process.turn()
        seen = self._world.snapshot()
        self.host.view = seen.holders
        await self._write(
            lambda ledger: steps.learn_pools(
                ledger, seen.pools, lineage=LINEAGE, revision=seen.revision
            )
        )
        progress = Progress(
            lineage=LINEAGE,
            head=seen.revision,
            watermark=self._world.watermark,
            strict=self._world.watermark,
        )
        foreign = seen.foreign(self.host.facts)
        await self._write(lambda ledger: steps.observe(ledger, progress, foreign, 0.0))
        self.host.acked = max(self.host.acked, seen.revision)
        if self.host.joining and seen.revision >= self._world.watermark:
            self.host.joining = False

    # --- inside ----------------------------------------------------------------------------------

    async def _write(self, step: Callable[[Ledger], Step]) -> None:
        """One transaction of the journal; memory follows when it is durable."""
        await self._point(lambda: self._apply(step(self.host.ledger)))

    def _apply(self, step: Step) -> None:
        before = self.host.ledger
        self.host.book.write(step)
        self.host.ledger = step.ledger
        self._world.checks.journal(self.host, before)

    async def _kernel(self, change: Callable[[], object]) -> None:
        await self._point(change)

    async def _point(self, change: Callable[[], object]) -> None:
        await self.process.turn()
        fate = self._world.faults.next(Point.JOURNAL)
        if fate is Fate.CRASH_BEFORE:
            self.process.die()
            raise Crashed
        change()
        if fate is Fate.CRASH_AFTER:
            self.process.die()
            raise Crashed

    async def _patiently(self, work: "Callable[[], Awaitable[T]]") -> T:
        while True:
            try:
                return await work()
            except Unavailable:
                await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(1)
        await self.process.turn()

    def _alone(self, attachment: Attachment) -> asyncio.Lock:
        return self._turns.setdefault(attachment, asyncio.Lock())

    def _died(self) -> None:
        self._world.restart(self.host)
