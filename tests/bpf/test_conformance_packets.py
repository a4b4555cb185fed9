"""The tables that others wrote, as packets through the real programs, SCTP above all.

Few kernels of test machines have SCTP sockets, so the lab cannot tell what becomes of SCTP.
"""

import copy
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from nodeagent.dataplane.config import DataPlaneConfig
from nodeagent.dataplane.kernel import KernelDataPlane
from tests.bpf.conformance_node import Node, steps
from tests.bpf.conftest import NODE4, NODE6, SMALL, UPLINK, UPLINK_MTU
from tests.bpf.packets import address
from tests.conformance import cluster_cases
from tests.conformance.cases import Case, Row, load, oracles

KUBERNETES = "k8s_e2e_netpol_3x3.json"
EVERY = frozenset({"TCP", "UDP", "SCTP"})
ONLY_SCTP = frozenset({"SCTP"})

IS_FULL = os.environ.get("DELTAPLANE_MODES") == "every"
"""What `make conformance` asks for; else a part of the largest tables has to do."""
SHARE = 4

FAMILIES = pytest.mark.parametrize("family", ["IPv4", "IPv6"])
OWN = load(Path(__file__).with_name("sctp_cases.json"))


def kubernetes_cases() -> tuple[Case, ...]:
    path = Path(__file__).parents[3] / "shared/oracles/netpol" / KUBERNETES
    return load(path) if path.exists() else ()


@pytest.fixture(scope="module")
def node(private_bpffs: Path) -> Iterator[Node]:
    config = DataPlaneConfig(
        uplink_ifindex=UPLINK,
        uplink_mtu=UPLINK_MTU,
        node_ipv4=address(NODE4),
        node_ipv6=address(NODE6),
    )
    plane = KernelDataPlane(private_bpffs / "conformance", config=config, capacities=SMALL)
    yield Node(plane)
    plane.close()


def named(case: Case) -> str:
    return case.name


def rows_of(case: Case) -> list[Row]:
    return [row for step in case.steps() for row in step.rows]


@pytest.mark.parametrize("case", OWN, ids=named)
def test_an_own_case(node: Node, case: Case) -> None:
    found, compared = node.differences(case, case.steps(), protocols=EVERY)
    assert found == []
    assert compared >= 40


@pytest.mark.parametrize("case", cluster_cases.load(), ids=named)
def test_the_rules_of_the_network_policy_api(node: Node, case: Case) -> None:
    found, compared = node.differences(case, case.steps(), protocols=EVERY)
    assert found == []
    assert compared >= 300


def test_a_wrong_expectation_is_a_difference(node: Node) -> None:
    content = copy.deepcopy(OWN[0].content)
    (step,) = content["steps"]
    step["expect"]["denied"]["2905/SCTP"] = [["ran/cell", "core/mme"]]
    step["expect"]["denied"]["2906/SCTP@IPv6"][0][2] = "E"
    wrong = Case(name="wrong", content=content)

    found, _ = node.differences(wrong, wrong.steps(), protocols=EVERY)

    allowed = "port=2905, protocol='SCTP', family='IPv4', allowed=False, sides=None)"
    assert [line.partition(allowed)[2] for line in found[:2]] == [
        ", but with the pods apart these deny: ''",
        ", but with the pods on one node: True",
    ]
    assert "family='IPv6'" in found[2]
    assert found[2].endswith("sides='E'), but with the pods apart these deny: 'I'")
    assert len(found) == 3


def test_the_kubernetes_table_is_complete() -> None:
    oracles()
    cases = kubernetes_cases()
    assert len(cases) == 48
    sctp = [case for case in cases if any(row.protocol == "SCTP" for row in rows_of(case))]
    assert len(sctp) == 3
    assert sum(len(rows_of(case)) for case in cases) > 4000


@FAMILIES
@pytest.mark.parametrize("case", kubernetes_cases(), ids=named)
def test_a_kubernetes_case(node: Node, case: Case, family: str) -> None:
    found, compared = node.differences(case, steps(case, family), protocols=EVERY)
    assert found == []
    assert compared == len(rows_of(case))


def part_of(cases: Sequence[Case]) -> Sequence[Case]:
    """All cases, or one in SHARE of them."""
    return cases if IS_FULL else cases[::SHARE]


PROTOCOLS = EVERY if IS_FULL else ONLY_SCTP
"""TCP and UDP of these tables are only asked of compiler and resolver in a short run."""

TABLES = [
    ("cyclonus_cases.json", "IPv4", 100_000),
    ("cyclonus_cases.json", "IPv6", 100_000),
    ("random_300.json", "both", 300_000),
]
"""The last: so many connections at least in a full run; a table read as empty passes as well."""
if IS_FULL:
    # They hold hardly any SCTP.
    TABLES += [("k8s_e2e_netpol.json", "IPv4", 500), ("cilium_knp.json", "IPv4", 2_000)]


@pytest.mark.timeout(600 if IS_FULL else 120)
@pytest.mark.parametrize(("table", "family", "least"), TABLES)
def test_no_packet_of_a_table_differs(node: Node, table: str, family: str, least: int) -> None:
    total = 0
    cases = part_of(load(oracles() / table))
    for case in cases:
        stepped = case.steps() if family == "both" else steps(case, family)
        found, compared = node.differences(case, stepped, protocols=PROTOCOLS)
        assert found[:5] == []
        total += compared
    assert total > (least if IS_FULL else 100 * len(cases))
