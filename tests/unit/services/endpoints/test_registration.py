from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.errors import Conflict, DeltaplaneError, Invalid, Refused, Unavailable
from deltaplane.model.addresses import AddressPair, Prefix, parse_address
from deltaplane.store.port import MAX_PARTS
from services.endpoints.blocks import PoolRange, block_of
from services.endpoints.identity import LabelFilter
from services.endpoints.records import Endpoint, Node, Owner, Pod, Request, State
from services.endpoints.registration import (
    MAX_COMPARES,
    MAX_TOGETHER,
    MOST_SEPARATE,
    Accepted,
    BlockOwner,
    Known,
    NoBlock,
    judge,
    leading,
    separate,
)
from services.endpoints.wishing import Wish

FILTER = LabelFilter()
FOUR, SIX = parse_address("10.244.0.1"), parse_address("fd00::1")
OWNER = Owner(network="net", container_id="c", interface="eth0", attempt="a")
REQUEST = Request(
    node="node-1",
    node_uid="uid",
    id=1,
    namespace="shop",
    pod="web",
    pod_uid="pod-uid",
    owner=OWNER,
    addresses=AddressPair(ipv4=FOUR, ipv6=SIX),
)
OURS = BlockOwner(7, "node-1", "four")
THEIRS = BlockOwner(8, "node-2", "four")
NODE = Node(name="node-1", uid="uid", addresses=AddressPair(ipv4=FOUR), index=7)
POD = Pod(namespace="shop", name="web", uid="pod-uid", node="node-1", labels=(("app", "web"),))
KNOWN = Known(
    nodes={"node-1": NODE},
    block_owners={FOUR: OURS, SIX: replace(OURS, pool="six")},
    holders={},
    names={},
    endpoints={},
    released=(),
    pods={("shop", "web"): POD},
    namespace_labels={"shop": {"team": "red"}},
    namespace_annotations={},
    pools=(
        PoolRange(Prefix.parse("10.244.0.0/16"), 26, "four"),
        PoolRange(Prefix.parse("10.7.0.0/16"), 26, "blue"),
        PoolRange(Prefix.parse("fd00::/64"), 122, "six"),
    ),
)
STORED = Endpoint(
    request=replace(REQUEST, node_uid=""), node_index=7, identity=300, state=State.READY
)
NAME = ("node-1", 1)


def test_a_new_endpoint_is_accepted() -> None:
    label_set = FILTER.label_set(POD, {"team": "red"})
    assert judge(REQUEST, KNOWN, FILTER) == Accepted(7, label_set)


def test_a_registration_that_comes_after_its_release_is_refused() -> None:
    with pytest.raises(Conflict, match="has been released"):
        judge(REQUEST, replace(KNOWN, released={NAME}), FILTER)


def test_without_a_pod_record_it_waits() -> None:
    assert judge(REQUEST, replace(KNOWN, pods={}), FILTER) == Accepted(7, None)


def test_the_stored_one_is_found_whatever_happened_to_the_rest() -> None:
    known = replace(
        KNOWN, endpoints={NAME: STORED}, holders={FOUR: "itself"}, block_owners={}, pods={}
    )
    assert judge(REQUEST, known, FILTER) is STORED


@pytest.mark.parametrize(
    ("known", "kind", "text"),
    [
        (replace(KNOWN, nodes={}), Refused, "node node-1 is not registered"),
        (
            replace(KNOWN, nodes={"node-1": replace(NODE, uid="other")}),
            Refused,
            "with UID other, not uid",
        ),
        (replace(KNOWN, names={NAME: "X"}), Conflict, "endpoint 1 of node node-1 is X"),
        (replace(KNOWN, holders={SIX: "X"}), Conflict, "address fd00::1 is held by X"),
        (
            replace(KNOWN, block_owners={FOUR: OURS}),
            NoBlock,
            "fd00::1 lies in no block of node node-1",
        ),
        (
            replace(KNOWN, block_owners={FOUR: THEIRS, SIX: OURS}),
            NoBlock,
            r"10.244.0.1 lies in no block",
        ),
        (
            replace(KNOWN, block_owners={FOUR: replace(THEIRS, is_single=True), SIX: OURS}),
            Refused,
            "address 10.244.0.1 is claimed by node node-2 alone",
        ),
        (
            replace(KNOWN, pods={("shop", "web"): replace(POD, uid="x")}),
            Refused,
            "pod shop/web: its record has UID x",
        ),
        (
            replace(KNOWN, endpoints={NAME: replace(STORED, node_index=6)}),
            Unavailable,
            "former registration",
        ),
    ],
)
def test_what_is_refused(known: Known, kind: type[DeltaplaneError], text: str) -> None:
    with pytest.raises(kind, match=text):
        judge(REQUEST, known, FILTER)


def asking(**annotations: str) -> Known:
    pod = replace(
        POD,
        annotations=tuple(
            (f"deltaplane.dev/{k.replace('_', '-')}", v) for k, v in annotations.items()
        ),
    )
    return replace(KNOWN, pods={("shop", "web"): pod})


def test_a_pod_gets_the_addresses_that_it_asks_for_or_none() -> None:
    assert judge(REQUEST, asking(ipv4_pool="blue"), FILTER) == Wish(ipv4_pool="blue")
    assert isinstance(judge(REQUEST, asking(ipv4_pool="four"), FILTER), Accepted)
    wanted = judge(REQUEST, asking(ip_addresses="10.244.0.2"), FILTER)
    assert wanted == Wish(addresses=(parse_address("10.244.0.2"),))
    assert isinstance(judge(REQUEST, asking(ip_addresses="fd00::1"), FILTER), Accepted)


