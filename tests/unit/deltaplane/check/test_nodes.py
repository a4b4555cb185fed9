from dataclasses import replace
from typing import Any

import pytest

from deltaplane.check import kernels, nodes
from deltaplane.check.facts import (
    Interface,
    Link,
    NodeView,
    OwnBlock,
    Programmed,
    Route,
    State,
    Stored,
)
from deltaplane.check.findings import MEANINGS, AskAgent, Finding, Kind, ReleaseEndpoint
from deltaplane.model.addresses import Prefix, parse_address
from tests.unit.deltaplane.check.worlds import (
    BLOCKS,
    ENDPOINT,
    FOUR,
    STORED,
    VIEW,
    block,
    endpoint,
    stored,
)

DATA_PATH = AskAgent(node="node-1", data_path=True)


def all_of(found: Stored = STORED, **view: Any) -> list[Finding]:
    seen = replace(VIEW, **view)
    return [*nodes.findings(found, seen), *kernels.findings(found, seen)]


def only(found: Stored = STORED, **view: Any) -> tuple[Kind, str, object]:
    (finding,) = all_of(found, **view)
    return finding.kind, finding.subject, finding.repair


def interface(**fields: Any) -> dict[int, Interface]:
    return {9: replace(VIEW.interfaces[9], **fields)}


def test_what_agrees_is_not_mentioned() -> None:
    assert all_of() == []
    empty = NodeView(name="node-2", uid="uid-2", index=2, applied=20)
    assert [f.kind for f in nodes.findings(stored(), empty)] == []


def test_every_kind_has_a_meaning() -> None:
    assert MEANINGS.keys() == set(Kind)


def test_a_node_that_etcd_does_not_know() -> None:
    for found in (all_of(uid="other"), all_of(name="node-9")):
        assert found[0].kind is Kind.NODE_UNKNOWN
        assert Kind.NOT_REGISTERED not in {item.kind for item in found}


# --- journal and etcd ----------------------------------------------------------------------------


def test_an_interface_that_is_not_registered() -> None:
    kind, subject, repair = only(stored(*BLOCKS))
    assert (kind, subject) == (Kind.NOT_REGISTERED, "interface 9, pod shop/web")
    assert repair == AskAgent(node="node-1", interface=9)


@pytest.mark.parametrize("state", [State.ALLOCATING, State.RELEASING, State.LOST])
def test_an_interface_on_its_way_may_be_registered_or_not(state: State) -> None:
    on_its_way = interface(state=state)
    assert all_of(interfaces=on_its_way) == []
    assert all_of(stored(*BLOCKS), interfaces=on_its_way) == []


def test_an_endpoint_that_its_journal_does_not_know() -> None:
    stray = endpoint(8, "10.244.0.8", pod="db")
    kind, _, repair = only(stored(*BLOCKS, ENDPOINT, stray))
    assert kind is Kind.NOT_IN_JOURNAL
    assert repair == ReleaseEndpoint(
        namespace="shop", pod="db", node="node-1", node_uid="uid-1", number=8, incarnation=7
    )


def test_endpoints_of_other_nodes_and_registrations_are_not_this_journal_s() -> None:
    others = endpoint(8, "10.244.0.70", node=2), endpoint(8, "10.244.0.8", node_index=7)
    assert all_of(stored(*BLOCKS, ENDPOINT, *others)) == []


@pytest.mark.parametrize(
    "change", [{"owner": ("pods", "other", "eth0", "x")}, {"addresses": (FOUR,)}]
)
def test_an_endpoint_that_differs(change: dict[str, Any]) -> None:
    found = all_of(stored(*BLOCKS, replace(ENDPOINT, **change)))
    assert (found[0].kind, found[0].repair) == (Kind.ENDPOINT_DIFFERS, None)


def test_blocks_on_one_side_only() -> None:
    more = OwnBlock(prefix=BLOCKS[2].prefix)
    ask = AskAgent(node="node-1", blocks=True)
    assert only(blocks=(*VIEW.blocks, more)) == (Kind.BLOCK_LOST, "block 10.244.0.64/26", ask)
    assert all_of(blocks=(*VIEW.blocks, replace(more, releasing=True))) == []
    mine = stored(*BLOCKS[:2], block("10.244.0.64/26"), ENDPOINT)
    assert only(mine) == (Kind.BLOCK_UNKNOWN, "block 10.244.0.64/26", ask)


# --- a journal with itself -----------------------------------------------------------------------


def test_an_address_that_is_held_and_released() -> None:
    found = all_of(released={FOUR: 3})
    assert [item.kind for item in found] == [Kind.HELD_RELEASED]
    assert "released at revision 3" in found[0].seen


