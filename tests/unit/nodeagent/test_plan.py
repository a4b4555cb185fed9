"""Every prefix of a plan is safe, and the whole of it does what was wanted."""

from collections.abc import Iterator
from copy import deepcopy

from hypothesis import given, settings
from hypothesis import strategies as st

from deltaplane.model.addresses import Prefix, parse_address, to_mapped
from deltaplane.model.identity import Reserved
from nodeagent import steps as s
from nodeagent.dataplane.port import (
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
from nodeagent.policy import CLASS_BIT, ResolvedDirection, verdict
from nodeagent.routes import Route
from nodeagent.state import InForce, Kernel, Policies, Wanted

IDENTITIES = (300, 301, 302)
REMOTES = tuple(to_mapped(parse_address(text)) for text in ("10.0.1.1", "10.0.1.2", "fd00::2"))
PODS = (11, 12)
NODES = (1, 2)
PORTS = (80, 443)
BLOCK = Prefix.parse("10.0.1.0/26")


def entry_order(entry: PolicyEntry) -> tuple[int, ...]:
    return (entry.peer, -1 if entry.protocol is None else entry.protocol, entry.port or -1)


entries = st.builds(
    lambda peer, port: PolicyEntry(
        peer=peer,
        protocol=None if port is None else 6,
        port=port,
        port_bits=0 if port is None else 16,
    ),
    st.sampled_from((0, *IDENTITIES, CLASS_BIT | 1)),
    st.sampled_from((None, *PORTS)),
)
directions = st.one_of(
    st.none(),
    st.builds(
        lambda found, prefixed: ResolvedDirection(
            entries=tuple(sorted(found, key=entry_order)),
            prefixes=(PrefixEntry(address=REMOTES[0], length=128, peer_class=CLASS_BIT | 1),)
            if prefixed
            else (),
        ),
        st.sets(entries, max_size=4),
        st.booleans(),
    ),
)
policies = st.builds(Policies, directions, directions)


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
            BLOCK.mapped: Range(
                address=BLOCK.mapped[0],
                length=BLOCK.mapped[1],
                identity=int(Reserved.OTHER_POD),
                node_index=owner,
            )
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
        sets = [0 if d is None else next(numbers) for d in (content.ingress, content.egress)]
        entry = Subject(identity=identity, ingress_set=sets[0], egress_set=sets[1], epoch=1)
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
    mapping = kernel.mappings.get(remote)
    in_block = BLOCK.contains(remote[12:]) and BLOCK.mapped in kernel.ranges
    other = Reserved.OTHER_POD if in_block else Reserved.WORLD
    peer = mapping.identity if mapping else int(other)
    return verdict(tables, peer, remote, 6, port) is Verdict.ALLOW


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
            case s.SwitchSubjects(items) | s.SetEndpoints(items) | s.SetMappings(items):
                parts = [type(step)((item,)) for item in items]  # type: ignore[arg-type]
            case _:
                parts = [step]
        for part in parts:
            s.record(now, part)
            yield now


def no_reference_dangles(kernel: Kernel, written: set[int]) -> None:
    for in_force in kernel.subjects.values():
        assert {in_force.subject.ingress_set, in_force.subject.egress_set} - {0} <= written
    indexes = {mapping.node_index for mapping in kernel.mappings.values()}
    indexes |= {entry.node_index for entry in kernel.ranges.values()}
    assert indexes <= kernel.next_hops.keys()


def sets_of(kernel: Kernel) -> set[int]:
    found = {
        number
        for in_force in kernel.subjects.values()
        for number in (in_force.subject.ingress_set, in_force.subject.egress_set)
    }
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
