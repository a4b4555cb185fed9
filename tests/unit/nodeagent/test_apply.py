"""The applier on the fake data plane: adoption, barriers, refusals, waiting."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from deltaplane.errors import Unavailable
from deltaplane.model.addresses import Prefix, parse_address, to_mapped
from deltaplane.model.objects import (
    DirectionPolicy,
    DirectionRule,
    Kind,
    PeerSet,
    SubjectPolicy,
)
from deltaplane.model.policy import IPBlock
from deltaplane.model.ports import PortRange, Protocol
from deltaplane.model.tiers import Action, Tier
from nodeagent.apply import Applier
from nodeagent.dataplane.config import Capacities
from nodeagent.dataplane.fake import FakeDataPlane
from nodeagent.dataplane.port import Applied, LocalEndpoint, Mapping, PolicySet, Subject
from nodeagent.masquerade import Member, Role
from nodeagent.nftables.fake import FakeMasquerade
from nodeagent.policy import RuleName
from nodeagent.stream import ApplyResult
from nodeagent.verdict import decision, ruling_of
from nodeagent.worker import Worker
from tests.unit.nodeagent.worlds import (
    LINEAGE,
    OWN,
    FakeRoutes,
    Stream,
    block,
    endpoint,
    isolated,
    local,
    node,
    open_policy,
    peer_set,
    pool,
)


@asynccontextmanager
async def applying(
    dataplane: FakeDataPlane,
    routes: FakeRoutes | None = None,
    masquerade: FakeMasquerade | None = None,
) -> AsyncIterator[Applier]:
    worker = Worker("test")
    applier = Applier(dataplane, routes or FakeRoutes(), worker, masquerade=masquerade)
    applier.tracker.node_index = OWN
    await applier.load()
    running = asyncio.ensure_future(applier.run())
    try:
        yield applier
    finally:
        running.cancel()
        await asyncio.wait([running])
        worker.close()


async def test_a_new_agent_touches_nothing_before_the_view_is_complete() -> None:
    dataplane, stream = FakeDataPlane(), Stream()
    address = to_mapped(parse_address("10.0.0.9"))
    dataplane.upsert_mappings([Mapping(address=address, identity=300, node_index=0)])
    dataplane.write_policy_set(PolicySet(set_id=7, entries=(), prefixes=()))
    dataplane.upsert_subjects([Subject(identity=300, ingress_set=7, egress_set=0, epoch=40)])
    before = dataplane.dump()
    async with applying(dataplane) as applier:
        assert await applier.barrier(stream.barrier(complete=False)) == ApplyResult()
        assert dataplane.dump() == before
        assert not applier.complete

        await applier.barrier(stream.barrier(node(OWN)))

        after = dataplane.dump()
        assert not after.subjects
        assert not after.policy_sets
        assert address not in {mapping.address for mapping in after.mappings}
        assert after.applied == Applied(lineage=LINEAGE, revision=stream.revision)


async def test_an_adopted_interface_stays_open_through_the_restart() -> None:
    dataplane, stream = FakeDataPlane(), Stream()
    shown = (node(OWN), endpoint(OWN, 1, 300, "10.0.0.1"), isolated(300))
    async with applying(dataplane) as applier:
        await applier.attach(local(1, "10.0.0.1"))
        await applier.barrier(stream.barrier(*shown))
    open_before = dataplane.dump()
    assert {e.identity for e in open_before.local_endpoints} == {300}

    async with applying(dataplane) as applier:
        await applier.attach(local(1, "10.0.0.1"))
        assert dataplane.dump() == open_before
        await applier.barrier(Stream().barrier(*shown))
        again = dataplane.dump()
        # Not even its policy set is written again.
        assert again.subjects == open_before.subjects
        assert again.local_endpoints == open_before.local_endpoints
        assert applier.identities() == {1: 300}


async def test_a_new_set_has_a_number_and_an_epoch_above_all_that_were() -> None:
    dataplane, stream = FakeDataPlane(), Stream()
    dataplane.write_policy_set(PolicySet(set_id=7, entries=(), prefixes=()))
    dataplane.upsert_subjects([Subject(identity=9, ingress_set=7, egress_set=0, epoch=2**31)])
    async with applying(dataplane) as applier:
        await applier.attach(local(1, "10.0.0.1"))
        await applier.barrier(stream.barrier(endpoint(OWN, 1, 300, "10.0.0.1"), isolated(300)))
    [subject] = dataplane.dump().subjects
    assert subject.ingress_set > 7
    assert subject.epoch > 2**31


async def test_add_waits_until_the_policies_are_in_force() -> None:
    dataplane, stream = FakeDataPlane(), Stream()
    async with applying(dataplane) as applier:
        await applier.barrier(stream.barrier(node(OWN)))
        await applier.attach(local(1, "10.0.0.1"))
        await applier.registered(1, 300, stream.revision + 1)
        waiting = asyncio.ensure_future(applier.wait_open(1, 5))
        await asyncio.sleep(0)
        assert not waiting.done()
        assert [e.identity for e in dataplane.dump().local_endpoints] == [0]

        await applier.barrier(
            stream.barrier(node(OWN), endpoint(OWN, 1, 300, "10.0.0.1"), open_policy(300))
        )

        assert await waiting
        assert [e.identity for e in dataplane.dump().local_endpoints] == [300]
        assert not await applier.wait_open(2, 0.01)


async def test_a_known_identity_opens_without_a_barrier() -> None:
    dataplane, stream = FakeDataPlane(), Stream()
    async with applying(dataplane) as applier:
        await applier.barrier(stream.barrier(node(OWN), open_policy(300)))
        assert not dataplane.dump().subjects
        await applier.attach(local(1, "10.0.0.1"))
        await applier.registered(1, 300, stream.revision + 5)
        assert applier.is_open(1)
        assert {s.identity for s in dataplane.dump().subjects} == {300}

        await applier.detach(1)
        dumped = dataplane.dump()
        assert not dumped.local_endpoints
        assert not dumped.subjects


async def test_a_full_map_holds_the_object_closed_and_the_rest_is_applied() -> None:
    dataplane, stream = FakeDataPlane(Capacities(mappings=2)), Stream()
    far = [endpoint(2, number, 300, f"10.0.0.{number}") for number in (1, 2, 3)]
    async with applying(dataplane) as applier:
        await applier.attach(local(1, "10.0.1.1"))
        outcome = await applier.barrier(
            stream.barrier(*far, endpoint(OWN, 1, 301, "10.0.1.1"), open_policy(301), block(1, OWN))
        )
        assert {refusal.kind for refusal in outcome.refused} == {Kind.ENDPOINT}
        assert all(refusal.retryable and refusal.reason for refusal in outcome.refused)
        assert applier.is_open(1)
        assert len(dataplane.dump().ranges) == 1

        # It fits once the others are gone, and is tried again by itself.
        outcome = await applier.barrier(stream.barrier(far[0], block(1, OWN)))
        assert outcome.refused == ()
        assert {m.identity for m in dataplane.dump().mappings} == {300}


async def test_a_refused_route_is_reported_and_tried_again() -> None:
    dataplane, stream, routes = FakeDataPlane(), Stream(), FakeRoutes()
    routes.refuses.add(block(2, 2).prefix)
    shown = (node(2), block(2, 2), block(1, OWN))
    async with applying(dataplane, routes) as applier:
        outcome = await applier.barrier(stream.barrier(*shown))
        # All routes of the step are held back together; which of them the kernel would take is not
        # known.
        assert (Kind.BLOCK, block(2, 2).key) in {(r.kind, r.key) for r in outcome.refused}

        routes.refuses.clear()
        assert (await applier.barrier(stream.barrier(*shown))).refused == ()
        assert set(routes.routes) == {block(1, OWN).prefix, block(2, 2).prefix}


async def test_a_refused_pool_is_reported_and_the_rest_goes_on() -> None:
    dataplane, stream, masquerade = FakeDataPlane(), Stream(), FakeMasquerade()
    refused = Member(Role.POOL, pool("x", "10.0.0.0/16").prefix)
    masquerade.refuses.add(refused)
    shown = (pool("x", "10.0.0.0/16"), node(2), block(2, 2))
    async with applying(dataplane, masquerade=masquerade) as applier:
        outcome = await applier.barrier(stream.barrier(*shown))
        assert (Kind.POOL, b"x") in {(r.kind, r.key) for r in outcome.refused}
        assert [hop.node_index for hop in dataplane.dump().next_hops] == [2]

        masquerade.refuses.clear()
        assert (await applier.barrier(stream.barrier(*shown))).refused == ()
        assert refused in masquerade.dump()
        assert len(masquerade.dump()) == 2

        await applier.barrier(stream.barrier(node(2)))
        assert [member.role for member in masquerade.dump()] == [Role.NODE]


async def test_a_policy_that_names_what_is_missing_is_reported_and_closed() -> None:
    dataplane, stream, name = FakeDataPlane(), Stream(), b"x" * 16
    shown = (endpoint(OWN, 1, 300, "10.0.0.1"), isolated(300, name))
    async with applying(dataplane) as applier:
        await applier.attach(local(1, "10.0.0.1"))
        [refusal] = (await applier.barrier(stream.barrier(*shown))).refused
        assert (refusal.kind, refusal.retryable) == (Kind.SUBJECT_POLICY, False)
        assert [s.entries for s in dataplane.dump().policy_sets] == [()]

        outcome = await applier.barrier(stream.barrier(*shown, peer_set(name, 301)))
        assert outcome.refused == ()
        assert [len(s.entries) for s in dataplane.dump().policy_sets] == [1]


async def test_after_the_end_nobody_waits_for_ever() -> None:
    async with applying(FakeDataPlane()) as applier:
        await applier.settle()
    with pytest.raises(Unavailable):
        await applier.detach(1)


class SlowDataPlane(FakeDataPlane):
    """Opens interfaces only when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.opening, self.may_open = threading.Event(), threading.Event()

    def upsert_local_endpoints(self, endpoints: Sequence[LocalEndpoint]) -> None:
        if any(endpoint.identity for endpoint in endpoints):
            self.opening.set()
            assert self.may_open.wait(10)
        super().upsert_local_endpoints(endpoints)


