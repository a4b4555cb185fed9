"""`node sweep`, and how a braked node shows in `get nodes`."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from deltaplane.v1 import agent_pb2, registry_pb2, slicer_pb2
from tests.unit.deltaplane.cli.conftest import Cluster, Run, serve


class FakeAgent:
    def __init__(self) -> None:
        self.held = 120
        self.confirmed: list[int] = []

    def GetStatus(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return agent_pb2.GetStatusResponse(node="a", held_entries=self.held, held_of=165)

    def ConfirmSweep(self, request: Any, _context: Any) -> Any:  # noqa: N802
        self.confirmed.append(request.entries)
        self.held = 0
        return agent_pb2.ConfirmSweepResponse()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[tuple[FakeAgent, str]]:
    fake, target = FakeAgent(), f"unix:{tmp_path}/agent"
    server = grpc.server(ThreadPoolExecutor(1))
    serve(server, agent_pb2, "Agent", fake)
    server.add_insecure_port(target)
    server.start()
    yield fake, target
    server.stop(None).wait()


def test_a_sweep_is_shown_then_confirmed(run: Run, agent: tuple[FakeAgent, str]) -> None:
    fake, target = agent
    shown = run("node", "sweep", "a", "--agent", target)
    assert shown.code == 3
    assert "120 of 165" in shown.out
    assert not fake.confirmed
    assert "removed 120 of 165" in run("node", "sweep", "a", "--confirm", "--agent", target).out
    assert fake.confirmed == [120]
    again = run("node", "sweep", "a", "--confirm", "--agent", target)
    assert (again.code, fake.confirmed) == (0, [120])
    assert "holds nothing back" in again.out


def test_another_nodes_agent_is_not_told(run: Run, agent: tuple[FakeAgent, str]) -> None:
    fake, target = agent
    refused = run("node", "sweep", "b", "--confirm", "--agent", target)
    assert refused.code == 1
    assert "that of node a" in refused.err
    assert not fake.confirmed


def test_without_a_lab_the_agent_is_named(run: Run) -> None:
    assert "--agent" in run("node", "sweep", "a").err


def test_get_nodes_shows_who_is_braked(cluster: Cluster, run: Run) -> None:
    cluster.nodes = [registry_pb2.Node(name=name, index=i + 1) for i, name in enumerate("abc")]
    cluster.fences = [
        registry_pb2.Fence(node="b", node_index=2, reason=registry_pb2.Fence.REASON_UNREACHABLE)
    ]
    cluster.agents = [
        slicer_pb2.AgentStatus(node="a", braked="120 of 165 entries would go"),
        slicer_pb2.AgentStatus(node="b", braked="120 of 165 entries would go"),
        slicer_pb2.AgentStatus(node="c"),
    ]
    records = json.loads(run("get", "nodes", "-o", "json").out)
    assert [record["state"] for record in records] == ["braked", "fenced, braked", "live"]
