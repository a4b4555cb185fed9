"""Every prefix of a plan is safe, and the whole of it does what was wanted."""

from collections.abc import Iterator
from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaplane.model.addresses import Prefix, parse_address, to_mapped
from deltaplane.model.identity import Reserved
from deltaplane.model.tiers import Action
from nodeagent import steps as s
from nodeagent.dataplane.port import (
    ALLOWING,
    LocalEndpoint,
    Mapping,
    NextHop,
    PolicyEntry,
    PrefixEntry,
    Range,
    Subject,
    Verdict,
)
from nodeagent.plan import Numbers, plan
from nodeagent.policy import ResolvedDirection
from nodeagent.routes import Route
from nodeagent.state import InForce, Kernel, Policies, Wanted
from nodeagent.verdict import CLASS_BIT, decision, verdict

IDENTITIES = (300, 301, 302)
REMOTES = tuple(to_mapped(parse_address(text)) for text in ("10.0.1.1", "10.0.1.2", "fd00::2"))
PODS = (11, 12)
NODES = (1, 2)
PORTS = (80, 443)
CLASSES = (CLASS_BIT | 1, CLASS_BIT | 2)
BLOCK = Prefix.parse("10.0.1.0/26")
BLOCKS = (BLOCK, Prefix.parse("10.0.1.2/32"), Prefix.parse("fd00::/122"))


def entry_order(entry: PolicyEntry) -> tuple[int, ...]:
    return (entry.peer, -1 if entry.protocol is None else entry.protocol, entry.port or -1)


DECISIONS = (
    ALLOWING,
    (0, decision(2, Action.DENY), 0),
    (decision(1, Action.PASS), 0, 0),
    (decision(2, Action.DENY), 0, 0),
    (decision(3, Action.ALLOW), 0, 0),
    (0, 0, decision(0, Action.ALLOW)),
    (0, 0, decision(1, Action.DENY)),
)
ENTRIES = tuple(
    PolicyEntry(
        peer=peer,
        protocol=None if port is None else 6,
        port=port,
        port_bits=0 if port is None else 16,
        decisions=decisions,
    )
    for peer in (0, Reserved.WORLD, Reserved.OTHER_POD, *IDENTITIES, *CLASSES)
    for port in (None, *PORTS)
    for decisions in DECISIONS
)
PREFIXES = tuple(
    (PrefixEntry(address=REMOTES[0], length=128, peer_class=inside, outside_class=outside),)
    for inside in (0, *CLASSES)
    for outside in (0, *CLASSES)
)
directions = st.one_of(
    st.none(),
    st.builds(
        lambda found, prefixes: ResolvedDirection(
            entries=tuple(sorted(found, key=entry_order)), prefixes=prefixes
        ),
        st.lists(
            st.sampled_from(ENTRIES),
            max_size=4,
            unique_by=lambda entry: (entry.peer, entry.protocol, entry.port),
        ),
        st.sampled_from(((), *PREFIXES)),
    ),
)
audits = st.sampled_from((None, *(ResolvedDirection(entries=(e,), prefixes=()) for e in ENTRIES)))
policies = st.builds(Policies, directions, directions, audits, audits)


@st.composite
def wanted_states(draw: st.DrawFn) -> Wanted:
    """A closed state: what is referred to is there."""
    nodes = draw(st.sets(st.sampled_from(NODES), min_size=1))
    owner = draw(st.sampled_from(sorted(nodes)))
    mappings = {
        address: Mapping(
            address=address,
            identity=draw(st.sampled_from(IDENTITIES)),
            node_index=draw(st.sampled_from(sorted(nodes))),
        )
        for address in draw(st.sets(st.sampled_from(REMOTES)))
    }
    endpoints = {
        ifindex: LocalEndpoint(
            ifindex=ifindex,
            endpoint_id=ifindex,
            identity=draw(st.sampled_from((0, *IDENTITIES))),
            ipv4=bytes((10, 0, 0, ifindex)),
            ipv6=None,
            pod_mac=bytes(6),
            host_mac=bytes(6),
        )
        for ifindex in draw(st.sets(st.sampled_from(PODS)))
    }
    identities = {e.identity for e in endpoints.values()} - {0}
    return Wanted(
        next_hops={
            index: NextHop(node_index=index, ipv4=bytes((192, 0, 2, index)), ipv6=None)
            for index in nodes
        },
        ranges={
            block.mapped: Range(
                address=block.mapped[0],
                length=block.mapped[1],
                identity=int(Reserved.OTHER_POD),
                node_index=owner,
            )
            for block in draw(st.sets(st.sampled_from(BLOCKS)))
        },
        routes={BLOCK: Route(BLOCK, bytes((192, 0, 2, owner)))},
        mappings=mappings,
        subjects={identity: draw(policies) for identity in sorted(identities)},
        endpoints=endpoints,
    )