async def test_who_begins_to_wait_while_the_interface_is_being_opened_is_woken() -> None:
    dataplane, stream = SlowDataPlane(), Stream()
    shown = (node(OWN), endpoint(OWN, 1, 300, "10.0.0.1"), open_policy(300))
    async with applying(dataplane) as applier, asyncio.timeout(5):
        await applier.attach(local(1, "10.0.0.1"))
        reached = asyncio.ensure_future(applier.barrier(stream.barrier(*shown)))
        assert await asyncio.to_thread(dataplane.opening.wait, 5)

        waiting = asyncio.ensure_future(applier.wait_open(1, seconds=60))
        await asyncio.sleep(0)
        dataplane.may_open.set()

        assert await waiting, "without another barrier"
        await reached


async def test_what_others_have_written_is_put_right_when_it_is_read_back() -> None:
    dataplane, routes, stream = FakeDataPlane(), FakeRoutes(), Stream()
    shown = (node(OWN), block(0, OWN), endpoint(OWN, 1, 300, "10.0.0.1"), isolated(300))
    async with applying(dataplane, routes) as applier:
        await applier.attach(local(1, "10.0.0.1"))
        await applier.barrier(stream.barrier(*shown))
        before, routes_before = dataplane.dump(), routes.dump()
        (served,) = before.local_endpoints
        strange = to_mapped(parse_address("192.0.2.1"))

        dataplane.delete_local_endpoints([served.ifindex])
        dataplane.upsert_local_endpoints([replace(served, ifindex=99, endpoint_id=99)])
        dataplane.delete_mappings([to_mapped(parse_address("10.0.0.1"))])
        dataplane.upsert_mappings([Mapping(address=strange, identity=9, node_index=0)])
        routes.delete(tuple(routes_before.values()))
        await applier.barrier(stream.barrier(*shown))
        assert dataplane.dump().mappings != before.mappings, "nobody looks unless asked"

        await applier.reread()

        after = dataplane.dump()
        assert after.local_endpoints == before.local_endpoints
        assert after.mappings == before.mappings
        assert routes.dump() == routes_before


