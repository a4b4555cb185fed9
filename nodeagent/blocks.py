"""The blocks of this node: claims what is missing, gives back what is not needed.

What that is, `nodeagent.demand` says. A block is marked in the journal before it is given back and
forgotten after, so that a restart goes on with it.
"""

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from deltaplane.errors import Conflict, DeltaplaneError, Exhausted, Invalid, Refused
from deltaplane.model.addresses import Prefix, format_address
from deltaplane.runtime import log
from deltaplane.runtime.clock import Clock
from nodeagent.addressing import Block
from nodeagent.choosing import is_available, is_coming, shortage
from nodeagent.cni.netconf import Attachment
from nodeagent.control import (
    CLAIMS_AT_ONCE,
    BlockWish,
    ClaimedBlock,
    ControlPlane,
    NodeFacts,
)
from nodeagent.demand import demand
from nodeagent.entries import Ledger
from nodeagent.journal import Journal
from nodeagent.pools import NO_WISH, Request, Wish, requests, taking_part
from nodeagent.worker import Worker

RETRY_SECONDS = 5.0
"""Between two attempts to get a block in the background; an ADD without an address tries by itself.
"""

DRIFT_SECONDS = 60.0
"""How often the demand is looked at when nothing has happened: quarantines end by themselves."""


def request_id(pool: str, ordinal: int) -> str:
    """Names a claim, the same after a restart: one whose answer got lost gives the same block."""
    return f"{hashlib.blake2b(pool.encode(), digest_size=8).hexdigest()}-{ordinal}"


def claim_numbers(first: int, pools: Iterable[str]) -> list[int]:
    """What to call the claims of one request: of each pool the next ones.

    Counted for each pool, so that what the others want does not change it: a request whose answer
    got lost finds its blocks even if the next one asks for less. An ordinal of the journal is never
    below the number of the claim, so no number comes again.

    Args:
        first: the ordinal that the journal gives next.
        pools: once for each claim.
    """
    seen: Counter[str] = Counter()
    numbers = []
    for pool in pools:
        numbers.append(first + seen[pool])
        seen[pool] += 1
    return numbers


def ordinal_of(request: str) -> int:
    """The ordinal in a request id of ours; 0: it is not one."""
    _, dash, text = request.rpartition("-")
    return int(text) if dash and text.isdecimal() else 0


def fixed_request_id(attachment: Attachment, address: bytes) -> str:
    """Names the claim of an address for an interface, the same for every attempt."""
    seed = f"{attachment}/{format_address(address)}".encode()
    return f"fixed-{hashlib.blake2b(seed, digest_size=16).hexdigest()}"


class _Search:
    """The pools that may still have a block for a request that finds no address."""

    def __init__(self, ledger: Ledger, request: Request) -> None:
        self.pools: list[str] = []
        self._reasons = [shortage(ledger, request)]
        self._found = False
        if is_coming(ledger, request):
            return
        for name in request.pools:
            pool = ledger.pools.get(name)
            if pool is None or pool.value.draining:
                continue
            if pool.value.is_static and ledger.of_pool(name):
                continue
            self.pools.append(name)

    def take(self, refusal: DeltaplaneError | None) -> None:
        """Notes what came of the claim of the first pool that is left."""
        if refusal is None:
            self._found = True
            self.pools.clear()
        else:
            self._reasons.append(str(refusal))
            del self.pools[0]

    def check(self) -> None:
        """Raises Exhausted if no pool had one."""
        if not self._found:
            raise Exhausted("; ".join(self._reasons))


