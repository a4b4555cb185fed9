"""What should be in the kernel is a function of the view, however the view came about."""

from hypothesis import given, settings
from hypothesis import strategies as st

from deltaplane.model.addresses import Prefix, parse_address, to_mapped
from deltaplane.model.identity import Reserved
from deltaplane.model.objects import Kind, StreamObject
from nodeagent import steps
from nodeagent.masquerade import Member, Role
from nodeagent.plan import Numbers, plan
from nodeagent.state import Kernel, LocalInterface, Touched, everything_in
from nodeagent.tracker import Tracker
from tests.unit.nodeagent.worlds import (
    OWN,
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

SETS = (b"a" * 16, b"b" * 16)


def settled(tracker: Tracker, kernel: Kernel, touched: Touched) -> None:
    """Plans and records, as the applier does."""
    wanted = tracker.wanted(touched, kernel)
    for step in plan(wanted, kernel.cut(touched), Numbers(1000, 1000), in_sync=True):
        steps.record(kernel, step)


objects: st.SearchStrategy[StreamObject] = st.one_of(
    st.builds(node, st.sampled_from((OWN, 2, 3)), st.sampled_from((None, 77))),
    st.builds(block, st.integers(0, 2), st.sampled_from((OWN, 2, 3))),
    st.builds(pool, st.sampled_from("xy"), st.sampled_from(("10.0.0.0/16", "10.1.0.0/16"))),
    st.builds(
        endpoint,
        st.sampled_from((OWN, 2)),
        st.integers(1, 2),
        st.sampled_from((int(Reserved.INIT), 300, 301)),
        st.sampled_from(("10.0.0.1", "10.0.0.2", "10.0.1.1")),
        st.integers(1, 3),
    ),
    st.builds(open_policy, st.sampled_from((300, 301))),
    st.builds(isolated, st.sampled_from((300, 301)), st.sampled_from(SETS)),
    st.builds(peer_set, st.sampled_from(SETS), st.sampled_from((300, 301, 302))),
)
views = st.lists(objects, max_size=12).map(
    lambda found: list({(item.kind, item.key): item for item in found}.values())
)
interfaces = st.one_of(
    st.none(),
    st.builds(
        local,
        st.integers(1, 2),
        st.sampled_from(("10.0.0.1", "10.0.0.2")),
        st.sampled_from((0, 300, 301)),
        st.sampled_from((0, 12, 1000)),
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(views, interfaces, st.booleans()), max_size=5))
def test_the_changed_keys_alone_lead_to_the_same_state_as_everything(
    story: list[tuple[list[StreamObject], LocalInterface | None, bool]],
) -> None:
    stream, tracker, kernel = Stream(), Tracker(masquerades=True), Kernel()
    tracker.node_index = OWN
    for shown, interface, removed in story:
        changed = stream.show(shown)
        settled(tracker, kernel, tracker.advance(stream.view, stream.revision, changed))
        if interface is not None:
            settled(tracker, kernel, tracker.add_local(interface))
            if removed:
                settled(tracker, kernel, tracker.remove_local(interface.number))

        fresh = Tracker(masquerades=True)
        fresh.node_index = OWN
        keys = [(held.value.kind, held.value.key) for held in stream.view]
        fresh.advance(stream.view, stream.revision, keys)
        for known in tracker.locals.values():
            fresh.add_local(known)
        touched = fresh.everything()
        touched.add(everything_in(kernel))
        wanted = fresh.wanted(touched, kernel)
        assert plan(wanted, kernel.cut(touched), Numbers(1, 1), in_sync=True) == ()


def world(*shown: StreamObject) -> tuple[Tracker, Stream]:
    stream, tracker = Stream(), Tracker(masquerades=True)
    tracker.node_index = OWN
    tracker.advance(stream.view, stream.revision, stream.show(shown))
    return tracker, stream


def identity_of(tracker: Tracker, interface: LocalInterface, kernel: Kernel) -> int:
    touched = tracker.add_local(interface)
    return tracker.wanted(touched, kernel).endpoints[interface.ifindex].identity


def test_an_interface_opens_only_with_the_policies_of_its_identity() -> None:
    shown = endpoint(OWN, 1, 300, "10.0.0.1")
    assert identity_of(world(shown)[0], local(1, "10.0.0.1"), Kernel()) == 0
    assert identity_of(world(shown, open_policy(300))[0], local(1, "10.0.0.1"), Kernel()) == 300
    init = endpoint(OWN, 1, int(Reserved.INIT), "10.0.0.1")
    assert identity_of(world(init, open_policy(5))[0], local(1, "10.0.0.1"), Kernel()) == 0


def test_a_registration_counts_until_the_stream_covers_it() -> None:
    tracker, stream = world(open_policy(300))
    interface = local(1, "10.0.0.1", identity=300, revision=stream.revision + 1)
    touched = tracker.add_local(interface)
    wanted = tracker.wanted(touched, Kernel())
    assert wanted.endpoints[101].identity == 300
    assert wanted.mappings[to_mapped(parse_address("10.0.0.1"))].identity == 300
    assert wanted.subjects.keys() == {300}

    # The stream has passed the registration without showing it: it is gone.
    touched = tracker.advance(stream.view, stream.revision + 1, ())
    assert tracker.wanted(touched, Kernel()).endpoints[101].identity == 0


def test_a_barrier_touches_a_registration_once_when_it_covers_it() -> None:
    tracker, stream = world(open_policy(300))
    for number, ahead in ((1, 1), (2, 5)):
        address = f"10.0.0.{number}"
        tracker.add_local(local(number, address, identity=300, revision=stream.revision + ahead))
    assert not tracker.advance(stream.view, stream.revision, ())
    assert tracker.advance(stream.view, stream.revision + 1, ()).endpoints == {101}
    assert not tracker.advance(stream.view, stream.revision + 2, ())
    assert tracker.advance(stream.view, stream.revision + 9, ()).endpoints == {102}
    # Another lineage starts lower: both are ahead again.
    assert not tracker.advance(stream.view, 0, ())
    assert tracker.advance(stream.view, stream.revision + 9, ()).endpoints == {101, 102}


def test_a_relabelled_pod_keeps_its_old_policies_until_the_new_ones_are_there() -> None:
    tracker, stream = world(endpoint(OWN, 1, 300, "10.0.0.1"), isolated(300))
    kernel = Kernel()
    settled(tracker, kernel, tracker.add_local(local(1, "10.0.0.1")))
    moved = endpoint(OWN, 1, 301, "10.0.0.1")

    for shown, expected in (
        ((moved, isolated(300)), 300),
        ((moved, isolated(300), open_policy(301)), 301),
    ):
        changed = stream.show(shown)
        settled(tracker, kernel, tracker.advance(stream.view, stream.revision, changed))
        assert kernel.endpoints[101].identity == expected
        assert kernel.subjects.keys() == {expected}


def test_the_highest_incarnation_holds_an_address() -> None:
    older, newer = endpoint(2, 9, 300, "10.0.0.9", born=3), endpoint(3, 1, 301, "10.0.0.9", born=4)
    for shown in ((older, newer), (newer, older)):
        tracker, _ = world(*shown)
        mapping = tracker.wanted(tracker.everything(), Kernel()).mappings
        assert [held.identity for held in mapping.values()] == [301]


def test_of_two_nodes_with_one_address_the_order_of_arrival_decides_nothing() -> None:
    shared = to_mapped(parse_address("192.0.2.77"))
    for first, second in ((1, 2), (2, 1)):
        tracker, stream = world(node(first, 77))
        shown = (node(first, 77), node(second, 77))
        tracker.advance(stream.view, stream.revision, stream.show(shown))
        wanted = tracker.wanted(tracker.everything(), Kernel())
        assert wanted.mappings[shared].node_index == 2


def test_nodes_are_mapped_and_routed_to() -> None:
    tracker, _ = world(node(OWN), node(2), block(1, OWN), block(2, 2), block(3, 9))

    wanted = tracker.wanted(tracker.everything(), Kernel())

    identities = {m.node_index: m.identity for m in wanted.mappings.values()}
    assert identities == {OWN: Reserved.HOST, 2: Reserved.REMOTE_NODE}
    vias = {str(prefix): route.via for prefix, route in wanted.routes.items()}
    assert vias == {"10.0.1.0/24": None, "10.0.2.0/24": bytes((192, 0, 2, 2))}
    assert {r.node_index for r in wanted.ranges.values()} == {OWN, 2, 9}


def test_objects_behind_keys_are_found_for_refusals() -> None:
    tracker, _ = world(endpoint(2, 1, 300, "10.0.0.9"), block(1, 2))
    address = to_mapped(parse_address("10.0.0.9"))
    key = endpoint(2, 1, 300, "10.0.0.9").key
    assert tracker.origins.object_of(address) == (Kind.ENDPOINT, key)
    assert tracker.origins.object_of(bytes(16)) is None
    prefix = block(1, 2).prefix
    assert (
        tracker.origins.range_key(prefix.mapped)
        == tracker.origins.block_key(prefix)
        == (
            Kind.BLOCK,
            block(1, 2).key,
        )
    )


def test_packets_to_pools_and_nodes_keep_their_source() -> None:
    def shown(*objects: StreamObject) -> set[str]:
        touched.add(tracker.advance(stream.view, stream.revision + 1, stream.show(objects)))
        settled(tracker, kernel, touched)
        return {str(member) for member in kernel.members}

    tracker, kernel, stream, touched = Tracker(masquerades=True), Kernel(), Stream(), Touched()
    tracker.node_index = OWN
    all_pods, own = "10.0.0.0/16 of pools", f"192.0.2.{OWN}/32 of nodes"
    assert shown(pool("x", "10.0.0.0/16"), node(OWN), endpoint(OWN, 1, 300, "10.0.0.1")) == {
        all_pods,
        own,
    }
    assert shown(pool("x", "10.0.0.0/15"), node(OWN, 77)) == {
        "10.0.0.0/15 of pools",
        "192.0.2.77/32 of nodes",
    }
    member = Member(Role.POOL, Prefix.parse("10.0.0.0/15"))
    assert tracker.origins.member_key(member) == (Kind.POOL, b"x")
    assert shown() == set()


def test_without_masquerading_nothing_is_wanted_of_it() -> None:
    tracker, kernel, stream = Tracker(), Kernel(), Stream()
    changed = stream.show([pool("x", "10.0.0.0/16"), node(2)])
    settled(tracker, kernel, tracker.advance(stream.view, stream.revision, changed))
    assert kernel.members == {}
