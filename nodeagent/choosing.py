"""Which address an interface gets, and why there is none. Pure."""

from deltaplane.errors import Conflict, Exhausted
from deltaplane.model.addresses import format_address
from nodeagent import addressing, delegated
from nodeagent.addressing import Block, Progress
from nodeagent.entries import Ledger
from nodeagent.pools import Request


def choose(ledger: Ledger, request: Request) -> tuple[Block, int]:
    """A block and the offset of an address in it.

    From the first pool that has one: an address that was never held, else the one that has been
    free for longest.

    Raises:
        Conflict: an address asked for by number is held.
        Exhausted: there is none now.
    """
    if request.address is not None:
        return _choose_address(ledger, request.address, request.network)
    progress = ledger.progress
    for name in request.pools:
        pool = ledger.pools.get(name)
        if pool is None or pool.value.draining:
            continue
        blocks = [block for block in ledger.of_pool(name) if block.is_usable(progress)]
        own = [block for block in blocks if block.network == request.network]
        found = _oldest(own, progress)
        if found is None and request.network:
            unused = [block for block in blocks if delegated.can_serve(block, progress)]
            found = _oldest([delegated.serve(b, request.network) for b in unused], progress)
        if found is not None:
            return found
    raise Exhausted(shortage(ledger, request))


def _oldest(blocks: list[Block], progress: Progress) -> tuple[Block, int] | None:
    """An address that was never held, else the one that has been free for longest, or None."""
    for block in blocks:
        if (offset := addressing.first_fresh(block)) is not None:
            return block, offset
    free = [
        (gone.revision, block.ordinal, gone.offset, block)
        for block in blocks
        if (gone := addressing.first_free(block, progress)) is not None
    ]
    if not free:
        return None
    _, _, offset, block = min(free, key=lambda item: item[:3])
    return block, offset


def is_available(ledger: Ledger, request: Request) -> bool:
    """Whether there is an address now."""
    try:
        choose(ledger, request)
    except (Conflict, Exhausted):
        return False
    return True


def is_coming(ledger: Ledger, request: Request) -> bool:
    """Whether a block of ours only waits until all know that its old owner has lost it."""
    return any(
        not block.releasing
        and block.network in ("", request.network)
        and not (request.network and not block.network and block.held)
        and not block.is_usable(ledger.progress)
        and addressing.first_fresh(block) is not None
        for name in request.pools
        if (pool := ledger.pools.get(name)) and not pool.value.draining
        for block in ledger.of_pool(name)
    )


def _choose_address(ledger: Ledger, address: bytes, network: str) -> tuple[Block, int]:
    """An address asked for by number. Reserved ranges do not hold it back."""
    text, progress = format_address(address), ledger.progress
    block = ledger.block_of(address)
    offset = None if block is None else block.offset(address)
    if block is None or offset is None:
        raise Exhausted(f"{text} is in no block of this node")
    if network and delegated.can_serve(block, progress):
        block = delegated.serve(block, network)
    if block.network != network or (network and delegated.not_for_pods(block) >> offset & 1):
        raise Conflict(f"{text} is in block {block.prefix}, which {_user(block)}")
    if block.held >> offset & 1:
        holder = next(
            record for record in ledger.interfaces.values() if address in record.addresses
        )
        raise Conflict(f"{text} is held by {holder.pod.namespace}/{holder.pod.name}")
    if block.foreign >> offset & 1:
        raise Conflict(f"{text} has been claimed by another node")
    if not block.is_usable(progress):
        wait = _until(block.usable_after, progress)
        raise Exhausted(f"{text} is being given back" if block.releasing else f"{text} waits{wait}")
    pool = ledger.pools.get(block.pool)
    if pool is not None and pool.value.draining and not block.fixed:
        raise Exhausted(f"{text} is in pool {block.pool}, which is draining")
    gone = addressing.find_released(block, offset)
    if gone is not None and not progress.passed(gone.lineage, gone.revision):
        raise Exhausted(f"{text} is quarantined{_until(gone.revision, progress)}")
    return block, offset


def _user(block: Block) -> str:
    return f"is network {block.network}'s" if block.network else "pods of this agent use"


def shortage(ledger: Ledger, request: Request) -> str:
    """Why there is no address, for people: which pools, where their addresses are, until when."""
    progress = ledger.progress
    parts = []
    for name in request.pools:
        pool = ledger.pools.get(name)
        if pool is None or pool.value.draining:
            parts.append(f"pool {name} is {'unknown' if pool is None else 'draining'}")
            continue
        blocks = ledger.of_pool(name)
        total = addressing.Counts()
        for block in blocks:
            total = total.plus(addressing.counts(block, progress))
        text = (
            f"pool {name}: {len(blocks)} blocks, {total.held} held, {total.reserved} reserved, "
            f"{total.foreign} claimed by other nodes, {total.quarantined} quarantined"
        )
        waits = [
            gone.revision
            for block in blocks
            for gone in block.released
            if not progress.passed(gone.lineage, gone.revision)
        ]
        waits += [
            block.usable_after
            for block in blocks
            if not block.releasing and not block.is_usable(progress)
        ]
        parts.append(text + _until(min(waits), progress) if waits else text)
    return f"no IPv{request.family} address is free: {'; '.join(parts)}"


def _until(revision: int, progress: Progress) -> str:
    who = "registered" if progress.only_strict else "live"
    now = f"now at {progress.limit}" if progress.limit else "how far they are is not known now"
    return f" until every {who} node has acknowledged revision {revision} ({now})"


def is_past_fence(block: Block, offset: int, progress: Progress) -> bool:
    """Whether a node that is fenced may not know that the last owner has lost the address."""
    if block.usable_after > progress.strict:
        return True
    gone = addressing.find_released(block, offset)
    return gone is not None and gone.revision > progress.strict