def test_an_address_outside_the_journal_s_blocks() -> None:
    found = all_of(stored(BLOCKS[1], BLOCKS[2], ENDPOINT), blocks=VIEW.blocks[1:])
    assert [item.kind for item in found] == [Kind.HELD_OUTSIDE]


# --- kernel --------------------------------------------------------------------------------------


def test_a_link_that_is_gone() -> None:
    kinds = [item.kind for item in all_of(links=())]
    assert kinds == [Kind.LINK_MISSING]


def test_a_link_that_nobody_has() -> None:
    more = Link(name="dp8", ifindex=41, number=8)
    repair = AskAgent(node="node-1", link="dp8")
    assert only(links=(*VIEW.links, more)) == (Kind.LINK_UNKNOWN, "link dp8", repair)


def test_routes_of_pods() -> None:
    lacking = tuple(route for route in VIEW.routes if route.prefix.address != FOUR)
    assert only(routes=lacking) == (
        Kind.ROUTE_MISSING,
        "route 10.244.0.9/32",
        AskAgent(node="node-1", interface=9),
    )
    wrong = Prefix(parse_address("10.244.0.8"), 32)
    assert only(routes=(*VIEW.routes, Route(prefix=wrong, ifindex=40))) == (
        Kind.ROUTE_UNKNOWN,
        "route 10.244.0.8/32",
        AskAgent(node="node-1", route=wrong),
    )
    # A route of its own to a fixed address of another node is none of a pod's.
    assert all_of(routes=(*VIEW.routes, Route(prefix=wrong, ifindex=2))) == []


def programmed(**fields: Any) -> tuple[Programmed, ...]:
    return (replace(VIEW.programmed[0], **fields),)


@pytest.mark.parametrize(
    ("entries", "kind"),
    [
        ((), Kind.PROGRAM_MISSING),
        (programmed(number=10), Kind.PROGRAM_DIFFERS),
        (programmed(addresses=(FOUR,)), Kind.PROGRAM_DIFFERS),
        (programmed(identity=301), Kind.PROGRAM_DIFFERS),
        (programmed(identity=0), Kind.PROGRAM_DIFFERS),
        ((*VIEW.programmed, programmed(ifindex=41, number=8)[0]), Kind.PROGRAM_UNKNOWN),
    ],
)
def test_interfaces_of_the_data_path(entries: tuple[Programmed, ...], kind: Kind) -> None:
    found = all_of(programmed=entries)
    assert kind in {item.kind for item in found}
    assert {item.repair for item in found} == {DATA_PATH}


def test_an_endpoint_that_waits_is_closed() -> None:
    waiting = stored(*BLOCKS, replace(ENDPOINT, waiting=True, identity=4))
    mapped = dict.fromkeys(VIEW.mappings, (4, 1))
    assert all_of(waiting, programmed=programmed(identity=0), mappings=mapped) == []
    assert [item.kind for item in all_of(waiting, mappings=mapped)] == [Kind.PROGRAM_DIFFERS]


@pytest.mark.parametrize("found", [None, (301, 1), (300, 2)])
def test_mappings(found: tuple[int, int] | None) -> None:
    mappings = {key: value for key, value in VIEW.mappings.items() if key != FOUR}
    if found:
        mappings[FOUR] = found
    assert only(mappings=mappings) == (Kind.MAPPING_WRONG, "address 10.244.0.9", DATA_PATH)


@pytest.mark.parametrize("prefix", [item.prefix for item in BLOCKS])
def test_routes_of_blocks(prefix: Prefix) -> None:
    lacking = tuple(route for route in VIEW.routes if route.prefix != prefix)
    assert only(routes=lacking) == (Kind.BLOCK_ROUTE, f"block {prefix}", DATA_PATH)


def test_blocks_that_need_no_route() -> None:
    alone = block("10.244.9.9/32", fixed=True)
    unreached = block("fd00::40/122", 2, pool="six")
    known = stored(*BLOCKS, alone, unreached, ENDPOINT)
    mine = (*VIEW.blocks, OwnBlock(prefix=alone.prefix, fixed=True))
    only_four = replace(known.nodes["node-2"], families=frozenset({4}))
    known = replace(known, nodes={**known.nodes, "node-2": only_four})
    assert all_of(known, blocks=mine) == []


def test_a_node_that_lags_is_told_and_not_compared() -> None:
    found = all_of(applied=19, mappings={}, routes=VIEW.routes[:2])
    assert [item.kind for item in found] == [Kind.AGENT_BEHIND]
