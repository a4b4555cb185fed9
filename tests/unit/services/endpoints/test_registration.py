from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.errors import Conflict, DeltaplaneError, Refused, Unavailable
from deltaplane.model.addresses import AddressPair, Prefix, parse_address
from services.endpoints.identity import LabelFilter
from services.endpoints.records import Endpoint, Node, Owner, Pod, Request, State
from services.endpoints.registration import (
    MAX_COMPARES,
    MAX_TOGETHER,
    Accepted,
    Known,
    PoolRange,
    block_of,
    judge,
    leading,
)

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
NODE = Node(name="node-1", uid="uid", addresses=AddressPair(ipv4=FOUR), index=7)
POD = Pod(namespace="shop", name="web", uid="pod-uid", node="node-1", labels=(("app", "web"),))
KNOWN = Known(
    nodes={"node-1": NODE},
    block_owners={FOUR: 7, SIX: 7},
    holders={},
    names={},
    endpoints={},
    pods={("shop", "web"): POD},
    namespace_labels={"shop": {"team": "red"}},
)
STORED = Endpoint(
    request=replace(REQUEST, node_uid=""), node_index=7, identity=300, state=State.READY
)
NAME = ("node-1", 1)


def test_a_new_endpoint_is_accepted() -> None:
    label_set = FILTER.label_set(POD, {"team": "red"})
    assert judge(REQUEST, KNOWN, FILTER) == Accepted(7, label_set)


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
            replace(KNOWN, block_owners={FOUR: 7}),
            Refused,
            "fd00::1 lies in no block of node node-1",
        ),
        (replace(KNOWN, block_owners={FOUR: 8, SIX: 7}), Refused, r"10.244.0.1 lies in no block"),
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
    compares = len(read) + len(addresses) + len(blocks) + len(names) + len(batch)
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
    assert count == 24
    assert cost(wanted[: count + 1])[0] > MAX_COMPARES
    same_pod = [replace(request, pod="p") for request in wanted]
    assert leading(same_pod, POOLS) == MAX_TOGETHER


def test_addresses_of_unknown_pools_count_as_blocks_of_their_own() -> None:
    wanted = [
        replace(REQUEST, id=n, pod=f"p{n}", addresses=AddressPair(ipv4=POOLS[0].prefix.nth(n)))
        for n in range(1, 41)
    ]
    assert leading(wanted, ()) < leading(wanted, POOLS)
