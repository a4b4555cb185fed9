"""The kernel's maps of services."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice

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
from nodeagent.dataplane.maps import INNER_MAP, KernelMap, create_array, open_by_id
from nodeagent.dataplane.records import number_key, number_of
from nodeagent.netlink.diag import end_connected

TABLES_AT_ONCE = 256
"""Each has a descriptor until the kernel has its own reference, and a process may have 1,024."""


class KernelBalancing:
    """Implements BalancingPlane on maps by name; KernelDataPlane is one."""

    _maps: Mapping[str, KernelMap]

    def upsert_frontends(self, frontends: Sequence[Frontend]) -> None:
        """Writes frontends; atomic for each."""
        marks = {frontend.key.port % abi.PORT_MARKS for frontend in frontends}
        self._maps["frontend_ports"].update([(number_key(m), records.PRESENT) for m in marks])
        self._maps["frontends"].update(list(map(records.frontend_item, frontends)))

    def delete_frontends(self, keys: Sequence[FrontendKey]) -> None:
        """Removes frontends."""
        self._maps["frontends"].delete(map(records.frontend_key, keys))

    def upsert_slots(self, slots: Sequence[Slot]) -> None:
        """Writes places of lists."""
        self._maps["slots"].update(list(map(records.slot_item, slots)))

    def delete_slots(self, places: Sequence[tuple[int, int]]) -> None:
        """Removes places (list, slot)."""
        self._maps["slots"].delete(records.slot_key(*place) for place in places)

    def upsert_members(self, members: Sequence[Member]) -> None:
        """Says that clients may keep these backends."""
        items = [(records.member_key(member), records.PRESENT) for member in members]
        self._maps["members"].update(items)

    def delete_members(self, members: Sequence[Member]) -> None:
        """Says that they may not."""
        self._maps["members"].delete(map(records.member_key, members))

    def upsert_sources(self, sources: Sequence[SourceRange]) -> None:
        """Writes source ranges."""
        items = [(records.source_key(source), records.PRESENT) for source in sources]
        self._maps["sources"].update(items)

    def delete_sources(self, sources: Sequence[SourceRange]) -> None:
        """Removes source ranges."""
        self._maps["sources"].delete(map(records.source_key, sources))

    def write_tables(self, tables: Iterable[tuple[int, bytes]]) -> None:
        """Puts tables in force, in the place of older ones: atomic for each.

        The kernel waits for a grace period before it returns, see grace.py; Linux before 6.8 for
        each.
        """
        coming = iter(tables)
        while chunk := list(islice(coming, TABLES_AT_ONCE)):
            self._write_tables(chunk)

    def _write_tables(self, chunk: Sequence[tuple[int, bytes]]) -> None:
        with ExitStack() as made:
            items = []
            for list_id, slots in chunk:
                table = _new_table(records.table_parts(slots))
                made.callback(table.close)
                items.append((number_key(list_id), number_key(table.fd)))
            # The map that stands in `tables` is the kernel's own reference; these go.
            self._maps["tables"].update(items)

    def delete_tables(self, list_ids: Iterable[int]) -> None:
        """Removes tables."""
        self._maps["tables"].delete(map(number_key, list_ids))

    def forget_backends(self, gone: Sequence[tuple[int, Backend]]) -> int:
        """Ends what is remembered of UDP and SCTP towards backends that are gone.

        The next packet is given another one. UDP sockets of this node's own namespace that are
        connected are ended.

        Args:
            gone: (protocol, backend); of other protocols nothing is forgotten.

        Returns:
            How many entries went.
        """
        packed = {
            (protocol, records.backend_bytes(backend))
            for protocol, backend in gone
            if protocol in records.FORGETFUL
        }
        if not packed:
            return 0
        total = 0
        for name, towards in (
            ("sockets", records.sockets_towards),
            ("translations", records.translations_towards),
        ):
            keys = towards(self._maps[name].entries(), packed)
            self._maps[name].delete(keys)
            total += len(keys)
        return total + end_connected(
            records.sockets_connected(self._maps["sockets"].entries(), packed)
        )

    def service_counts(self) -> tuple[ServiceCount, ...]:
        """Reads the counters; services that nobody has asked for are left out."""
        return tuple(map(records.to_service_count, self._maps["service_counts"].entries()))

    def delete_service_counts(self, services: Iterable[int]) -> None:
        """Removes the counters of services that are gone."""
        self._maps["service_counts"].delete(map(number_key, services))

    def balancing(self) -> Balancing:
        """Reads everything back."""
        return Balancing(
            frontends=frozenset(map(records.to_frontend, self._maps["frontends"].entries())),
            slots=frozenset(map(records.to_slot, self._maps["slots"].entries())),
            members=frozenset(map(records.to_member, self._maps["members"].entries())),
            sources=frozenset(map(records.to_source, self._maps["sources"].entries())),
            tables={
                number_of(key): _read_table(number_of(value))
                for key, value in self._maps["tables"].entries()
            },
        )


def _new_table(parts: Sequence[bytes]) -> KernelMap:
    table = create_array("table", len(parts[0]), len(parts), flags=INNER_MAP)
    try:
        for number, part in enumerate(parts):
            table.put(number_key(number), part)
    except BaseException:
        table.close()
        raise
    return table


def _read_table(number: int) -> bytes:
    """number: of the map, which is what `tables` shows in place of the descriptor it was given."""
    table = open_by_id("table", number)
    try:
        parts = [table.get(number_key(part)) for part in range(table.shape.capacity)]
        return b"".join(abi.TablePart.unpack(part).slots for part in parts if part is not None)
    finally:
        table.close()
