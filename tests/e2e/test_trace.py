"""One trace from an ADD to the kernels of the other nodes, through the command."""

import json
import time
from pathlib import Path
from typing import Any

from bench.scraping import histogram_sums
from lab import Lab
from tests.e2e.conftest import Command

ONLOOKERS = """
apiVersion: v1
kind: Namespace
metadata: {name: traced}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: cart-only, namespace: traced}
spec:
  podSelector: {matchLabels: {app: onlooker}}
  ingress: [{from: [{podSelector: {matchLabels: {app: cart}}}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: onlooker-1, namespace: traced, labels: {app: onlooker}}
spec:
  nodeName: node-1
  containers: [{name: c, image: i}]
---
apiVersion: v1
kind: Pod
metadata: {name: onlooker-3, namespace: traced, labels: {app: onlooker}}
spec:
  nodeName: node-3
  containers: [{name: c, image: i}]
"""
"""Whose nodes are told of the pod that is followed, because of their policy."""

POD = """
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: traced, labels: {app: cart}}
spec:
  nodeName: node-2
  containers: [{name: c, image: i}]
"""

ACK_SECONDS = 10.0
METRIC = "propagation_seconds"


def start(lab: Lab, folder: Path) -> None:
    """The onlookers first: what comes after them comes to their nodes as a change."""
    for name, text in (("onlookers", ONLOOKERS), ("pod", POD)):
        file = folder / f"{name}.yaml"
        file.write_text(text)
        lab.wait_enforced(lab.apply([file]))


def traced(command: Command, *options: str) -> dict[str, Any]:
    """The trace, once both other nodes have acknowledged; that comes after the ADD."""
    deadline = time.monotonic() + ACK_SECONDS
    while True:
        done = command("trace", "pod", "traced/cart", "-o", "json", *options)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        # Every agent records for itself when it has applied the change, this node's own, too.
        applied = {row["where"] for row in found["stages"] if row["stage"] == "apply"}
        is_complete = len(found["other_nodes_ms"]) == 2 and len(applied) == 3
        if is_complete or time.monotonic() > deadline:
            return found


def test_an_add_is_followed_to_the_maps_of_other_nodes(
    lab: Lab, command: Command, tmp_path: Path
) -> None:
    start(lab, tmp_path)

    found = traced(command)

    assert found["node"] == "node-2"
    stages = {(row["stage"], row["where"]): row for row in found["stages"]}
    for stage in ("address", "link", "program", "register", "policy", "commit"):
        assert stages[stage, "node-2"]["depth"] == 1
    assert stages["RegisterEndpoint", "endpoints"]["depth"] == 2
    for below in (
        ("etcd transaction", "endpoints"),
        ("slicer tick", "slicer"),
        *(("apply", f"node-{number}") for number in (1, 2, 3)),
    ):
        assert stages[below]["depth"] == 3, below
    # One machine, one clock: no stage begins before what it follows from.
    order = ["RegisterEndpoint", "etcd transaction", "slicer tick"]
    begins = [row["at_ms"] for row in found["stages"] if row["stage"] in order]
    assert begins == sorted(begins)
    assert set(found["other_nodes_ms"]) == {"node-1", "node-3"}
    assert 0 < found["first_ms"] <= found["p50_ms"] <= found["last_ms"]

    table = command("trace", "pod", "traced/cart")
    assert "in the kernels of 2 other nodes: first" in table.stdout


def test_every_process_tells_its_stages_of_every_change(lab: Lab, tmp_path: Path) -> None:
    start(lab, tmp_path)

    def stages(admin: Path) -> set[str]:
        sums = histogram_sums(admin)
        return {stage for (name, stage), total in sums.items() if name == METRIC and total > 0}

    assert stages(lab.layout.admin_socket("endpoints")) == {"register_to_commit"}
    assert stages(lab.layout.admin_socket("slicer")) == {
        "seen_to_cut",
        "cut_to_sent",
        "cut_to_acked",
    }
    for node in ("node-1", "node-2", "node-3"):
        assert stages(lab.layout.node(node).agent_admin) == {"received_to_applied"}


def test_named_processes_are_asked_instead(lab: Lab, command: Command, tmp_path: Path) -> None:
    start(lab, tmp_path)
    home = lab.layout.node("node-2").agent_admin

    done = command(
        *("trace", "pod", "traced/cart", "-o", "json"),
        *("--admin", f"unix:{home}", "--admin", "unix:/nowhere"),
    )

    assert done.returncode == 0
    assert {row["where"] for row in json.loads(done.stdout)["stages"]} == {"node-2"}
    assert "unix:/nowhere is not asked" in done.stderr
    nobody = command("trace", "pod", "traced/cart", "--admin", "unix:/nowhere")
    assert nobody.returncode == 3
    foreign = command("trace", "pod", "traced/cart", "--admin", "ftp://x")
    assert foreign.returncode == 1
    assert "http://host:port or unix:/path is needed" in foreign.stderr


def test_what_cannot_be_traced_is_explained(command: Command) -> None:
    assert "NAMESPACE/NAME" in command("trace", "pod", "cart").stderr
    unknown = command("trace", "pod", "traced/nobody")
    assert unknown.returncode == 1
    assert "no endpoint" in unknown.stderr
