"""The steps of a plan: values that print, and what each makes of the kernel's state. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar, assert_never

from nodeagent.dataplane.port import LocalEndpoint, Mapping, NextHop, PolicySet, Range
from nodeagent.masquerade import Member
from nodeagent.routes import Route
from nodeagent.state import InForce, Kernel, RangeKey, Touched

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class WriteSet:
    """Writes a whole policy set for a subject; nothing refers to it yet."""

    policy_set: PolicySet
    identity: int


@dataclass(frozen=True, slots=True)
class DeleteMappings:
    """Addresses, 16 bytes each."""

    addresses: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SetNextHops:
    """Nodes."""

    next_hops: tuple[NextHop, ...]


@dataclass(frozen=True, slots=True)
class AddRoutes:
    """Kernel routes; one for the same block is replaced."""

    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class AddMembers:
    """Pools and nodes to which packets keep their source."""

    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class SetRanges:
    """Blocks in the data path."""

    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class SwitchSubjects:
    """Subjects and what their sets say."""

    subjects: tuple[InForce, ...]


@dataclass(frozen=True, slots=True)
class SetEndpoints:
    """Interfaces: opens, closes, gives another identity."""

    endpoints: tuple[LocalEndpoint, ...]


@dataclass(frozen=True, slots=True)
class SetMappings:
    """New or changed mappings."""

    mappings: tuple[Mapping, ...]


@dataclass(frozen=True, slots=True)
class Synchronize:
    """Waits until no program runs on what was replaced."""


@dataclass(frozen=True, slots=True)
class DeleteEndpoints:
    """Interfaces whose links are gone."""

    ifindexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DeleteSubjects:
    """Subjects that no interface has any more."""

    identities: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DeleteSets:
    """Policy sets that no subject refers to any more."""

    set_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DeleteRanges:
    """Blocks in the data path."""

    ranges: tuple[RangeKey, ...]


@dataclass(frozen=True, slots=True)
class DeleteRoutes:
    """Kernel routes."""

    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class DeleteNextHops:
    """Nodes that no range refers to any more."""

    node_indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DeleteMembers:
    """Pools and nodes of the masquerading."""

    members: tuple[Member, ...]


Step = (
    WriteSet
    | DeleteMappings
    | AddMembers
    | SetNextHops
    | AddRoutes
    | SetRanges
    | SwitchSubjects
    | SetEndpoints
    | SetMappings
    | Synchronize
    | DeleteEndpoints
    | DeleteSubjects
    | DeleteSets
    | DeleteRanges
    | DeleteRoutes
    | DeleteNextHops
    | DeleteMembers
)


DELETIONS = (
    DeleteMappings,
    DeleteEndpoints,
    DeleteSubjects,
    DeleteSets,
    DeleteRanges,
    DeleteRoutes,
    DeleteNextHops,
    DeleteMembers,
)


def keys(step: Step) -> Touched:  # noqa: C901, PLR0911, PLR0912 - one case per step
    """The keys that a step is about."""
    match step:
        case WriteSet(_, identity):
            return Touched(subjects={identity})
        case SwitchSubjects(subjects):
            return Touched(subjects={switched.subject.identity for switched in subjects})
        case DeleteSubjects(identities):
            return Touched(subjects=set(identities))
        case SetEndpoints(endpoints):
            return Touched(endpoints={endpoint.ifindex for endpoint in endpoints})
        case DeleteEndpoints(ifindexes):
            return Touched(endpoints=set(ifindexes))
        case SetMappings(mappings):
            return Touched(mappings={mapping.address for mapping in mappings})
        case DeleteMappings(addresses):
            return Touched(mappings=set(addresses))
        case SetNextHops(next_hops):
            return Touched(next_hops={hop.node_index for hop in next_hops})
        case DeleteNextHops(indexes):
            return Touched(next_hops=set(indexes))
        case SetRanges(ranges):
            return Touched(ranges={(entry.address, entry.length) for entry in ranges})
        case DeleteRanges(range_keys):
            return Touched(ranges=set(range_keys))
        case AddRoutes(routes) | DeleteRoutes(routes):
            return Touched(routes={route.prefix for route in routes})
        case AddMembers(members) | DeleteMembers(members):
            return Touched(members=set(members))
        case Synchronize() | DeleteSets():
            return Touched()
        case _:
            assert_never(step)


def record(kernel: Kernel, step: Step) -> None:  # noqa: C901, PLR0912 - one case per step
    """Changes the state as the step changes the kernel."""
    match step:
        case WriteSet(policy_set):
            kernel.orphan_sets.add(policy_set.set_id)
        case SwitchSubjects(subjects):
            for switched in subjects:
                _switch(kernel, switched)
        case DeleteSubjects(identities):
            for identity in identities:
                _release_sets(kernel, kernel.subjects.pop(identity, None))
        case DeleteSets(set_ids):
            kernel.orphan_sets -= set(set_ids)
        case SetEndpoints(endpoints):
            kernel.endpoints |= {endpoint.ifindex: endpoint for endpoint in endpoints}
        case DeleteEndpoints(ifindexes):
            _drop(kernel.endpoints, ifindexes)
        case SetMappings(mappings):
            kernel.mappings |= {mapping.address: mapping for mapping in mappings}
        case DeleteMappings(addresses):
            _drop(kernel.mappings, addresses)
        case AddMembers(members):
            kernel.members |= {member: member for member in members}
        case DeleteMembers(members):
            _drop(kernel.members, members)
        case Synchronize():
            pass
        case _:
            _record_node_routes(kernel, step)


def _record_node_routes(
    kernel: Kernel,
    step: SetNextHops | AddRoutes | SetRanges | DeleteRanges | DeleteRoutes | DeleteNextHops,
) -> None:
    match step:
        case SetNextHops(next_hops):
            kernel.next_hops |= {hop.node_index: hop for hop in next_hops}
        case AddRoutes(routes):
            kernel.routes |= {route.prefix: route for route in routes}
        case SetRanges(ranges):
            kernel.ranges |= {(entry.address, entry.length): entry for entry in ranges}
        case DeleteRanges(keys):
            _drop(kernel.ranges, keys)
        case DeleteRoutes(routes):
            _drop(kernel.routes, [route.prefix for route in routes])
        case DeleteNextHops(indexes):
            _drop(kernel.next_hops, indexes)
        case _:
            assert_never(step)


def _switch(kernel: Kernel, switched: InForce) -> None:
    before = kernel.subjects.get(switched.subject.identity)
    kernel.subjects[switched.subject.identity] = switched
    kernel.orphan_sets -= _sets(switched)
    if before is not None:
        kernel.orphan_sets |= _sets(before) - _sets(switched)


def _release_sets(kernel: Kernel, gone: InForce | None) -> None:
    if gone is not None:
        kernel.orphan_sets |= _sets(gone)


def _sets(in_force: InForce) -> set[int]:
    return set(in_force.subject.sets) - {0}


def _drop(table: dict[K, V], keys: Iterable[K]) -> None:
    for key in keys:
        table.pop(key, None)
