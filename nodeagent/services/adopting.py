"""What the kernel held before: which list of it is whose, and what differs from what should be.

Pure.
"""

from array import array
from collections.abc import Container, Iterable, Mapping
from typing import TypeVar

from nodeagent.dataplane.balancing import Backend, Balancing, Frontend, FrontendKey, Member
from nodeagent.services.drafts import Draft
from nodeagent.services.frontends import Entrance, sources
from nodeagent.services.holdings import REMEMBERED, Holders, Holding, ListKey
from nodeagent.services.lists import AnyList, Dense, Holey
from nodeagent.services.maglev import Fill, table

K = TypeVar("K")
V = TypeVar("V")

NOTHING = Balancing(
    frontends=frozenset(), slots=frozenset(), members=frozenset(), sources=frozenset(), tables={}
)


class Adoption:
    """Hands out lists, under their old numbers where that is safe.

    Args:
        held: what the kernel holds.
        wanted: all frontends that should be, with the number of their service.

    A number stays with a list if every frontend that named it and stays names this list: one that
    changes its policy meanwhile must not see the backends of another list under its old number.
    """

    def __init__(self, held: Balancing, wanted: Mapping[FrontendKey, tuple[int, Entrance]]) -> None:
        self._numbers = _numbers(held, wanted)
        self._places: dict[int, dict[int, Backend]] = {}
        shown = _shown(held)
        for slot in held.slots:
            # What clients have not been led to yet is no reason to keep anything.
            if slot.slot in shown.get(slot.list_id, ()):
                self._places.setdefault(slot.list_id, {})[slot.slot] = slot.backend
        self._next = 1 + max(
            (
                *(number for f in held.frontends for number in (f.list_id, f.outside_list)),
                *(slot.list_id for slot in held.slots),
                *(member.list_id for member in held.members),
                *held.tables,
            ),
            default=0,
        )

    def make(self, key: ListKey) -> AnyList:
        """The list that the kernel has for a key, or a new one with a number never given."""
        number = self._numbers.pop(key, 0)
        if not number:
            number, self._next = self._next, self._next + 1
        places = self._places.pop(number, {})
        return Holey(number, places) if key[2].is_outside else Dense(number, places)


def _shown(held: Balancing) -> dict[int, Container[int]]:
    """Places that frontends lead to, by list."""
    counts: dict[int, int] = {}
    for frontend in held.frontends:
        counts[frontend.list_id] = max(counts.get(frontend.list_id, 0), frontend.count)
    shown: dict[int, Container[int]] = {
        number: frozenset(array("H", places)) for number, places in held.tables.items()
    }
    return shown | {number: range(count) for number, count in counts.items()}


def _numbers(
    held: Balancing, wanted: Mapping[FrontendKey, tuple[int, Entrance]]
) -> dict[ListKey, int]:
    claims: dict[int, set[ListKey]] = {}
    for frontend in held.frontends:
        found = wanted.get(frontend.key)
        if found is None or found[0] != frontend.service:
            continue
        service, one = found
        claims.setdefault(frontend.list_id, set()).add((service, one.group, one.inside))
        if frontend.outside_list and one.outside is not None:
            key = service, one.group, one.outside
            claims.setdefault(frontend.outside_list, set()).add(key)
    numbers: dict[ListKey, int] = {}
    for number in sorted(claims):
        keys = claims[number]
        if number and len(keys) == 1:
            numbers.setdefault(next(iter(keys)), number)
    return numbers


def everything(
    holdings: Iterable[Holding], frontends: Iterable[Frontend], held: Balancing, fill: Fill
) -> Draft:
    """From what the kernel holds to what it should hold.

    Args:
        holdings: all services, with the lists that this process keeps.
        frontends: all that should be.
        held: what the kernel holds.
        fill: makes tables, to compare them.
    """
    draft, want = Draft(), Draft()
    for holding in holdings:
        want.sources |= dict.fromkeys(sources(holding.value), True)
        for group in holding.groups.values():
            for scope, places in group.lists.items():
                _list(want, places, has_members=group.has_members, outside=scope.is_outside)
    slots = {(slot.list_id, slot.slot): slot.backend for slot in held.slots}
    draft.slots = _changed(slots, want.slots, gone=None)
    draft.members = _changed(dict.fromkeys(held.members, True), want.members, gone=False)
    draft.sources = _changed(dict.fromkeys(held.sources, True), want.sources, gone=False)
    before = {frontend.key: frontend for frontend in held.frontends}
    draft.frontends = _changed(
        before, {frontend.key: frontend for frontend in frontends}, gone=None
    )
    for number in held.tables.keys() - want.tables.keys():
        draft.tables[number] = None
    for number, wanted in want.tables.items():
        before_it = held.tables.get(number)
        if before_it is None or (wanted is not None and before_it != table(wanted.in_turn(), fill)):
            draft.tables[number] = wanted
    return draft


def lost(held: Balancing, holders: Holders) -> set[tuple[int, Backend]]:
    """(protocol, backend) that the kernel may remember and no list holds."""
    protocols: dict[int, set[int]] = {}
    for frontend in held.frontends:
        if frontend.key.protocol in REMEMBERED:
            for number in (frontend.list_id, frontend.outside_list):
                protocols.setdefault(number, set()).add(frontend.key.protocol)
    return {
        (protocol, member.backend)
        for member in held.members
        for protocol in protocols.get(member.list_id, ())
        if (protocol, member.backend) not in holders
    }


def undone(part: Draft, held: Balancing) -> Draft:
    """Takes back the places and members that a part has added; no frontend names them yet.

    Args:
        part: what was to be written.
        held: what the kernel held before.
    """
    places = {(slot.list_id, slot.slot) for slot in held.slots}
    return Draft(
        slots={place: None for place in part.slots if place not in places},
        members={member: False for member in part.members if member not in held.members},
    )


def _list(want: Draft, places: AnyList, *, has_members: bool, outside: bool) -> None:
    number = places.list_id
    for place, backend in places:
        want.slots[number, place] = backend
        if has_members:
            want.members[Member(list_id=number, backend=backend)] = True
    if outside and isinstance(places, Holey) and len(places):
        want.tables[number] = places


def _changed(held: Mapping[K, V], want: Mapping[K, V], *, gone: V) -> dict[K, V]:
    """What differs; `gone` where nothing should be."""
    if not held:
        return dict(want)
    changed = {key: value for key, value in want.items() if held.get(key) != value}
    return changed | dict.fromkeys(held.keys() - want.keys(), gone)
