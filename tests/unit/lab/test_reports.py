"""What people read: the matrix, the denials, percentiles."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from deltaplane.v1 import agent_pb2, registry_pb2
from lab import denials, matrix
from lab.expectation import World
from lab.killing import choose_pair
from lab.manifests import read
from lab.pods import Phase, Pod
from lab.probing import Row
from lab.telling import percentile
from tests.unit.lab.test_manifests import SHOP


def pod(name: str, *, namespace: str = "shop", node: str = "node-1", app: str = "web") -> Pod:
    return Pod(
        namespace=namespace,
        name=name,
        uid=name,
        owner=app,
        node=node,
        labels={"app": app},
        phase=Phase.RUNNING,
    )


def row(source: str, destination: str, port: int, *, allowed: bool) -> Row:
    return Row(
        source=source,
        destination=destination,
        port=port,
        protocol="TCP",
        family="ipv4",
        allowed=allowed,
    )


def text_of(table: object) -> list[str]:
    console = Console(file=io.StringIO(), width=100)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_cell_tells_all_some_and_none() -> None:
    pods = [pod("a"), pod("b"), pod("c")]
    rows = [
        row("shop/a", "shop/b", 80, allowed=True),
        row("shop/a", "shop/b", 81, allowed=True),
        row("shop/a", "shop/c", 80, allowed=True),
        row("shop/a", "shop/c", 81, allowed=False),
        row("shop/b", "shop/a", 80, allowed=False),
    ]

    lines = text_of(matrix.table(rows, pods, "title"))

    cells = {line.split()[1]: line.split()[2:] for line in lines if "shop/" in line}
    assert cells["shop/a"] == ["-", "●", "◐"]
    # Nothing was asked from b to c: neither allowed nor denied.
    assert cells["shop/b"] == ["·", "-"]


def denial(subject: int, peer: int, packets: int, **fields: object) -> agent_pb2.Denial:
    return agent_pb2.Denial(
        subject_identity=subject,
        peer_identity=peer,
        packets=packets,
        **{"ingress": True, "protocol": 6, "port": 80, **fields},  # type: ignore[arg-type]
    )


@pytest.fixture
def world() -> World:
    shop = read([SHOP])
    pods = [pod("database-1", app="database"), pod("frontend-1", app="frontend")]
    return World(
        pods={item.reference: item for item in pods},
        namespaces={},
        policies=shop.policies,
    )


def test_denials_of_all_nodes_are_summed_and_named(world: World) -> None:
    pods = {300: world.pods["shop/database-1"], 301: world.pods["shop/frontend-1"]}
    counted = [denial(300, 301, 2), denial(300, 301, 3), denial(301, 2, 1, ingress=False)]

    first, second = denials.describe(counted, pods, world)

    assert (first.source, first.destination) == ("shop/frontend", "shop/database")
    assert (first.traffic, first.packets, first.direction) == ("TCP/80", 5, "ingress")
    assert first.policies == ("shop/database", "shop/default-deny", "shop/metrics", "shop/prober")
    assert (second.source, second.destination, second.direction) == (
        "shop/frontend",
        "world",
        "egress",
    )
    assert second.policies == ("shop/default-deny", "shop/frontend", "shop/statsd")


def test_denials_are_grouped_by_pair_with_ingress_first(world: World) -> None:
    counted = [
        denial(300, 301, 1, ingress=False),
        denial(300, 301, 2, port=81),
        denial(300, 301, 4, protocol=58, port=0),
    ]

    grouped = denials.grouped(denials.describe(counted, {}, world))

    assert [(item.direction, item.traffic, item.packets) for item in grouped] == [
        ("ingress", "ICMPv6 TCP/81", 6),
        ("egress", "TCP/80", 1),
    ]
    assert grouped[0].source == "identity 301"


def test_an_identity_is_named_after_the_pods_that_have_it() -> None:
    endpoints = [
        registry_pb2.Endpoint(namespace="shop", pod="a", identity=300),
        registry_pb2.Endpoint(namespace="shop", pod="gone", identity=301),
    ]

    assert denials.names_of_identities(endpoints, [pod("a")]) == {300: pod("a")}


@given(st.lists(st.floats(0, 1000), min_size=1), st.integers(1, 100))
def test_a_percentile_is_the_least_value_that_covers_so_many(
    values: list[float], percent: int
) -> None:
    ordered = sorted(values)
    value = percentile(ordered, percent)

    assert sum(other <= value for other in ordered) * 100 >= percent * len(ordered)
    assert sum(other < value for other in ordered) * 100 < percent * len(ordered)


def test_pings_go_to_one_pod_of_every_other_node() -> None:
    pods = [
        pod("prober-1", namespace="monitoring", node="node-3"),
        pod("collector-1", namespace="monitoring", node="node-1"),
        pod("a", node="node-1"),
        pod("b", node="node-1"),
        pod("c", node="node-2"),
        pod("d", node="node-3"),
    ]

    source, destinations = choose_pair(pods, "monitoring/prober-1")

    assert source.name == "prober-1"
    assert [(item.name, item.node) for item in destinations] == [("a", "node-1"), ("c", "node-2")]
