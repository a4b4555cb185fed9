"""Runs steps against the kernel. It makes no choices."""

from collections.abc import Mapping
from typing import Protocol, assert_never

from deltaplane.model.addresses import Prefix
from nodeagent import steps as s
from nodeagent.dataplane.port import DataPlane, RuleCount
from nodeagent.masquerade import Masquerade
from nodeagent.routes import Route


class RouteTable(Protocol):
    """The kernel routes of blocks. Blocking."""

    def add(self, routes: tuple[Route, ...]) -> None:
        """Makes routes; one for the same block is replaced. Raises OSError."""
        ...

    def delete(self, routes: tuple[Route, ...]) -> None:
        """Removes routes; absent ones are fine. Raises OSError."""
        ...

    def dump(self) -> Mapping[Prefix, Route]:
        """All routes that are ours."""
        ...


class StepFailed(Exception):
    """A step did not work. The kernel may hold a part of it."""

    def __init__(self, step: s.Step, reason: str) -> None:
        super().__init__(reason)
        self.step = step
        self.reason = reason


def execute(  # noqa: C901, PLR0912 - one case per step
    step: s.Step, dataplane: DataPlane, table: RouteTable, masquerade: Masquerade
) -> tuple[RuleCount, ...]:
    """Runs one step; returns what policy sets that it deletes have counted.

    Raises:
        CapacityError: a map is full.
        OSError: the kernel refuses.
    """
    match step:
        case s.WriteSet(policy_set):
            dataplane.write_policy_set(policy_set)
        case s.DeleteMappings(addresses):
            dataplane.delete_mappings(addresses)
        case s.SetNextHops(next_hops):
            dataplane.upsert_next_hops(next_hops)
        case s.AddMembers(members):
            masquerade.add(members)
        case s.AddRoutes(routes):
            table.add(routes)
        case s.SetRanges(ranges):
            dataplane.upsert_ranges(ranges)
        case s.SwitchSubjects(subjects):
            dataplane.upsert_subjects([switched.subject for switched in subjects])
        case s.SetEndpoints(endpoints):
            dataplane.upsert_local_endpoints(endpoints)
        case s.SetMappings(mappings):
            dataplane.upsert_mappings(mappings)
        case s.Synchronize():
            dataplane.synchronize()
        case s.DeleteEndpoints(ifindexes):
            dataplane.delete_local_endpoints(ifindexes)
        case s.DeleteSubjects(identities):
            dataplane.delete_subjects(identities)
        case s.DeleteSets(set_ids):
            return dataplane.delete_policy_sets(set_ids)
        case s.DeleteRanges(ranges):
            dataplane.delete_ranges(ranges)
        case s.DeleteRoutes(routes):
            table.delete(routes)
        case s.DeleteNextHops(node_indexes):
            dataplane.delete_next_hops(node_indexes)
        case s.DeleteMembers(members):
            masquerade.delete(members)
        case _:
            assert_never(step)
    return ()
