"""Backends in places that stay: a change of one moves at most one other. Pure."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from heapq import heappop, heappush

from nodeagent.dataplane.balancing import Backend

Places = Mapping[int, Backend]
"""Backends by place."""


class Dense:
    """Places 0..len-1: what goes leaves its place to the last one.

    Attributes:
        list_id: number of the list.
    """

    __slots__ = ("_items", "_place", "list_id")

    def __init__(self, list_id: int, held: Places | None = None) -> None:
        """held: what the kernel has; taken over as far as it is dense and without repetition."""
        self.list_id = list_id
        self._items: list[Backend] = []
        self._place: dict[Backend, int] = {}
        for place in range(len(held or ())):
            backend = (held or {}).get(place)
            if backend is None or backend in self._place:
                break
            self.add(backend)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, backend: Backend) -> bool:
        return backend in self._place

    def __iter__(self) -> Iterator[tuple[int, Backend]]:
        return enumerate(self._items)

    def add(self, backend: Backend) -> tuple[int, ...]:
        """Gives a new backend a place; the places to write."""
        place = len(self._items)
        self._place[backend] = place
        self._items.append(backend)
        return (place,)

    def remove(self, backend: Backend) -> tuple[tuple[int, ...], int]:
        """Takes a backend out; the places to write, and the one that is gone."""
        hole = self._place.pop(backend)
        last = self._items.pop()
        if last == backend:
            return (), hole
        self._items[hole] = last
        self._place[last] = hole
        return (hole,), len(self._items)

    def at(self, place: int) -> Backend:
        """Who is there."""
        return self._items[place]


class Holey:
    """Places that never change; what goes leaves a hole for the next that comes.

    Attributes:
        list_id: number of the list.
    """

    __slots__ = ("_end", "_free", "_items", "_order", "_place", "list_id")

    def __init__(self, list_id: int, held: Places | None = None) -> None:
        """held: what the kernel has; taken over without repetition."""
        self.list_id = list_id
        self._items: dict[int, Backend] = {}
        self._place: dict[Backend, int] = {}
        for place, backend in sorted((held or {}).items()):
            if backend not in self._place:
                self._items[place] = backend
                self._place[backend] = place
        self._order: list[Backend] | None = None
        self._end = max(self._items, default=-1) + 1
        self._free = [place for place in range(self._end) if place not in self._items]

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, backend: Backend) -> bool:
        return backend in self._place

    def __iter__(self) -> Iterator[tuple[int, Backend]]:
        return iter(self._items.items())

    def add(self, backend: Backend) -> tuple[int, ...]:
        """Gives a new backend a place; the places to write."""
        if self._free:
            place = heappop(self._free)
        else:
            place, self._end = self._end, self._end + 1
        self._items[place] = backend
        self._place[backend] = place
        if self._order is not None:
            insort(self._order, backend)
        return (place,)

    def remove(self, backend: Backend) -> tuple[tuple[int, ...], int]:
        """Takes a backend out; no place is written, one is gone."""
        place = self._place.pop(backend)
        del self._items[place]
        if self._order is not None:
            del self._order[bisect_left(self._order, backend)]
        heappush(self._free, place)
        return (), place

    def at(self, place: int) -> Backend:
        """Who is there."""
        return self._items[place]

    def in_turn(self) -> Iterable[tuple[Backend, int]]:
        """Backends by address and port, with their places."""
        if self._order is None:
            # Not before somebody asks: a list begins with many.
            self._order = sorted(self._place)
        return [(backend, self._place[backend]) for backend in self._order]


AnyList = Dense | Holey