async def test_an_interface_that_does_not_get_its_packets_is_written_again() -> None:
    dataplane, stream = FakeDataPlane(), Stream()
    address = to_mapped(parse_address("10.0.0.1"))
    async with applying(dataplane) as applier:
        await applier.attach(local(1, "10.0.0.1"))
        await applier.barrier(
            stream.barrier(node(OWN), endpoint(OWN, 1, 300, "10.0.0.1"), isolated(300))
        )
        (served,) = dataplane.dump().local_endpoints
        # Another link takes the address away and goes.
        dataplane.upsert_local_endpoints([replace(served, ifindex=99, endpoint_id=99)])
        dataplane.delete_local_endpoints([99])
        assert dataplane.holder_of(address) is None

        await applier.reread()

        assert dataplane.holder_of(address) == served.ifindex
        assert dataplane.dump().local_endpoints == {served}


async def test_nothing_is_put_right_before_there_is_a_view() -> None:
    async with applying(FakeDataPlane()) as applier:
        with pytest.raises(Unavailable, match="no complete view"):
            await applier.reread()


# --- rules that are counted -----------------------------------------------------------------------


def counted(identity: int, *rules: DirectionRule, policies: tuple[str, ...]) -> SubjectPolicy:
    direction = DirectionPolicy(isolated=True, rules=rules, policies=policies)
    return SubjectPolicy(identity=identity, ingress=direction)


