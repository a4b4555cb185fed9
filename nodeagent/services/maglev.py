"""Tables by which all nodes send a connection to the same backend. Pure.

Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4): each backend walks over the table's
entries in an order of its own, and in turn each takes the next one on its way that is free. A walk
follows from the backend alone, and turns go by address and port, so nodes need not talk about it.

Unlike in the paper a walk's steps change by a constant from one to the next. Of walks with a
constant step two may be alike but for where they begin: then one goes where the other has been, and
when that one leaves, the other's entries move, all of them: once in some hundred sets of 20.
"""

from array import array
from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import blake2b
from struct import Struct

from nodeagent.dataplane.balancing import Backend

PART = 24_574
"""abi.TABLE_PART_SLOTS: tables have parts of so many entries."""

SIZES = ((30, 1), (400, 5), (5_800, 16), (65_536, 179))
"""(most backends, parts of their table). The more entries for each backend, the fewer move when
one leaves; and shares differ by one entry, so there are 67 or more of them."""

MAX_PLACES = 65_536
"""Places that an entry can name."""

WALK = Struct("=III")
"""Where a walk begins (in 2^32nds of the table), its first step, and by how much steps change."""

_DIGEST = Struct(">III")

Fill = Callable[[int, bytes, "array[int]"], bytes]
"""(entries, walks in turn, place of each) → a table of 16-bit places."""


def walk(backend: Backend) -> bytes:
    """The way that a backend takes over any table: WALK."""
    digest = blake2b(backend.address + backend.port.to_bytes(2), digest_size=12).digest()
    at, step, bend = _DIGEST.unpack(digest)
    # So that it comes everywhere: at + i * step + i * (i - 1) / 2 * bend.
    return WALK.pack(at, step | 1, bend & ~3)


_walk = lru_cache(maxsize=1 << 18)(walk)
"""A backend is asked about again whenever another one of its list changes."""


def forget_walks() -> None:
    """As in a new process, for who measures that."""
    _walk.cache_clear()


def size(backends: int) -> int:
    """Entries of a table. backends: 1..65,536."""
    return PART * next(parts for most, parts in SIZES if backends <= most)


def table(turns: Iterable[tuple[Backend, int]], make: Fill) -> bytes | None:
    """The table of backends (in turn, with their places); there is at least one.

    None: places from 65,536 on, which no table can name.
    """
    walks, places = [], []
    for backend, place in turns:
        walks.append(_walk(backend))
        places.append(place)
    if max(places) >= MAX_PLACES:
        return None
    return make(size(len(places)), b"".join(walks), array("H", places))


def fill(entries: int, walks: bytes, places: "array[int]") -> bytes:
    """A table in which each backend has its share; nodeagent/services/maglev.c says the same.

    Args:
        entries: of the table.
        walks: of the backends, in turn; at least one.
        places: what stands in the table for each.
    """
    made = array("H", bytes(2 * entries))
    taken = bytearray(entries)
    states = [list(state) for state in WALK.iter_unpack(walks)]
    left = entries
    while True:
        for place, state in zip(places, states, strict=True):
            at, step, bend = state
            entry = at * entries >> 32
            while taken[entry]:
                at, step = at + step & 0xFFFFFFFF, step + bend & 0xFFFFFFFF
                entry = at * entries >> 32
            taken[entry] = 1
            made[entry] = place
            state[:2] = at + step & 0xFFFFFFFF, step + bend & 0xFFFFFFFF
            left -= 1
            if not left:
                return made.tobytes()
