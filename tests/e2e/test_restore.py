"""A new lineage under a whole lab: agents start again, pods go on, numbers do not collide."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deltaplane.v1 import registry_pb2
from lab import Lab, LabConfig, lifecycle, processes
from lab.programs import agent_name
from lab.topology import PORTS
from tests.e2e.conftest import fresh_name

pytestmark = pytest.mark.timeout(300)

PAIR = """
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: one}}
spec: {nodeName: node-1, containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: two}}
spec: {nodeName: node-2, containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
"""

RESTART_SECONDS = 90.0


def finish(lab: Lab) -> "subprocess.CompletedProcess[str]":
    """The command, where etcd is."""
    command = [str(Path(sys.executable).with_name("deltaplane"))]
    if lab.topology.tls:
        command += ["--tls-dir", str(lab.layout.certificate("admin"))]
    return subprocess.run(
        [
            *("nsenter", f"--net=/run/netns/{lab.topology.control}", "--", *command),
            *("restore", "finish", "--etcd", f"127.0.0.1:{PORTS['etcd']}", "-o", "json"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def await_restarts(lab: Lab) -> None:
    """Until every agent has started again and all of the lab serves."""
    agents = [agent_name(node.name) for node in lab.topology.nodes]
    deadline = time.monotonic() + RESTART_SECONDS
    while True:
        state = lab.status()
        if state.ready and all(state.processes[name].restarts for name in agents):
            return
        assert time.monotonic() < deadline, state
        time.sleep(0.1)


def identities(lab: Lab) -> dict[str, int]:
    answer = lab.client.registry.ListEndpoints(registry_pb2.ListEndpointsRequest())
    return {item.pod: item.identity for item in answer.endpoints}


def test_a_lab_goes_on_in_a_new_lineage(tmp_path: Path) -> None:
    file = tmp_path / "pair.yaml"
    file.write_text(PAIR)
    with Lab.up(LabConfig(name=fresh_name(), nodes=2)) as lab:
        lab.wait_enforced(lab.apply([file]))
        before = identities(lab)

        refused = finish(lab)
        assert refused.returncode == 1
        assert "services still run on this etcd: slicer" in refused.stderr

        slicer = lab.status().processes["slicer"].process
        assert slicer is not None
        # Its lease ends, as if it had been stopped; what it finds when it goes on is another store.
        processes.send(slicer, signal.SIGSTOP)
        try:
            done = finish(lab)
        finally:
            processes.send(slicer, signal.SIGCONT)
        assert done.returncode == 0, done.stderr
        raised = json.loads(done.stdout)["identities_given"][1]

        await_restarts(lab)
        log = lifecycle.log_tail(lab.layout, "agent-node-1", lines=1000)
        assert "a backup was restored; starting again" in log
        file.write_text(PAIR.replace("two", "three"))
        lab.wait_enforced(lab.apply([file]), seconds=60)
        assert lab.probe().allowed == 12
        after = identities(lab)
        assert {pod: after[pod] for pod in before} == before
        assert after["three"] > raised >= 2**20