async def test_rules_keep_their_counts_when_their_set_is_replaced() -> None:
    dataplane, stream = FakeDataPlane(), Stream()
    first = DirectionRule(all_peers=True, ports=(PortRange(Protocol.TCP, 80, 80),))
    other = DirectionRule(all_peers=True, ports=(PortRange(Protocol.TCP, 81, 81),))
    pods = (endpoint(OWN, 1, 300, "10.0.0.1"),)
    allow = ruling_of(Tier.NORMAL, decision(1, Action.ALLOW))
    name, default = (
        RuleName(policy, True, rule, action, False)
        for policy, rule, action in (("a/p", 2, Action.ALLOW), ("", 0, Action.DENY))
    )
    async with applying(dataplane) as applier:
        await applier.attach(local(1, "10.0.0.1"))
        one = counted(300, replace(first, sources=((0, 2),)), policies=("a/p",))
        await applier.barrier(stream.barrier(*pods, one))
        [subject] = dataplane.dump().subjects
        dataplane.hits = {(subject.ingress_set, allow): 5, (subject.ingress_set, 0): 2}
        assert await applier.rule_hits() == {default: 2, name: 5}

        # One more that nobody has read yet, and the set is replaced.
        dataplane.hits[subject.ingress_set, allow] = 6
        both = (first, replace(other, sources=((0, 2),)))
        await applier.barrier(stream.barrier(*pods, counted(300, *both, policies=("a/p",))))
        [replaced] = dataplane.dump().subjects
        assert replaced.ingress_set != subject.ingress_set
        assert dataplane.hits == {}
        assert (await applier.rule_hits())[name] == 6

        # The same content, another policy: the set stays, its new hits have another name.
        higher = ruling_of(Tier.NORMAL, decision(2, Action.ALLOW))
        dataplane.hits[replaced.ingress_set, higher] = 3
        renamed = counted(300, *both, policies=("a/renamed",))
        await applier.barrier(stream.barrier(*pods, renamed))
        assert {found.ingress_set for found in dataplane.dump().subjects} == {replaced.ingress_set}
        dataplane.hits[replaced.ingress_set, higher] = 4
        assert (await applier.rule_hits()) == {
            default: 2,
            replace(name, policy="a/renamed"): 1,
        }


async def test_an_agent_that_starts_again_names_what_it_finds_counted() -> None:
    dataplane = FakeDataPlane()
    rule = DirectionRule(all_peers=True, sources=((0, 0),))
    shown = (endpoint(OWN, 1, 300, "10.0.0.1"), counted(300, rule, policies=("a/p",)))
    for _ in range(2):
        async with applying(dataplane) as applier:
            await applier.attach(local(1, "10.0.0.1"))
            assert await applier.rule_hits() == {}
            await applier.barrier(Stream().barrier(*shown))
            [subject] = dataplane.dump().subjects
            ruling = ruling_of(Tier.NORMAL, decision(1, Action.ALLOW))
            dataplane.hits = {(subject.ingress_set, ruling): 7}
            assert list((await applier.rule_hits()).values()) == [7]


# --- policies that do not fit ---------------------------------------------------------------------


