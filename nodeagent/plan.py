"""From what the kernel holds to what it should hold: a complete, printable tuple of steps. Pure.

Every prefix of the steps is safe. Where packets of an interface are judged (its subject, one
direction, one remote address), what passes at any moment would pass before the first step or after
the last one, and nothing refers to what is not there:

    1. write new policy sets          nothing refers to them yet
    2. close                          interfaces that go, close, or change sides
    3. next hops                      first what keeps its source on the way there
    4. doubt                          addresses and blocks that change belong to UNKNOWN
    5. routes                         kernel routes of blocks
    6. switch                         subjects to new sets (atomic each), interfaces to identities
    7. addresses                      new and changed mappings, blocks, then mappings that go
    8. after the grace period         delete what nothing refers to any more

An address must not change while policies do: under one set it could pass as its old self or as
nobody, although the old state denies it by the old set and the new state by the new one. With rules
that deny, nobody is no safe thing to be either: who is denied by identity passes as OTHER_POD or
WORLD where everybody else may. So in between it is UNKNOWN, to whom every set says no.
Where nothing is switched there is no such moment: mappings change in place, without a gap, and
their order lets no address be OTHER_POD between WORLD and its identity.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

from deltaplane.model.identity import Reserved
from nodeagent.dataplane.port import LocalEndpoint, Mapping, PolicySet, Range, Subject
from nodeagent.policy import ResolvedDirection
from nodeagent.state import InForce, Kernel, Policies, Wanted
from nodeagent.steps import (
    AddMembers,
    AddRoutes,
    DeleteEndpoints,
    DeleteMappings,
    DeleteMembers,
    DeleteNextHops,
    DeleteRanges,
    DeleteRoutes,
    DeleteSets,
    DeleteSubjects,
    SetEndpoints,
    SetMappings,
    SetNextHops,
    SetRanges,
    Step,
    SwitchSubjects,
    Synchronize,
    WriteSet,
)

K = TypeVar("K")
V = TypeVar("V")
Who = TypeVar("Who", Mapping, Range)


@dataclass
class Numbers:
    """Counters for set ids and epochs: the next of each. They only go up."""

    next_set: int
    next_epoch: int

    def take_set(self) -> int:
        """A set id that nothing refers to."""
        self.next_set += 1
        return self.next_set - 1

    def take_epoch(self) -> int:
        """An epoch that no connection has seen."""
        self.next_epoch += 1
        return self.next_epoch - 1


@dataclass
class _Policies:
    """The policy part of a plan while it is made."""

    writes: list[WriteSet] = field(default_factory=list)
    switches: list[InForce] = field(default_factory=list)
    unused: list[int] = field(default_factory=list)


def plan(wanted: Wanted, kernel: Kernel, numbers: Numbers, *, in_sync: bool) -> tuple[Step, ...]:
    """Plans the way from one state to the other. Both may be cut to the keys of interest.

    Args:
        wanted: what should be.
        kernel: what is.
        numbers: where new set ids and epochs come from.
        in_sync: whether what is not wanted may go; False keeps it until a complete snapshot says
            so.
    """
    policies = _plan_policies(wanted, kernel, numbers)
    endpoints = _changed(wanted.endpoints, kernel.endpoints)
    closing = [e for e in endpoints if e.identity == 0]
    closing += _leaving(endpoints, kernel, policies.switches)
    opening = [e for e in endpoints if e.identity != 0]
    switching = bool(policies.switches or opening)
    steps: list[Step] = [
        *policies.writes,
        # Which interfaces there are is the journal's knowledge, not the stream's.
        DeleteEndpoints(tuple(_gone(wanted.endpoints, kernel.endpoints))),
        SetEndpoints(tuple(closing)),
        AddMembers(tuple(_changed(wanted.members, kernel.members))),
        SetNextHops(tuple(_changed(wanted.next_hops, kernel.next_hops))),
        *(_doubt(wanted, kernel, in_sync=in_sync) if switching else ()),
        AddRoutes(tuple(_changed(wanted.routes, kernel.routes))),
        SwitchSubjects(tuple(policies.switches)),
        SetEndpoints(tuple(opening)),
        SetMappings(tuple(_changed(wanted.mappings, kernel.mappings))),
        SetRanges(tuple(_changed(wanted.ranges, kernel.ranges))),
    ]
    if in_sync:
        # A mapping that goes must not fall back to a block that goes, too.
        steps += [
            DeleteRanges(tuple(_gone(wanted.ranges, kernel.ranges))),
            DeleteMappings(tuple(_gone(wanted.mappings, kernel.mappings))),
            *_leftovers(wanted, kernel, policies.unused),
        ]
    else:
        steps += [Synchronize(), DeleteSets(tuple(policies.unused))] if policies.unused else []
    return tuple(step for step in steps if not _is_empty(step))


def _doubt(wanted: Wanted, kernel: Kernel, *, in_sync: bool) -> Iterator[Step]:
    """Makes UNKNOWN whoever is about to come, to go or to become somebody else."""
    unknown = int(Reserved.UNKNOWN)
    mappings = [
        replace(mapping, identity=unknown)
        for mapping in _coming_and_going(wanted.mappings, kernel.mappings, in_sync=in_sync)
    ]
    ranges = [
        replace(entry, identity=unknown)
        for entry in _coming_and_going(wanted.ranges, kernel.ranges, in_sync=in_sync)
    ]
    yield SetMappings(tuple(mappings))
    yield SetRanges(tuple(ranges))


def _coming_and_going(wanted: dict[K, Who], kernel: dict[K, Who], *, in_sync: bool) -> list[Who]:
    """Who changes identity: as it will be, or, if it goes, as it was."""
    changed = [
        value
        for key, value in wanted.items()
        if (held := kernel.get(key)) is None or held.identity != value.identity
    ]
    return changed + ([kernel[key] for key in _gone(wanted, kernel)] if in_sync else [])


def _leaving(
    endpoints: list[LocalEndpoint], kernel: Kernel, switches: list[InForce]
) -> list[LocalEndpoint]:
    """Interfaces that leave an identity whose policies change: closed until they have arrived.

    Neither the old policies of the new identity nor the new policies of the old one are theirs.
    """
    switched = {in_force.subject.identity for in_force in switches}
    return [
        replace(held, identity=0)
        for endpoint in endpoints
        if (held := kernel.endpoints.get(endpoint.ifindex)) is not None
        and held.identity in switched
        and held.identity != endpoint.identity != 0
    ]


def _leftovers(wanted: Wanted, kernel: Kernel, unused: list[int]) -> list[Step]:
    subjects = _gone(wanted.subjects, kernel.subjects)
    for identity in subjects:
        unused = [*unused, *(s for s in kernel.subjects[identity].subject.sets if s)]
    unused = sorted({*unused, *kernel.orphan_sets})
    deletions: list[Step] = [
        DeleteSubjects(tuple(subjects)),
        # The grace period of everything before: what is deleted next is in nobody's hands.
        *([Synchronize()] if unused else []),
        DeleteSets(tuple(unused)),
        DeleteRoutes(tuple(kernel.routes[key] for key in _gone(wanted.routes, kernel.routes))),
        DeleteNextHops(tuple(_gone(wanted.next_hops, kernel.next_hops))),
        DeleteMembers(tuple(_gone(wanted.members, kernel.members))),
    ]
    return deletions


def _plan_policies(wanted: Wanted, kernel: Kernel, numbers: Numbers) -> _Policies:
    """New sets for what changed; a direction that says the same keeps its set."""
    planned = _Policies()
    for identity, policies in sorted(wanted.subjects.items()):
        held = kernel.subjects.get(identity)
        if held is not None and held.policies == policies:
            continue
        sets = []
        for now, before, old in _directions(policies, held):
            if before is not None and now == before.content:
                sets.append(old)
                continue
            sets.append(_write(now, identity, numbers, planned))
            if old:
                planned.unused.append(old)
        subject = Subject(
            identity=identity,
            ingress_set=sets[0],
            egress_set=sets[1],
            audit_ingress_set=sets[2],
            audit_egress_set=sets[3],
            epoch=numbers.take_epoch(),
        )
        planned.switches.append(InForce(subject, policies))
    return planned


def to_write(policies: Policies, held: InForce | None) -> list[ResolvedDirection]:
    """The contents that need a new set; a direction that says the same keeps its own."""
    if held is not None and held.policies == policies:
        return []
    return [
        now
        for now, before, _ in _directions(policies, held)
        if now is not None and (before is None or now != before.content)
    ]


@dataclass(frozen=True, slots=True)
class _Before:
    content: ResolvedDirection | None


def _directions(
    policies: Policies, held: InForce | None
) -> list[tuple[ResolvedDirection | None, _Before | None, int]]:
    """(what it says now, what it said before, its old set) for each of the four sets."""
    if held is None:
        return [(content, None, 0) for content in policies.sets]
    return [
        (content, _Before(before), number)
        for content, before, number in zip(
            policies.sets, held.policies.sets, held.subject.sets, strict=True
        )
    ]


def _write(
    content: ResolvedDirection | None, identity: int, numbers: Numbers, planned: _Policies
) -> int:
    if content is None:
        return 0
    number = numbers.take_set()
    planned.writes.append(
        WriteSet(
            PolicySet(set_id=number, entries=content.entries, prefixes=content.prefixes), identity
        )
    )
    return number


def _changed(wanted: dict[K, V], kernel: dict[K, V]) -> list[V]:
    return [value for key, value in wanted.items() if kernel.get(key) != value]


def _gone(wanted: Iterable[K], kernel: Iterable[K]) -> list[K]:
    # In the kernel's order of keys: prefixes, numbers and addresses do not compare alike.
    kept = set(wanted)
    return [key for key in kernel if key not in kept]


def _is_empty(step: Step) -> bool:
    names = [item.name for item in fields(step)]
    return bool(names) and not getattr(step, names[0])
