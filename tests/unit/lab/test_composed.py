from pathlib import Path

import pytest
import yaml

from lab import cni, composed, sandboxes
from lab.layout import Layout
from lab.pods import Phase, Pod
from lab.sandboxes import LocalSandboxes

COMPOSE = Path(__file__).parents[3] / "deploy/compose.yaml"
LAYOUT = Layout(lab=composed.NAME)


def pod(name: str, node: str) -> Pod:
    return Pod(
        namespace="shop",
        name=name,
        uid=f"uid-{name}",
        node=node,
        phase=Phase.RUNNING,
        addresses=("10.244.0.2",),
    )


def test_a_new_container_has_lost_its_own_pods_alone() -> None:
    known = (pod("a", "node-1"), pod("b", "node-2"))
    lost, kept = composed.without_lost(known, "node-1")
    assert (lost.phase, lost.addresses) == (Phase.ADDING, ())
    assert kept == known[1]


def test_a_node_runs_in_its_control_group_if_it_has_one() -> None:
    for group in ("/run/cgroup2/lab/node-1", ""):
        podhost, agent = composed.commands(LAYOUT, "node-1", group)
        assert (group in podhost) == bool(group)
        assert agent[agent.index("--cgroup") + 1] == (group or "none")


def test_the_file_has_the_nodes_of_the_plan_with_its_addresses() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    nodes = composed.network().nodes
    assert {name for name in services if name.startswith("node-")} == {n.name for n in nodes}
    for node in nodes:
        service = services[node.name]
        assert service["entrypoint"][-2:] == ["node", node.name]
        uplink = service["networks"]["uplink"]
        assert uplink == {"ipv4_address": node.uplink_ipv4, "ipv6_address": node.uplink_ipv6}
        assert service["environment"]["HOST_IPS"] == f"{node.uplink_ipv4},{node.uplink_ipv6}"


def test_what_the_plugin_refuses_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> cni.Added:
        raise cni.CniError(11, "later")

    monkeypatch.setattr(LocalSandboxes, "add", refuse)
    answer = sandboxes.answer(LAYOUT, "add", pod("a", "node-1"))
    assert answer == {"cni": {"code": 11, "message": "later"}}
