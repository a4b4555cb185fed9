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

from services.ipam.pools import Pool

WINDOW = 16
"""Free blocks among which one that nobody has owned is preferred: its addresses wait for nobody."""


def start(pool: Pool, node: str) -> int:
    """Number of the block at which a node begins: a hash, the same in every replica."""
    digest = hashlib.blake2b(f"{pool.name}/{node}".encode(), digest_size=16).digest()
    return int.from_bytes(digest) % pool.blocks


def candidates(pool: Pool, first: int) -> Iterator[int]:
    """Numbers of the blocks in the order in which they are tried; there may be 2^58.

    Those of which every address is reserved are left out.

    Args:
        pool: that is cut into the blocks.
        first: where to begin: `start`, or where a node has got to.
    """
    # Once around, in two halves. Numbers do not fit into range(): a pool may have more blocks than
    # sys.maxsize.
    yield from _between(first, pool.blocks, pool)
    yield from _between(0, first, pool)


def choose(
    pool: Pool, first: int, taken: Container[int], owned_before: Container[int] = ()
) -> int | None:
    """The first free candidate; None when there is none.

    One of the first WINDOW free ones that nobody has owned comes before the others.

    Args:
        pool: to choose from.
        first: see `candidates`.
        taken: numbers of claimed blocks; looks at WINDOW more blocks than these at most.
        owned_before: numbers of blocks that somebody has given back.
    """
    free = (number for number in candidates(pool, first) if number not in taken)
    fallback: int | None = None
    for number in itertools.islice(free, WINDOW):
        if number not in owned_before:
            return number
        fallback = number if fallback is None else fallback
    return fallback


def claimable(pool: Pool) -> int:
    """How many blocks can be claimed at all, 0 or more."""
    return pool.blocks - sum(last - first + 1 for first, last in pool.withheld())


def _between(number: int, end: int, pool: Pool) -> Iterator[int]:
    for first, last in (*pool.withheld(), (end, end)):
        stop = min(first, end)
        while number < stop:
            yield number
            number += 1
        number = max(number, last + 1)
