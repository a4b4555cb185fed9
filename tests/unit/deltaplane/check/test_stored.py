from dataclasses import replace
from typing import Any

import pytest

from deltaplane.check.facts import Freed, Node, Pointer, Service, Stored
from deltaplane.check.findings import Finding, FixPointer, Kind, RemoveLeftovers
from deltaplane.check.stored import findings
from deltaplane.model.addresses import Prefix
from deltaplane.store import keys
from tests.unit.deltaplane.check.worlds import (
    BLOCKS,
    ENDPOINT,
    FOUR,
    STORED,
    block,
    endpoint,
    stored,
)


def only(found: Stored) -> Finding:
    (finding,) = findings(found)
    return finding


def without(found: Stored, key: str) -> Stored:
    return replace(
        found, pointers={name: item for name, item in found.pointers.items() if name != key}
    )


def pointing(found: Stored, key: str, target: str) -> Stored:
    return replace(
        found, pointers={**found.pointers, key: Pointer(key=key, target=target, revision=9)}
    )


def test_what_agrees_is_not_mentioned() -> None:
    assert list(findings(STORED)) == []
    assert list(findings(Stored())) == []


POINTERS = [
    (keys.address(FOUR), ENDPOINT.key, Kind.ADDRESS_KEY),
    (keys.node_endpoint("node-1", 9), ENDPOINT.key, Kind.NUMBER_KEY),
    (next(iter(BLOCKS[0].pointers)), BLOCKS[0].key, Kind.REQUEST_KEY),
]


@pytest.mark.parametrize(("key", "target", "kind"), POINTERS)
def test_a_pointer_that_is_missing_or_names_another(key: str, target: str, kind: Kind) -> None:
    missing = only(without(STORED, key))
    assert (missing.kind, missing.repair) == (kind, FixPointer(key=key, revision=0, target=target))
    assert missing.seen.startswith("is absent, but belongs to state/")
    turned = only(pointing(STORED, key, "/deltaplane/v1/state/elsewhere"))
    assert (turned.kind, turned.repair) == (kind, FixPointer(key=key, revision=9, target=target))
    assert turned.seen.startswith("names state/elsewhere, but belongs to")


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (keys.address(bytes(4)), Kind.ADDRESS_KEY),
        (keys.node_endpoint("node-1", 99), Kind.NUMBER_KEY),
        (keys.block_request("uid-1", "99"), Kind.REQUEST_KEY),
        (keys.fixed_address(FOUR), Kind.FIXED_KEY),
    ],
)
@pytest.mark.parametrize("target", ["", ENDPOINT.key])
def test_a_pointer_to_what_does_not_have_it(key: str, kind: Kind, target: str) -> None:
    found = only(pointing(STORED, key, target))
    assert found.kind is kind
    assert found.repair == FixPointer(key=key, revision=9)
    assert found.seen.endswith("which does not have it")


SERVICE = Service(
    key=keys.service("shop", "web"),
    pointers=frozenset({keys.cluster_ip(bytes((10, 96, 0, 1))), keys.node_port(30080)}),
)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (keys.cluster_ip(bytes((10, 96, 0, 1))), Kind.CLUSTER_IP_KEY),
        (keys.node_port(30080), Kind.NODE_PORT_KEY),
    ],
)
def test_what_a_service_has_is_its_own(key: str, kind: Kind) -> None:
    sound = replace(STORED, services={SERVICE.key: SERVICE})
    for pointer in SERVICE.pointers:
        sound = pointing(sound, pointer, SERVICE.key)
    assert list(findings(sound)) == []
    missing = only(without(sound, key))
    assert missing.kind is kind
    assert missing.repair == FixPointer(key=key, revision=0, target=SERVICE.key)
    other = Service(key=keys.service("shop", "db"), pointers=frozenset({key}))
    twice = only(replace(sound, services={**sound.services, other.key: other}))
    assert (twice.kind, twice.repair) == (kind, None)
    assert twice.advice == "delete one of the services"


def test_two_endpoints_with_one_address() -> None:
    other = endpoint(10, "10.244.0.9", pod="db")
    found = only(stored(*BLOCKS, ENDPOINT, other))
    assert (found.kind, found.repair) == (Kind.ADDRESS_TWICE, None)
    assert "shop/db/node-1/10 and state/endpoints/shop/web/node-1/9" in found.seen


