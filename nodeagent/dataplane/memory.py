"""A data plane in memory and a file, for machines whose kernel may not have one. No packet passes.

The file is to it what pinned maps are to the kernel's: it outlives the agent, which finds in it
what an earlier one has left, and others may read it. It does not outlive a power failure.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import msgspec

from nodeagent.dataplane.balancing import Balancing
from nodeagent.dataplane.config import Capacities
from nodeagent.dataplane.fake import FakeDataPlane
from nodeagent.dataplane.port import Actual

FILE = "plane.msgpack"

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """All that the plane of a node holds. node_index: 0: it is not registered yet."""

    node_index: int
    actual: Actual
    balancing: Balancing


def read(folder: Path) -> Held | None:
    """What a plane has left in its folder; None: there is none.

    Raises:
        ValueError: the file is none of ours.
    """
    try:
        return decode((folder / FILE).read_bytes())
    except FileNotFoundError:
        return None


def decode(content: bytes) -> Held:
    """What a file says.

    Raises:
        ValueError: it is none of ours.
    """
    return msgspec.msgpack.decode(content, type=Held)


def _kept(
    change: Callable[Concatenate[FakeDataPlane, P], T],
) -> Callable[Concatenate["MemoryDataPlane", P], T]:
    """A change after which the file agrees, also where it has failed half-way."""

    @functools.wraps(change)
    def changing(plane: "MemoryDataPlane", /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return change(plane, *args, **kwargs)
        finally:
            plane.save()

    return changing


class MemoryDataPlane(FakeDataPlane):
    """Implements DataPlane. Made on a folder in which a plane was, it takes that over."""

    def __init__(self, folder: Path, capacities: Capacities | None = None) -> None:
        super().__init__(capacities)
        self._file = folder / FILE
        held = read(folder)
        if held is not None:
            self._restore(held)

    def _restore(self, held: Held) -> None:
        kept = held.actual
        self.node_index = held.node_index
        self._applied = kept.applied
        super().upsert_mappings(tuple(kept.mappings))
        super().upsert_ranges(tuple(kept.ranges))
        super().upsert_next_hops(tuple(kept.next_hops))
        for policy_set in kept.policy_sets:
            super().write_policy_set(policy_set)
        super().upsert_subjects(tuple(kept.subjects))
        super().upsert_local_endpoints(tuple(kept.local_endpoints))
        super().upsert_frontends(tuple(held.balancing.frontends))
        super().upsert_slots(tuple(held.balancing.slots))
        super().upsert_members(tuple(held.balancing.members))
        super().upsert_sources(tuple(held.balancing.sources))
        super().write_tables(held.balancing.tables.items())

    def save(self) -> None:
        """Makes the file agree; a reader sees the old or the new one."""
        held = Held(node_index=self.node_index, actual=self.dump(), balancing=self.balancing())
        fresh = self._file.with_suffix(".new")
        fresh.write_bytes(msgspec.msgpack.encode(held))
        fresh.replace(self._file)

    upsert_mappings = _kept(FakeDataPlane.upsert_mappings)
    delete_mappings = _kept(FakeDataPlane.delete_mappings)
    upsert_ranges = _kept(FakeDataPlane.upsert_ranges)
    delete_ranges = _kept(FakeDataPlane.delete_ranges)
    upsert_next_hops = _kept(FakeDataPlane.upsert_next_hops)
    delete_next_hops = _kept(FakeDataPlane.delete_next_hops)
    write_policy_set = _kept(FakeDataPlane.write_policy_set)
    delete_policy_sets = _kept(FakeDataPlane.delete_policy_sets)
    upsert_subjects = _kept(FakeDataPlane.upsert_subjects)
    delete_subjects = _kept(FakeDataPlane.delete_subjects)
    upsert_local_endpoints = _kept(FakeDataPlane.upsert_local_endpoints)
    delete_local_endpoints = _kept(FakeDataPlane.delete_local_endpoints)
    set_node_index = _kept(FakeDataPlane.set_node_index)
    set_applied = _kept(FakeDataPlane.set_applied)
    upsert_frontends = _kept(FakeDataPlane.upsert_frontends)
    delete_frontends = _kept(FakeDataPlane.delete_frontends)
    upsert_slots = _kept(FakeDataPlane.upsert_slots)
    delete_slots = _kept(FakeDataPlane.delete_slots)
    upsert_members = _kept(FakeDataPlane.upsert_members)
    delete_members = _kept(FakeDataPlane.delete_members)
    upsert_sources = _kept(FakeDataPlane.upsert_sources)
    delete_sources = _kept(FakeDataPlane.delete_sources)
    write_tables = _kept(FakeDataPlane.write_tables)
    delete_tables = _kept(FakeDataPlane.delete_tables)
