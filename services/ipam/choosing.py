"""Which block a node tries to claim.

Replicas choose without talking to each other; a compare in etcd decides who gets a block. So the
order in which a node tries must differ from node to node, else all nodes of a starting cluster
fight for block 0:

    block   0   1   2   3   4   5   6   7
    node a              ^ starts here, then 4, 5, 6, 7, 0, 1, 2
    node b                          ^ starts here, then 7, 0, ...

A node's later blocks follow its first one while they are free, which keeps routes close together.
"""

import hashlib
import itertools
from collections.abc import Container, Iterator

from deltaplane.model.addresses import Prefix
from services.ipam.pools import Pool


def start(pool: Pool, node: str) -> int:
    """Number of the block at which a node begins: a hash, the same in every replica."""
    digest = hashlib.blake2b(f"{pool.name}/{node}".encode(), digest_size=16).digest()
    return int.from_bytes(digest) % pool.blocks


def candidates(pool: Pool, node: str) -> Iterator[Prefix]:
    """All blocks of the pool in the order in which the node tries them; there may be 2^58."""
    first = start(pool, node)
    for number in _around(first, pool.blocks):
        yield pool.block(number)


def choose(pool: Pool, node: str, taken: Container[Prefix]) -> Prefix | None:
    """The first free block in the node's order; None when every block is taken.

    Looks at one more block than are taken at most.
    """
    return next((block for block in candidates(pool, node) if block not in taken), None)


def window(pool: Pool, node: str, size: int) -> tuple[Prefix, ...]:
    """The first `size` candidates: one read of those nearly always holds a free one."""
    return tuple(itertools.islice(candidates(pool, node), size))


def _around(first: int, count: int) -> Iterator[int]:
    # Not a chain of ranges: they end at sys.maxsize, and a pool may hold more blocks than that.
    number = first
    while True:
        yield number
        number = (number + 1) % count
        if number == first:
            return