def as_kernel(wanted: Wanted) -> Kernel:
    """The kernel after a faultless plan from nothing, made without the planner."""
    numbers = iter(range(1, 1000))
    subjects = {}
    for identity, content in wanted.subjects.items():
        sets = [0 if d is None else next(numbers) for d in content.sets]
        entry = Subject(
            identity=identity,
            ingress_set=sets[0],
            egress_set=sets[1],
            audit_ingress_set=sets[2],
            audit_egress_set=sets[3],
            epoch=1,
        )
        subjects[identity] = InForce(entry, content)
    copied = deepcopy(wanted)
    return Kernel(
        next_hops=copied.next_hops,
        ranges=copied.ranges,
        routes=copied.routes,
        mappings=copied.mappings,
        subjects=subjects,
        endpoints=copied.endpoints,
    )


def passes(kernel: Kernel, ifindex: int, remote: bytes, port: int, *, ingress: bool) -> bool:
    """What the data path decides about the first packet of a connection."""
    endpoint = kernel.endpoints.get(ifindex)
    subject = kernel.subjects.get(endpoint.identity) if endpoint else None
    if subject is None:
        return False
    tables = subject.policies.ingress if ingress else subject.policies.egress
    return verdict(tables, identity_of(kernel, remote), remote, 6, port) is Verdict.ALLOW


def identity_of(kernel: Kernel, remote: bytes) -> int:
    """Who has an address: its mapping says it, else the longest block that holds it."""
    mapping = kernel.mappings.get(remote)
    if mapping is not None:
        return mapping.identity
    around = [
        entry
        for entry in kernel.ranges.values()
        if int.from_bytes(entry.address) >> (128 - entry.length)
        == int.from_bytes(remote) >> (128 - entry.length)
    ]
    longest = max(around, key=lambda entry: entry.length, default=None)
    return int(Reserved.WORLD) if longest is None else longest.identity


def passing(kernel: Kernel) -> set[tuple[int, bytes, int, bool]]:
    return {
        (ifindex, remote, port, ingress)
        for ifindex in PODS
        for remote in REMOTES
        for port in PORTS
        for ingress in (True, False)
        if passes(kernel, ifindex, remote, port, ingress=ingress)
    }


def moments(kernel: Kernel, steps: tuple[s.Step, ...]) -> Iterator[Kernel]:
    """The kernel before, after each step, and after each element of a step that is not atomic."""
    now = deepcopy(kernel)
    for step in steps:
        parts: list[s.Step]
        match step:
            case (
                s.SwitchSubjects(items)
                | s.SetEndpoints(items)
                | s.SetMappings(items)
                | s.DeleteMappings(items)
                | s.SetRanges(items)
                | s.DeleteRanges(items)
            ):
                parts = [type(step)((item,)) for item in items]  # type: ignore[arg-type]
            case _:
                parts = [step]
        for part in parts:
            s.record(now, part)
            yield now


def no_reference_dangles(kernel: Kernel, written: set[int]) -> None:
    for in_force in kernel.subjects.values():
        assert set(in_force.subject.sets) - {0} <= written
    indexes = {mapping.node_index for mapping in kernel.mappings.values()}
    indexes |= {entry.node_index for entry in kernel.ranges.values()}
    assert indexes <= kernel.next_hops.keys()


def sets_of(kernel: Kernel) -> set[int]:
    found = {number for in_force in kernel.subjects.values() for number in in_force.subject.sets}
    return (found | kernel.orphan_sets) - {0}


@settings(max_examples=300)
@given(wanted_states(), wanted_states())
def test_every_moment_is_safe_and_the_last_is_what_was_wanted(old: Wanted, new: Wanted) -> None:
    kernel = as_kernel(old)
    before, after = passing(kernel), passing(as_kernel(new))
    written = sets_of(kernel)

    steps = plan(new, kernel, Numbers(1000, 2), in_sync=True)

    now = kernel
    for now in moments(kernel, steps):
        assert passing(now) <= before | after, steps
    running = deepcopy(kernel)
    for step in steps:
        if isinstance(step, s.WriteSet):
            written.add(step.policy_set.set_id)
        if isinstance(step, s.DeleteSets):
            assert not written.isdisjoint(step.set_ids)
            written -= set(step.set_ids)
        s.record(running, step)
        no_reference_dangles(running, written)
    assert now.mappings == new.mappings
    assert now.endpoints == new.endpoints
    assert now.ranges == new.ranges
    assert now.routes == new.routes
    assert now.next_hops == new.next_hops
    assert {i: held.policies for i, held in now.subjects.items()} == new.subjects
    assert not now.orphan_sets
    assert sets_of(now) == written


