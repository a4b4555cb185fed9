"""deltaplane.v1.Agent over real gRPC, on the fake data plane."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc.aio

from deltaplane.model.objects import DirectionRule
from deltaplane.model.ports import PortRange, Protocol
from deltaplane.model.tiers import Action, Tier
from deltaplane.runtime import rpc
from deltaplane.v1 import agent_pb2, agent_pb2_grpc, policy_pb2
from nodeagent.apply import Applier
from nodeagent.dataplane.fake import FakeDataPlane
from nodeagent.servicer import AgentServicer, Sources
from nodeagent.verdict import NOBODY, decision, ruling_of
from tests.unit.nodeagent.test_apply import applying, counted
from tests.unit.nodeagent.worlds import OWN, Stream, endpoint, local

ALLOW = policy_pb2.RULE_ACTION_ALLOW
DENY = policy_pb2.RULE_ACTION_DENY


@asynccontextmanager
async def serving(applier: Applier, folder: Path) -> AsyncIterator["agent_pb2_grpc.AgentAsyncStub"]:
    """A client of an agent of which there is only this part."""
    nothing = cast("Any", None)
    sources = Sources(
        node=nothing,
        journal=nothing,
        applier=applier,
        balancing=nothing,
        stream=nothing,
        dataplane=nothing,
        worker=nothing,
        clock=nothing,
    )
    server = grpc.aio.server()
    agent_pb2_grpc.add_AgentServicer_to_server(AgentServicer(sources), server)
    address = f"unix:{folder}/s"
    server.add_insecure_port(address)
    await server.start()
    try:
        async with rpc.channel(address) as channel:
            yield agent_pb2_grpc.AgentStub(channel)
    finally:
        await server.stop(None)


async def test_rule_counters_are_told_by_policy(tmp_path: Path) -> None:
    dataplane = FakeDataPlane()
    web = DirectionRule(
        all_peers=True, ports=(PortRange(Protocol.TCP, 80, 80),), sources=((0, 2), (1, 0))
    )
    judged = counted(300, web, policies=("a/p", "b/q"))
    judged = replace(judged, egress=replace(judged.ingress, policies=("a/p",), rules=()))
    allow = ruling_of(Tier.NORMAL, decision(1, Action.ALLOW))
    async with applying(dataplane) as applier, serving(applier, tmp_path) as agent:
        empty = await agent.ListRuleCounters(agent_pb2.ListRuleCountersRequest())
        assert list(empty.counters) == []
        await applier.attach(local(1, "10.0.0.1"))
        await applier.barrier(Stream().barrier(endpoint(OWN, 1, 300, "10.0.0.1"), judged))
        [subject] = dataplane.dump().subjects
        dataplane.hits = {
            (subject.ingress_set, allow): 5,
            (subject.ingress_set, NOBODY): 2,
            (subject.egress_set, NOBODY): 3,
        }

        everything = await agent.ListRuleCounters(agent_pb2.ListRuleCountersRequest())
        one = await agent.ListRuleCounters(agent_pb2.ListRuleCountersRequest(policy="b/q"))
        absent = await agent.ListRuleCounters(agent_pb2.ListRuleCountersRequest(policy="a/none"))

    of_q = agent_pb2.RuleCounter(policy="b/q", ingress=True, rule=0, action=ALLOW, hits=5)
    assert list(everything.counters) == [
        agent_pb2.RuleCounter(ingress=False, action=DENY, hits=3),
        agent_pb2.RuleCounter(ingress=True, action=DENY, hits=2),
        agent_pb2.RuleCounter(policy="a/p", ingress=True, rule=2, action=ALLOW, hits=5),
        of_q,
    ]
    assert list(one.counters) == [of_q]
    assert list(absent.counters) == []
