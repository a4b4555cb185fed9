"""How many blocks a node should have of each pool, and what to do about it. Pure.

    target = ceil(mf + U/B) blocks

B addresses of a block, U in use, those that wait included; mf the share that should be free.
"""

from collections.abc import Collection
from dataclasses import dataclass

from nodeagent import addressing
from nodeagent.addressing import Block
from nodeagent.entries import Ledger
from nodeagent.pools import Pool, taking_part

FIXED_SECONDS = 60.0
"""How long an address that was claimed by number is kept for a pod that has not taken it yet: the
runtime tries an ADD again sooner.
"""


@dataclass(frozen=True, slots=True)
class Demand:
    """What to do.

    Attributes:
        claims: names of pools, once for each missing block.
        releases: ordinals of blocks that are not needed.
    """

    claims: tuple[str, ...] = ()
    releases: tuple[int, ...] = ()


def target(pool: Pool, used: int) -> int:
    """How many blocks `used` addresses of a pool ask for, exactly."""
    size = 1 << (len(pool.value.prefix.address) * 8 - pool.value.block_length)
    return -(-(pool.value.min_free_percent * size + 100 * used) // (100 * size))


def demand(ledger: Ledger, chosen: Collection[str], now: float) -> Demand:
    """What is missing and what is too much; done, the same question has no answer left.

    Args:
        ledger: as it is.
        chosen: names of `--pools`; empty: every pool that is not on request.
        now: wall clock, seconds.
    """
    common = taking_part(ledger.pools, chosen)
    claims: list[str] = []
    releases = [
        block.ordinal
        for block in ledger.blocks.values()
        if block.fixed and _is_surplus(block, ledger, now)
    ]
    for name, pool in sorted(ledger.pools.items()):
        # A network of the IPAM-only mode claims its blocks when it needs them, and keeps them.
        owned = [b for b in ledger.of_pool(name) if not b.releasing and not b.network]
        wanted = _wanted(ledger, pool, owned, takes_part=name in common)
        claims += [name] * (wanted - len(owned))
        if pool.value.is_static and not pool.value.draining:
            continue
        idle = [block for block in owned if block.is_idle(ledger.progress)]
        # Those that have the least to give go first, the youngest of them.
        idle.sort(key=lambda block: (_fresh(block), -block.ordinal))
        releases += [block.ordinal for block in idle[: max(0, len(owned) - wanted)]]
    return Demand(tuple(claims), tuple(releases))


def _wanted(ledger: Ledger, pool: Pool, owned: list[Block], *, takes_part: bool) -> int:
    if pool.value.draining:
        return 0
    if pool.value.is_static:
        return 1 if takes_part or owned else 0
    totals = [addressing.counts(block, ledger.progress) for block in owned]
    used = sum(total.held + total.quarantined for total in totals)
    return target(pool, used) if used or takes_part else 0


def _fresh(block: Block) -> int:
    away = block.held | block.reserved | block.foreign
    return block.prefix.size - away.bit_count()


def _is_surplus(block: Block, ledger: Ledger, now: float) -> bool:
    waited = block.released or now >= block.since + FIXED_SECONDS
    return bool(waited) and not block.releasing and block.is_idle(ledger.progress)