def freed(text: str) -> Stored:
    prefix = Prefix.parse(text) if text else None
    return replace(STORED, freed=(Freed(key=keys.FREED_BLOCKS + "x", prefix=prefix, revision=4),))


@pytest.mark.parametrize("text", ["10.244.9.0/26", "10.244.9.9/32", "10.0.0.0/8", "192.0.2.0/24"])
def test_a_mark_makes_somebody_wait_or_waits_for_a_pool(text: str) -> None:
    assert list(findings(freed(text))) == []


def test_a_mark_that_names_no_block() -> None:
    found = only(freed(""))
    assert found.kind is Kind.FREED_KEY
    assert found.repair == FixPointer(key=keys.FREED_BLOCKS + "x", revision=4)


@pytest.mark.parametrize("nodes", [{}, {"node-1": Node(name="node-1", uid="new", index=9)}])
def test_what_a_node_that_is_gone_has_left(nodes: dict[str, Node]) -> None:
    found = list(findings(stored(block("10.244.0.0/26"), endpoint(9, "10.244.0.9"), nodes=nodes)))
    assert [item.kind for item in found] == [Kind.ENDPOINT_NODE, Kind.BLOCK_NODE]
    assert {item.repair for item in found} == {RemoveLeftovers("node-1")}
    assert ("now its number is 9" in found[1].seen) is bool(nodes)


def test_a_block_of_another_uid_is_of_a_former_node() -> None:
    found = only(stored(block("10.244.0.0/26", node_uid="old", pointers=frozenset())))
    assert found.kind is Kind.BLOCK_NODE


@pytest.mark.parametrize(
    "blocks",
    [
        (),
        (block("10.244.0.64/26"),),
        (block("10.244.0.0/26", 2),),
        # Another node has claimed it alone.
        (block("10.244.0.0/26"), block("10.244.0.9/32", 2, fixed=True)),
    ],
)
def test_an_address_outside_the_blocks_of_its_node(blocks: tuple[Any, ...]) -> None:
    found = only(stored(*blocks, endpoint(9, "10.244.0.9")))
    assert (found.kind, found.subject) == (Kind.ENDPOINT_OUTSIDE, "address 10.244.0.9")


def test_a_fixed_address_is_a_block_in_a_block() -> None:
    alone = block("10.244.0.9/32", 2, fixed=True)
    assert not list(
        findings(stored(block("10.244.0.0/26"), alone, endpoint(1, "10.244.0.9", node=2)))
    )


@pytest.mark.parametrize(
    ("blocks", "pairs"),
    [
        (
            (block("10.244.0.0/25"), block("10.244.0.64/26", 2)),
            ["10.244.0.0/25 and 10.244.0.64/26"],
        ),
        (
            (block("10.244.0.0/24"), block("10.244.0.0/26", 2), block("10.244.0.192/26", 2)),
            ["10.244.0.0/24 and 10.244.0.0/26", "10.244.0.0/24 and 10.244.0.192/26"],
        ),
        (
            (block("10.244.0.0/25"), block("10.244.0.64/26", 2), block("10.244.0.128/26")),
            ["10.244.0.0/25 and 10.244.0.64/26"],
        ),
    ],
)
def test_blocks_that_overlap(blocks: tuple[Any, ...], pairs: list[str]) -> None:
    found = list(findings(stored(*blocks)))
    assert {item.kind for item in found} == {Kind.BLOCK_OVERLAP}
    assert [item.subject for item in found] == [f"blocks {pair}" for pair in pairs]


def test_a_block_outside_its_pool() -> None:
    found = [
        only(stored(block("10.9.0.0/26"))),
        only(stored(block("10.244.0.0/26", pool="gone"))),
    ]
    assert [item.kind for item in found] == [Kind.BLOCK_POOL] * 2
    assert found[1].seen == "names pool gone, which does not exist"


def test_a_count_that_is_wrong() -> None:
    assert list(findings(replace(STORED, counted={"four": 2, "six": 1, "gone": 7}))) == []
    found = only(replace(STORED, counted={"four": 3}))
    assert found.seen == "ipam counts 3 claimed blocks, there are 2"


def test_the_same_disagreement_has_the_same_identity() -> None:
    key = keys.address(bytes(4))
    first = only(pointing(STORED, key, "x"))
    assert only(pointing(STORED, key, "x")).identity == first.identity
    again = replace(
        STORED, pointers={**STORED.pointers, key: Pointer(key=key, target="x", revision=10)}
    )
    assert only(again).identity != first.identity
