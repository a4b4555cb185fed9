"""`policy audit`: the agent's counters, by the policies that they are about."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from deltaplane.model.identity import Reserved
from deltaplane.model.ports import Protocol
from deltaplane.v1 import agent_pb2
from tests.unit.deltaplane.cli.conftest import Cluster, Run, serve
from tests.unit.deltaplane.cli.test_policy_explain import ALLOW, DENY, EGRESS, shop, store

__all__ = ["shop"]

AUDIT = "metadata: {annotations: {deltaplane.dev/audit: 'true'}, "


def under_audit(text: str) -> str:
    return text.replace("metadata: {", AUDIT)


class FakeAgent:
    def __init__(self) -> None:
        self.denials: list[agent_pb2.Denial] = []

    def ListDenials(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return agent_pb2.ListDenialsResponse(denials=self.denials)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[tuple[FakeAgent, str]]:
    fake, target = FakeAgent(), f"unix:{tmp_path}/agent"
    server = grpc.server(ThreadPoolExecutor(1))
    serve(server, agent_pb2, "Agent", fake)
    server.add_insecure_port(target)
    server.start()
    yield fake, target
    server.stop(None).wait()


def denial(subject: int, peer: int, packets: int, *, audit: bool = True) -> agent_pb2.Denial:
    return agent_pb2.Denial(
        subject_identity=subject,
        peer_identity=peer,
        ingress=True,
        protocol=Protocol.TCP,
        port=80,
        packets=packets,
        audit=audit,
    )


def test_would_be_denials_are_told_by_policy(
    shop: Cluster, run: Run, agent: tuple[FakeAgent, str]
) -> None:
    fake, target = agent
    store(shop, under_audit(DENY), under_audit(EGRESS))
    fake.denials = [
        denial(301, 300, 5),
        denial(301, 300, 2),
        denial(301, Reserved.WORLD, 3),
        denial(301, 300, 100, audit=False),
    ]

    records = json.loads(run("policy", "audit", "--agent", target, "-o", "json").out)

    assert records == [
        {
            "policy": "shop/deny",
            "side": "ingress",
            "from": "shop app=web",
            "to": "shop app=db",
            "traffic": "TCP 80",
            "connections": 7,
        },
        {
            "policy": "shop/deny",
            "side": "ingress",
            "from": "world",
            "to": "shop app=db",
            "traffic": "TCP 80",
            "connections": 3,
        },
    ]
    assert "nothing would" in run("policy", "audit", "shop/out", "--agent", target).err


@pytest.mark.usefixtures("shop")
def test_what_no_policy_of_now_would_deny_is_not_hidden(
    run: Run, agent: tuple[FakeAgent, str]
) -> None:
    fake, target = agent
    fake.denials = [denial(301, 999, 1)]
    (record,) = json.loads(run("policy", "audit", "--agent", target, "-o", "json").out)
    assert (record["policy"], record["from"]) == ("none that is there now", "identity 999")


def test_a_policy_that_is_enforced_has_no_audit(
    shop: Cluster, run: Run, agent: tuple[FakeAgent, str]
) -> None:
    _, target = agent
    store(shop, ALLOW)
    assert "is not under audit" in run("policy", "audit", "shop/allow", "--agent", target).err
    assert "there is no policy" in run("policy", "audit", "shop/nope", "--agent", target).err
    assert run("policy", "audit").code == 1


@pytest.mark.usefixtures("shop")
def test_an_agent_that_is_away_is_told(run: Run, tmp_path: Path) -> None:
    done = run("policy", "audit", "--agent", f"unix:{tmp_path}/nobody")
    assert done.code == 3
    assert "nobody" in done.err