def test_a_pod_that_is_there_keeps_its_addresses() -> None:
    known = replace(asking(ipv4_pool="blue"), endpoints={NAME: STORED})
    assert judge(REQUEST, known, FILTER) is STORED


def test_a_stranger_s_wish_does_not_count() -> None:
    known = asking(ipv4_pool="blue")
    with pytest.raises(Refused, match="the endpoint names other"):
        judge(replace(REQUEST, pod_uid="other"), known, FILTER)


@pytest.mark.parametrize(
    ("annotation", "text", "reason"),
    [
        ("ipv4_pool", "six", 'there is no IPv4 pool "six"; there are blue, four'),
        ("ipv6_pool", "blue", 'there is no IPv6 pool "blue"; there are six'),
        (
            "ip_addresses",
            "192.0.2.1",
            r"192.0.2.1 is in no pool; there are blue \(10.7.0.0/16\), four \(10.244.0.0/16\)",
        ),
    ],
)
def test_what_no_node_can_fulfil_is_refused(annotation: str, text: str, reason: str) -> None:
    with pytest.raises(Invalid, match=reason) as caught:
        judge(REQUEST, asking(**{annotation: text}), FILTER)
    assert caught.value.field == f"deltaplane.dev/{annotation.replace('_', '-')}"


@pytest.mark.parametrize(
    "change",
    [
        {"owner": replace(OWNER, attempt="b")},
        {"addresses": AddressPair(ipv4=FOUR)},
        {"pod_uid": "other"},
    ],
)
def test_the_same_number_for_something_else_is_a_conflict(change: dict[str, object]) -> None:
    known = replace(KNOWN, endpoints={NAME: STORED})
    with pytest.raises(Conflict, match="endpoint 1 of node node-1 is"):
        judge(replace(REQUEST, **change), known, FILTER)  # type: ignore[arg-type]


POOLS = (PoolRange(Prefix.parse("10.244.0.0/16"), 26), PoolRange(Prefix.parse("fd00::/64"), 122))


@given(st.integers(0, 2**16 - 1))
def test_the_block_of_an_address(offset: int) -> None:
    for pool in POOLS:
        address = pool.prefix.nth(offset)
        block = block_of(address, POOLS)
        assert block is not None
        assert block.contains(address)
        assert block.length == pool.block_length
    assert block_of(parse_address("192.0.2.1"), POOLS) is None


requests = st.builds(
    lambda node, number, pod, four, six: replace(
        REQUEST,
        node=f"node-{node}",
        id=number,
        pod=f"pod-{pod}",
        addresses=AddressPair(
            ipv4=POOLS[0].prefix.nth(four), ipv6=POOLS[1].prefix.nth(six) if six else None
        ),
    ),
    st.integers(1, 3),
    st.integers(1, 200),
    st.integers(1, 200),
    st.integers(0, 2000),
    st.integers(0, 2000),
)


def cost(batch: Sequence[Request]) -> tuple[int, int]:
    """Compares and writes of a transaction; each endpoint has labels of its own."""
    read = {("node", request.node) for request in batch}
    read |= {("pod", request.pod) for request in batch}
    read |= {("namespace", request.namespace) for request in batch}
    addresses = {str(address) for request in batch for address in request.addresses}
    blocks = {str(block_of(address, POOLS)) for request in batch for address in request.addresses}
    names = {(request.node, request.id) for request in batch}
    # Besides the block around each address the one that would be of it alone; and whether the
    # endpoint has been released.
    compares = len(read) + 2 * len(addresses) + len(blocks) + 2 * len(names) + len(batch)
    return compares, 2 * len(batch) + len(addresses)


@given(st.lists(requests, max_size=40))
def test_a_batch_fits_into_one_transaction(wanted: list[Request]) -> None:
    count = leading(wanted, POOLS)
    batch = wanted[:count]
    assert (count >= 1) == bool(wanted)
    compares, writes = cost(batch)
    assert compares <= MAX_COMPARES
    assert writes <= 100
    assert len({(request.node, request.id) for request in batch}) == count
    addresses = [address for request in batch for address in request.addresses]
    assert len(set(addresses)) == len(addresses)


def test_a_batch_of_one_node_is_as_large_as_it_can_be() -> None:
    wanted = [
        replace(REQUEST, id=n, pod=f"p{n}", addresses=AddressPair(ipv4=POOLS[0].prefix.nth(n)))
        for n in range(1, 41)
    ]
    count = leading(wanted, POOLS)
    assert count == 16
    assert cost(wanted[: count + 1])[0] > MAX_COMPARES
    same_pod = [replace(request, pod="p") for request in wanted]
    assert leading(same_pod, POOLS) == 19 < MAX_TOGETHER


def test_addresses_of_unknown_pools_count_as_blocks_of_their_own() -> None:
    wanted = [
        replace(REQUEST, id=n, pod=f"p{n}", addresses=AddressPair(ipv4=POOLS[0].prefix.nth(n)))
        for n in range(1, 41)
    ]
    assert leading(wanted, ()) < leading(wanted, POOLS)


def many(count: int) -> list[Request]:
    return [
        replace(REQUEST, id=number, addresses=AddressPair(ipv4=(number + 1).to_bytes(4)))
        for number in range(1, count + 1)
    ]


def test_as_many_as_there_are_parts_go_separately() -> None:
    assert separate([]) == 0
    assert separate(many(3)) == 3
    assert separate(many(100)) == MOST_SEPARATE == MAX_PARTS


def test_what_touches_the_same_number_or_address_does_not_go_together() -> None:
    one, two, three = many(3)
    assert separate([one, two, replace(three, id=one.id)]) == 2
    assert separate([one, two, replace(three, addresses=two.addresses)]) == 2
    assert separate([one, replace(one, node="node-2", addresses=two.addresses), three]) == 3
