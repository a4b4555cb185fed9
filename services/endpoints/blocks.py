"""In which block an address lies, as far as the pools tell."""

from collections.abc import Iterable
from dataclasses import dataclass

from deltaplane.model.addresses import Prefix


@dataclass(frozen=True, slots=True)
class PoolRange:
    """A pool, as far as it says in which block an address lies."""

    prefix: Prefix
    block_length: int
    name: str = ""


def single(address: bytes) -> Prefix:
    """The block of one address, which a node may own alone; it counts before the one around it."""
    return Prefix(address, len(address) * 8)


def block_of(address: bytes, pools: Iterable[PoolRange]) -> Prefix | None:
    """The block around an address; None when it is in no pool."""
    pool = pool_of(address, pools)
    if pool is None:
        return None
    size = 1 << (len(address) * 8 - pool.block_length)
    start = int.from_bytes(address) // size * size
    return Prefix(start.to_bytes(len(address)), pool.block_length)


def pool_of(address: bytes, pools: Iterable[PoolRange]) -> PoolRange | None:
    """The pool in which an address lies; pools do not overlap."""
    return next((pool for pool in pools if pool.prefix.contains(address)), None)
