"""Tables by which all nodes send a connection to the same backend. Pure.

Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4): each backend has its own permutation of
the table's places, and in turn each takes the next free one of its permutation. A permutation
follows from the backend alone, and turns go by address and port, so nodes need not talk about it.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b

from nodeagent.dataplane.balancing import Backend

TABLE_SIZE = 16381
"""abi.TABLE_SIZE, a prime."""

Permutation = tuple[int, int]
"""Offset 0..size-1 and skip 1..size-1."""

Fill = Callable[[int, Sequence[Permutation], Sequence[int]], Sequence[int]]
"""(size, permutations in turn, value of each) → a table."""


def permutation(backend: Backend, size: int = TABLE_SIZE) -> Permutation:
    """The order in which a backend wants places of a table. size: a prime."""
    digest = blake2b(backend.address + backend.port.to_bytes(2), digest_size=16).digest()
    offset, skip = int.from_bytes(digest[:8]), int.from_bytes(digest[8:])
    return offset % size, skip % (size - 1) + 1


_permutation = lru_cache(maxsize=1 << 18)(permutation)
"""Of the tables' size: a backend is asked about again whenever another one of its list changes."""


def table(turns: Iterable[tuple[Backend, int]], make: Fill) -> Sequence[int]:
    """The table of backends (in turn, with their places); there is at least one."""
    permutations, places = [], []
    for backend, place in turns:
        permutations.append(_permutation(backend))
        places.append(place)
    return make(TABLE_SIZE, permutations, places)


def fill(size: int, permutations: Sequence[Permutation], values: Sequence[int]) -> Sequence[int]:
    """A table in which each backend has its share; nodeagent/services/maglev.c says the same.

    Args:
        size: of the table, a prime.
        permutations: of the backends, in turn; at least one.
        values: what stands in the table for each.
    """
    table = array("I", bytes(4 * size))
    taken = bytearray(size)
    places = [offset for offset, _ in permutations]
    skips = [skip for _, skip in permutations]
    left = size
    while True:
        for turn, skip in enumerate(skips):
            place = places[turn]
            while taken[place]:
                place = (place + skip) % size
            taken[place] = 1
            table[place] = values[turn]
            places[turn] = (place + skip) % size
            left -= 1
            if not left:
                return table