@given(wanted_states(), wanted_states())
def test_what_was_planned_needs_no_other_plan(old: Wanted, new: Wanted) -> None:
    kernel = as_kernel(old)
    for step in plan(new, kernel, Numbers(1000, 2), in_sync=True):
        s.record(kernel, step)

    assert plan(new, kernel, Numbers(2000, 3), in_sync=True) == ()


@given(wanted_states(), wanted_states())
def test_nothing_is_swept_before_a_complete_snapshot(old: Wanted, new: Wanted) -> None:
    kernel = as_kernel(old)
    for step in plan(new, kernel, Numbers(1000, 2), in_sync=False):
        s.record(kernel, step)

    assert kernel.mappings == old.mappings | new.mappings
    assert kernel.ranges == old.ranges | new.ranges
    assert kernel.next_hops == old.next_hops | new.next_hops
    assert old.subjects.keys() <= kernel.subjects.keys()
    # Interfaces are not the stream's: one whose link is gone goes at once.
    assert kernel.endpoints == new.endpoints


def policy_of(peer: int) -> Policies:
    return Policies(ResolvedDirection(entries=(PolicyEntry(peer=peer),), prefixes=()), None)


def test_a_changed_policy_is_written_before_it_is_switched_to_and_deleted_after() -> None:
    kernel = as_kernel(Wanted(subjects={300: policy_of(301)}))

    steps = plan(Wanted(subjects={300: policy_of(302)}), kernel, Numbers(9, 9), in_sync=True)

    kinds = [type(step) for step in steps]
    assert kinds == [s.WriteSet, s.SwitchSubjects, s.Synchronize, s.DeleteSets]
    [switched] = next(step.subjects for step in steps if isinstance(step, s.SwitchSubjects))
    assert (switched.subject.ingress_set, switched.subject.epoch) == (9, 9)


def test_a_direction_that_stays_keeps_its_set() -> None:
    stays = ResolvedDirection(entries=(PolicyEntry(peer=301),), prefixes=())
    kernel = as_kernel(Wanted(subjects={300: Policies(stays, None)}))
    wanted = Wanted(subjects={300: Policies(stays, stays)})

    [write, switch] = plan(wanted, kernel, Numbers(9, 9), in_sync=True)

    assert isinstance(write, s.WriteSet)
    assert isinstance(switch, s.SwitchSubjects)
    entry = switch.subjects[0].subject
    assert (entry.ingress_set, entry.egress_set) == (1, 9)


def test_without_a_switch_a_mapping_changes_in_place() -> None:
    address = REMOTES[0]
    old = Mapping(address=address, identity=300, node_index=0)
    new = Mapping(address=address, identity=301, node_index=0)

    steps = plan(
        Wanted(mappings={address: new}),
        Kernel(mappings={address: old}),
        Numbers(1, 1),
        in_sync=True,
    )

    assert steps == (s.SetMappings((new,)),)


@pytest.mark.parametrize("comes", [True, False])
def test_a_block_that_comes_or_goes_with_an_address_is_never_seen_without_it(
    *, comes: bool
) -> None:
    """In between it would be one of every pod, whom rules may allow what they deny to it."""
    here = Wanted(
        next_hops={1: NextHop(node_index=1, ipv4=bytes(4), ipv6=None)},
        ranges={BLOCK.mapped: Range(address=BLOCK.mapped[0], length=BLOCK.mapped[1],
                                    identity=int(Reserved.OTHER_POD), node_index=1)},
        mappings={REMOTES[0]: Mapping(address=REMOTES[0], identity=301, node_index=1)},
    )  # fmt: skip
    old, new = (Wanted(), here) if comes else (here, Wanted())
    kernel = as_kernel(old)
    steps = plan(new, kernel, Numbers(1, 1), in_sync=True)
    seen = [identity_of(now, REMOTES[0]) for now in moments(kernel, steps)]
    assert set(seen) == {301, Reserved.WORLD}
