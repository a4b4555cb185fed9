from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.errors import Invalid
from lab.placement import place
from lab.pods import Pod

NODES = ("node-1", "node-2", "node-3")


def pod(name: str, *, owner: str = "", node: str = "") -> Pod:
    return Pod(namespace="shop", name=name, uid=f"uid-{name}", owner=owner, node=node)


def replicas(owner: str, count: int) -> list[Pod]:
    return [pod(f"{owner}-{number}", owner=owner) for number in range(count)]


@given(st.lists(st.integers(0, 7), max_size=5), st.integers(1, 5))
def test_replicas_and_totals_differ_by_one_at_most(counts: list[int], node_count: int) -> None:
    nodes = [f"n{number}" for number in range(node_count)]
    unplaced = [item for owner, n in enumerate(counts) for item in replicas(f"d{owner}", n)]

    placed = place(unplaced, (), nodes)

    for owner in {item.owner for item in placed}:
        spread = Counter(item.node for item in placed if item.owner == owner)
        assert max(spread.values()) - min(spread[node] for node in nodes) <= 1
    assert [item.name for item in placed] == [item.name for item in unplaced]


def test_new_replicas_go_where_the_deployment_has_none() -> None:
    there = [
        pod("web-1", owner="web", node="node-1"),
        pod("x", node="node-2"),
        pod("y", node="node-2"),
    ]

    placed = place(replicas("web", 2), there, NODES)

    assert [item.node for item in placed] == ["node-3", "node-2"]


def test_pods_without_an_owner_go_to_the_emptiest_node() -> None:
    there = [pod("a", node="node-1"), pod("b", node="node-2")]

    assert [p.node for p in place([pod("c"), pod("d")], there, NODES)] == ["node-3", "node-1"]


def test_a_named_node_is_kept_and_counted() -> None:
    placed = place([pod("a", node="node-1"), pod("b"), pod("c")], (), NODES)

    assert [item.node for item in placed] == ["node-1", "node-2", "node-3"]


def test_an_unknown_node_is_refused() -> None:
    with pytest.raises(Invalid, match=r"spec.nodeName.*shop/a.*'node-7'.*node-1, node-2, node-3"):
        place([pod("a", node="node-7")], (), NODES)