def wide(identity: int, peers: int) -> tuple[SubjectPolicy, PeerSet]:
    """A policy with an entry per peer, and its peers."""
    key = identity.to_bytes(16)
    return isolated(identity, key), peer_set(key, *range(1000, 1000 + peers))


async def test_a_policy_that_does_not_fit_is_refused_with_numbers_and_closes_its_pods() -> None:
    dataplane, stream = FakeDataPlane(Capacities(policy_entries=1500)), Stream()
    pods = (endpoint(OWN, 1, 300, "10.0.0.1"), endpoint(OWN, 2, 301, "10.0.0.2"))
    async with applying(dataplane) as applier:
        for number in (1, 2):
            await applier.attach(local(number, f"10.0.0.{number}"))
        outcome = await applier.barrier(stream.barrier(*pods, *wide(300, 400), *wide(301, 1200)))
        [refusal] = outcome.refused
        assert (refusal.kind, refusal.key) == (Kind.SUBJECT_POLICY, (301).to_bytes(4))
        assert refusal.retryable
        assert refusal.reason == "needs 1,200 policy entries, 1,100 of 1,500 are free"
        assert (applier.is_open(1), applier.is_open(2)) == (True, False)
        assert {subject.identity for subject in dataplane.dump().subjects} == {300}

        # Its own change does not let it in, and it waits for nothing but room.
        outcome = await applier.barrier(stream.barrier(*pods, *wide(300, 300), *wide(301, 1200)))
        assert outcome.refused == ()
        assert (applier.is_open(1), applier.is_open(2)) == (True, True)


async def test_a_policy_that_grows_too_large_closes_the_pods_that_it_had_opened() -> None:
    dataplane, stream = FakeDataPlane(Capacities(policy_entries=1500)), Stream()
    pods = (endpoint(OWN, 1, 300, "10.0.0.1"),)
    async with applying(dataplane) as applier:
        await applier.attach(local(1, "10.0.0.1"))
        await applier.barrier(stream.barrier(*pods, *wide(300, 400)))
        assert applier.is_open(1)
        [refusal] = (await applier.barrier(stream.barrier(*pods, *wide(300, 2000)))).refused
        assert refusal.reason == "needs 2,000 policy entries, 1,500 of 1,500 are free"
        assert not applier.is_open(1)
        assert dataplane.dump().subjects == frozenset()
        assert dataplane.dump().policy_sets == ()


async def test_where_old_and_new_do_not_fit_together_the_old_one_goes_first() -> None:
    dataplane, stream = FakeDataPlane(Capacities(policy_entries=1500)), Stream()
    pods = (endpoint(OWN, 1, 300, "10.0.0.1"),)
    async with applying(dataplane) as applier:
        await applier.attach(local(1, "10.0.0.1"))
        await applier.barrier(stream.barrier(*pods, *wide(300, 1000)))
        outcome = await applier.barrier(stream.barrier(*pods, *wide(300, 1100)))
        assert outcome.refused == ()
        assert applier.is_open(1)
        assert [len(found.entries) for found in dataplane.dump().policy_sets] == [1100]


@pytest.mark.parametrize(
    ("capacities", "reason"),
    [
        (Capacities(subjects=1), "needs 1 subjects, 0 of 1 are free"),
        (Capacities(policy_prefixes=3), "needs 2 policy prefixes, 1 of 3 are free"),
    ],
)
async def test_prefixes_and_subjects_run_out_as_entries_do(
    capacities: Capacities, reason: str
) -> None:
    dataplane, stream = FakeDataPlane(capacities), Stream()
    found = IPBlock(Prefix.parse("10.0.0.0/8"), (Prefix.parse("10.1.0.0/16"),))
    policies = [counted(n, DirectionRule(blocks=(found,)), policies=()) for n in (300, 301)]
    pods = (endpoint(OWN, 1, 300, "10.0.0.1"), endpoint(OWN, 2, 301, "10.0.0.2"))
    async with applying(dataplane) as applier:
        for number in (1, 2):
            await applier.attach(local(number, f"10.0.0.{number}"))
        [refusal] = (await applier.barrier(stream.barrier(*pods, *policies))).refused
        assert (refusal.key, refusal.reason) == ((301).to_bytes(4), reason)
        assert applier.is_open(1)