class Blocks:
    """Keeps the journal in blocks.

    Attributes:
        barriers: how many have been taken in.
    """

    def __init__(
        self,
        journal: Journal,
        writer: Worker,
        control: ControlPlane,
        node: NodeFacts,
        *,
        chosen: frozenset[str],
        lineage: Callable[[], bytes],
        clock: Clock,
    ) -> None:
        """Does nothing yet.

        Args:
            journal: written in the writer's thread only.
            writer: that thread.
            control: the services.
            node: this node.
            chosen: names of `--pools`.
            lineage: of the store that answers now; empty: not known.
            clock: seconds.
        """
        self._journal = journal
        self._writer = writer
        self._control = control
        self._node = node
        self._chosen = chosen
        self._lineage = lineage
        self._clock = clock
        self._claiming = asyncio.Lock()
        self._changed = asyncio.Event()
        self._progressed = asyncio.Event()
        self._complaint = ""
        self.barriers = 0

    @property
    def ledger(self) -> Ledger:
        """What the journal says now."""
        return self._journal.ledger

    @property
    def families(self) -> frozenset[int]:
        """4, 6 or both: what a pod gets that asks for nothing; empty until the pools are known."""
        pools = self.ledger.pools
        return frozenset(pools[name].family for name in taking_part(pools, self._chosen))

    def requests(self, wish: Wish = NO_WISH) -> tuple[Request, ...]:
        """What to hand out. Raises Invalid and Exhausted; see `nodeagent.pools.requests`."""
        return requests(self.ledger.pools, self._chosen, wish)

    async def find_requests(self, wish: Wish) -> tuple[Request, ...]:
        """The same; asks for the pools once before it says that there is none.

        Raises:
            Invalid: the pod names a pool that cannot be used.
            Exhausted: no pool takes part.
            Unavailable: the ipam service does not answer.
        """
        try:
            return self.requests(wish)
        except (Invalid, Exhausted):
            await self.learn_pools()
            return self.requests(wish)

    # --- in the background -----------------------------------------------------------------------

    async def run(self) -> None:
        """Follows the demand; never gives up."""
        while True:
            self._changed.clear()
            done = await self._try_to_settle()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRIFT_SECONDS if done else RETRY_SECONDS):
                    await self._changed.wait()

    def changed(self) -> None:
        """An address was handed out or given back, or the pools are others."""
        self._changed.set()

    def progressed(self) -> None:
        """Some may be free that were not."""
        self.barriers += 1
        self._progressed.set()

    async def wait_progress(self, seen: int, seconds: float) -> bool:
        """Waits until more may be free than after `seen` barriers; False: not in time."""
        if self.barriers != seen:
            return True
        self._progressed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._progressed.wait()
        return self._progressed.is_set()

    async def _try_to_settle(self) -> bool:
        try:
            await self.settle()
        except DeltaplaneError as error:
            # Once, not every five seconds: the reason seldom changes.
            if str(error) != self._complaint:
                log.get().warning("blocks_not_settled", reason=str(error))
            self._complaint = str(error)
            return False
        self._complaint = ""
        return True

    async def settle(self) -> None:
        """Claims and gives back until there is nothing left to do.

        Raises:
            Exhausted: a pool has no block left; the others have theirs.
            Unavailable: the ipam service does not answer.
        """
        async with self._claiming:
            if not self.ledger.pools:
                await self.learn_pools()
            for block in self._releasing():
                await self._give_back(block)
            wanted = demand(self.ledger, self._chosen, self._clock.wall_ns() / 1e9)
            refusals = [error for error in await self._claim(wanted.claims) if error is not None]
            for ordinal in wanted.releases:
                # Meanwhile an ADD may have taken an address of it.
                with contextlib.suppress(Conflict, KeyError):
                    await self._writer.call(self._journal.release_block, ordinal)
            for block in self._releasing():
                await self._give_back(block)
            if refusals:
                raise refusals[0]

    # --- for an ADD ------------------------------------------------------------------------------

    async def claim_for(self, wanted: Iterable[Request]) -> None:
        """Claims a block for every request that finds no address, all of them at once.

        Raises:
            Exhausted: there is none to claim for one of them; the others have theirs.
            Unavailable: the ipam service does not answer.
        """
        async with self._claiming:
            searches = [
                _Search(self.ledger, request)
                for request in wanted
                if request.address is None and not is_available(self.ledger, request)
            ]
            while open_ := [search for search in searches if search.pools]:
                outcomes = await self._claim([search.pools[0] for search in open_])
                for search, refusal in zip(open_, outcomes, strict=True):
                    search.take(refusal)
            for search in searches:
                search.check()

    async def claim_address(self, address: bytes, attachment: Attachment) -> None:
        """Claims an address that lies in no block of this node, for one interface.

        Raises:
            Invalid: it is in no pool.
            Conflict: somebody has it.
            Exhausted: too many are claimed so.
            Unavailable: the ipam service does not answer.
        """
        async with self._claiming:
            if self.ledger.block_of(address) is not None:
                return
            ordinal = self._journal.next_ordinal()
            name = fixed_request_id(attachment, address)
            found = await self._control.claim_address(address, self._node, name)
            await self._add(ordinal, found)

    async def learn_pools(self) -> None:
        """Asks for the pools: at the start, before the stream tells what is new.

        Raises:
            Unavailable: the ipam service does not answer.
        """
        listing = await self._control.pools()
        await self._writer.call(
            self._journal.learn_pools,
            listing.pools,
            lineage=b"",
            revision=listing.revision,
            replace_all=not self.ledger.progress.lineage,
        )
        self.changed()

    # --- after a registration --------------------------------------------------------------------

    async def reconcile(self, index: int) -> tuple[Prefix, ...]:
        """Makes the journal agree with what this node owns; returns the blocks that it has lost.

        Raises:
            Unavailable: the ipam service does not answer.
        """
        async with self._claiming:
            listing = await self._control.blocks(self._node, index)
            owned = {block.prefix: block for block in listing.blocks}
            known = {block.prefix: block for block in self.ledger.blocks.values()}
            lost = [block for prefix, block in known.items() if prefix not in owned]
            for block in lost:
                await self._writer.call(self._journal.drop_block, block.ordinal)
                log.get().warning("block_lost", prefix=str(block.prefix), pool=block.pool)
            for prefix, found in owned.items():
                if prefix not in known:
                    # Its claim was answered after the agent had gone.
                    await self._add(self._journal.next_ordinal(), found)
        self.changed()
        return tuple(block.prefix for block in lost)

    # --- inside ----------------------------------------------------------------------------------

    def _releasing(self) -> list[Block]:
        return [block for block in self.ledger.blocks.values() if block.releasing]

    async def _claim(self, pools: Sequence[str]) -> list[Exhausted | Refused | None]:
        """Claims a block for each of the pools, in order; None: the journal has it.

        Raises:
            DeltaplaneError: another refusal; what was granted is in the journal.
        """
        refusals: list[Exhausted | Refused | None] = []
        others: list[DeltaplaneError] = []
        for start in range(0, len(pools), CLAIMS_AT_ONCE):
            part = pools[start : start + CLAIMS_AT_ONCE]
            numbers = claim_numbers(self._journal.next_ordinal(), part)
            wishes = [
                BlockWish(pool, request_id(pool, number))
                for pool, number in zip(part, numbers, strict=True)
            ]
            outcomes: Sequence[ClaimedBlock | DeltaplaneError]
            try:
                outcomes = await self._control.claim_blocks(wishes, self._node)
            except Refused as error:  # this node is not registered
                outcomes = [error] * len(wishes)
            for number, outcome in zip(numbers, outcomes, strict=True):
                match outcome:
                    case ClaimedBlock():
                        await self._add(max(number, self._journal.next_ordinal()), outcome)
                        refusals.append(None)
                    case Exhausted() | Refused():
                        refusals.append(outcome)
                    case _:
                        others.append(outcome)
        if others:
            raise others[0]
        return refusals

    async def _add(self, ordinal: int, found: ClaimedBlock) -> None:
        await self._writer.call(
            self._journal.add_block,
            ordinal,
            found.pool,
            found.prefix,
            fixed=found.fixed,
            usable_after=found.usable_after,
            lineage=self._lineage(),
            now=self._clock.wall_ns() / 1e9,
        )
        log.get().info(
            "block_claimed",
            pool=found.pool,
            prefix=str(found.prefix),
            usable_after=found.usable_after,
        )

    async def _give_back(self, block: Block) -> None:
        try:
            await self._control.release_block(block.prefix, self._node)
        except Refused as error:
            log.get().warning("block_is_not_ours", prefix=str(block.prefix), reason=str(error))
        await self._writer.call(self._journal.drop_block, block.ordinal)
        log.get().info("block_released", pool=block.pool, prefix=str(block.prefix))
