"""Maps of services in memory, for tests of what stands above the port."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from nodeagent.dataplane import abi
from nodeagent.dataplane import balancing_records as records
from nodeagent.dataplane.balancing import (
    Backend,
    Balancing,
    Frontend,
    FrontendKey,
    Member,
    ServiceCount,
    Slot,
    SourceRange,
)
from nodeagent.dataplane.port import CapacityError


class FakeBalancing:
    """Implements BalancingPlane; FakeDataPlane is one.

    Attributes:
        counted: by number of the service; what `service_counts` answers.
        remembered: (protocol, backend) of flows, once per flow; what `forget_backends` looks at.
    """

    def __init__(self, capacities: Mapping[str, int]) -> None:
        self._sizes = capacities
        self._frontends: dict[FrontendKey, Frontend] = {}
        self._slots: dict[tuple[int, int], Slot] = {}
        self._members: dict[Member, None] = {}
        self._sources: dict[SourceRange, None] = {}
        self._tables: dict[int, bytes] = {}
        self.counted: dict[int, ServiceCount] = {}
        self.remembered: list[tuple[int, Backend]] = []

    def _fits(self, name: str, held: Collection[object], key: object) -> None:
        if key not in held and len(held) >= self._sizes[name]:
            raise CapacityError(name, self._sizes[name])

    def upsert_frontends(self, frontends: Sequence[Frontend]) -> None:
        """Writes frontends; atomic for each."""
        for frontend in frontends:
            self._fits("frontends", self._frontends, frontend.key)
            self._frontends[frontend.key] = frontend

    def delete_frontends(self, keys: Sequence[FrontendKey]) -> None:
        """Removes frontends."""
        for key in keys:
            self._frontends.pop(key, None)

    def upsert_slots(self, slots: Sequence[Slot]) -> None:
        """Writes places of lists."""
        for slot in slots:
            place = (slot.list_id, slot.slot)
            self._fits("slots", self._slots, place)
            self._slots[place] = slot

    def delete_slots(self, places: Sequence[tuple[int, int]]) -> None:
        """Removes places (list, slot)."""
        for place in places:
            self._slots.pop(place, None)

    def upsert_members(self, members: Sequence[Member]) -> None:
        """Says that clients may keep these backends."""
        for member in members:
            self._fits("members", self._members, member)
            self._members[member] = None

    def delete_members(self, members: Sequence[Member]) -> None:
        """Says that they may not."""
        for member in members:
            self._members.pop(member, None)

    def upsert_sources(self, sources: Sequence[SourceRange]) -> None:
        """Writes source ranges."""
        for source in sources:
            self._fits("sources", self._sources, source)
            self._sources[source] = None

    def delete_sources(self, sources: Sequence[SourceRange]) -> None:
        """Removes source ranges."""
        for source in sources:
            self._sources.pop(source, None)

    def write_tables(self, tables: Iterable[tuple[int, bytes]]) -> None:
        """Puts tables in force, in the place of older ones: atomic for each."""
        for list_id, slots in tables:
            # It knows what it was given only by its parts.
            held = b"".join(abi.TablePart.unpack(part).slots for part in records.table_parts(slots))
            self._fits("tables", self._tables, list_id)
            self._tables[list_id] = held

    def delete_tables(self, list_ids: Iterable[int]) -> None:
        """Removes tables."""
        for list_id in list_ids:
            self._tables.pop(list_id, None)

    def forget_backends(self, gone: Sequence[tuple[int, Backend]]) -> int:
        """Ends what is remembered of UDP and SCTP towards backends that are gone.

        The next packet is given another one.

        Args:
            gone: (protocol, backend); of other protocols nothing is forgotten.

        Returns:
            How many entries went.
        """
        ended = {pair for pair in gone if pair[0] in records.FORGETFUL}
        before = len(self.remembered)
        self.remembered = [pair for pair in self.remembered if pair not in ended]
        return before - len(self.remembered)

    def service_counts(self) -> tuple[ServiceCount, ...]:
        """Reads the counters; services that nobody has asked for are left out."""
        return tuple(self.counted.values())

    def delete_service_counts(self, services: Iterable[int]) -> None:
        """Removes the counters of services that are gone."""
        for service in services:
            self.counted.pop(service, None)

    def balancing(self) -> Balancing:
        """Reads everything back."""
        return Balancing(
            frontends=frozenset(self._frontends.values()),
            slots=frozenset(self._slots.values()),
            members=frozenset(self._members),
            sources=frozenset(self._sources),
            tables=dict(self._tables),
        )
