"""`service trace`: which service it is, whom clients are given on each node, and why."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from deltaplane import servicewire
from deltaplane.cli.servicetrace import (
    Answer,
    Match,
    Target,
    matches,
    read_target,
    trace,
    why_none,
)
from deltaplane.errors import Invalid
from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.model.ports import Protocol
from deltaplane.model.service import (
    EndpointSlice,
    Service,
    ServicePort,
    ServiceType,
    SliceEndpoint,
    SlicePort,
)
from deltaplane.v1 import agent_pb2, common_pb2, registry_pb2
from tests.unit.deltaplane.cli.conftest import Cluster, Run, serve

CLUSTER, SIX, EXTERNAL, BALANCER = (
    parse_address(text) for text in ("10.96.0.7", "fd00:10:96::7", "198.51.100.7", "203.0.113.7")
)
NODE = parse_address("198.19.0.1")
NODES = {NODE: "node-1", parse_address("198.19.0.2"): "node-2"}
POD = parse_address("10.244.0.1")

WEB = Service(
    namespace="shop",
    name="web",
    number=7,
    type=ServiceType.LOAD_BALANCER,
    cluster_ips=(CLUSTER, SIX),
    external_ips=(EXTERNAL,),
    load_balancer_ips=(BALANCER,),
    ports=(
        ServicePort(name="http", port=80, node_port=30080),
        ServicePort(name="dns", protocol=Protocol.UDP, port=53, node_port=30053),
    ),
    selector=(("app", "web"),),
)


def endpoint(number: int, **fields: object) -> SliceEndpoint:
    known = SliceEndpoint(
        address=bytes([10, 244, 0, number]),
        node=f"node-{number}",
        target=f"shop/web-{number}",
    )
    return replace(known, **fields)  # type: ignore[arg-type]


def slices(*endpoints: SliceEndpoint) -> list[EndpointSlice]:
    ports = (
        SlicePort(name="http", number=8080),
        SlicePort(name="dns", protocol=Protocol.UDP, number=53),
    )
    return [
        EndpointSlice(namespace="shop", name="w", service="web", ports=ports, endpoints=endpoints)
    ]


def tcp(address: bytes, port: int = 80) -> Target:
    return Target(address=address, port=port)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("10.96.0.7:80", tcp(CLUSTER)),
        ("[fd00:10:96::7]:80", tcp(SIX)),
        ("10.96.0.7:65535", tcp(CLUSTER, 65535)),
    ],
)
def test_targets(text: str, target: Target) -> None:
    assert read_target(text, "tcp") == target
    assert str(target) == f"{text}/TCP"


@pytest.mark.parametrize(
    "text", ["10.96.0.7", "fd00::7:80", "a:80", "10.96.0.7:0", "1.2.3.4:x", ""]
)
def test_no_targets(text: str) -> None:
    with pytest.raises(Invalid):
        read_target(text, "TCP")
    with pytest.raises(Invalid, match="none of TCP"):
        read_target("10.96.0.7:80", "ICMP")


@pytest.mark.parametrize(
    ("target", "port", "kind"),
    [
        (tcp(CLUSTER), 80, "cluster address"),
        (tcp(EXTERNAL), 80, "external address"),
        (tcp(BALANCER), 80, "address of the load balancer"),
        (tcp(NODE, 30080), 80, "node port, at node-1"),
        (Target(address=SIX, port=53, protocol=Protocol.UDP), 53, "cluster address"),
    ],
)
def test_what_it_is(target: Target, port: int, kind: str) -> None:
    found = matches(target, [replace(WEB, cluster_ips=(), ports=()), WEB], NODES)
    assert found is not None
    assert (found.port.port, found.kind) == (port, kind)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (tcp(CLUSTER, 81), "the cluster address of shop/web, which has no such port: 80/TCP, 53/"),
        (tcp(CLUSTER, 53), "which has no such port"),
        (tcp(POD), "is the address of pod shop/web-1: no service is on the way"),
        (tcp(NODE, 30081), "is an address of node-1, but no service has this node port"),
        (tcp(parse_address("192.0.2.1")), "no service has the address 192.0.2.1"),
        # A cluster address does not answer at the node port.
        (tcp(CLUSTER, 30080), "no such port"),
    ],
)
def test_why_nothing_answers(target: Target, why: str) -> None:
    assert matches(target, [WEB], NODES) is None
    assert why in why_none(target, [WEB], NODES, {POD: "shop/web-1"})


def traced(
    answer: Answer | str | None, *endpoints: SliceEndpoint, service: Service = WEB
) -> dict[str, Any]:
    match = Match(service=service, port=WEB.ports[0], kind="cluster address")
    record = trace(tcp(CLUSTER), match, slices(*endpoints), {"node-1": answer}, inside_only=False)
    nodes: Any = record["nodes"]
    (node,) = nodes
    return dict(node)


ONE, TWO = (endpoint(1).address, 8080), (endpoint(2).address, 8080)


def test_everybody_is_given() -> None:
    found = traced(Answer(service=7, inside=(ONE, TWO)), endpoint(1), endpoint(2))
    assert found["answers"] == "yes"
    assert found["backends"] == [
        "10.244.0.1:8080 (shop/web-1, node-1, ready)",
        "10.244.0.2:8080 (shop/web-2, node-2, ready)",
    ]
    assert "others" not in found
    assert found["outside"] == "not answered"


def test_backends_of_the_other_family_are_not_looked_for() -> None:
    six = endpoint(2, address=parse_address("fd00::2"))
    assert "others" not in traced(Answer(service=7, inside=(ONE,)), endpoint(1), six)


@pytest.mark.parametrize(
    ("other", "service", "why"),
    [
        (endpoint(2), replace(WEB, internal_local=True), "it is on another node"),
        (endpoint(2, ready=False), WEB, "it is not ready"),
        (endpoint(2, ready=False, terminating=True), WEB, "it is terminating"),
        (endpoint(2, zones=("east",)), WEB, "it is for east"),
        (endpoint(2), WEB, "the node may be behind"),
    ],
)
def test_why_somebody_is_not_given(other: SliceEndpoint, service: Service, why: str) -> None:
    found = traced(Answer(service=7, inside=(ONE,)), endpoint(1), other, service=service)
    (line,) = found["others"]
    assert line.startswith("10.244.0.2:8080")
    assert why in line


@pytest.mark.parametrize(
    ("endpoints", "service", "why"),
    [
        ((), WEB, "there is no backend"),
        ((endpoint(1, ready=False, serving=False),), WEB, "no backend is ready"),
        ((endpoint(2),), replace(WEB, internal_local=True), "internalTrafficPolicy is Local"),
        ((endpoint(2),), WEB, "the node may be behind"),
    ],
)
def test_why_clients_are_refused(
    endpoints: tuple[SliceEndpoint, ...], service: Service, why: str
) -> None:
    found = traced(Answer(service=7, inside=()), *endpoints, service=service)
    assert found["answers"].startswith("no: refused")
    assert why in found["answers"]


def test_clients_outside() -> None:
    ranged = replace(WEB, source_ranges=(Prefix.parse("192.0.2.0/24"),))
    answer = Answer(service=7, inside=(ONE,), outside=(ONE,), check_source=True)
    assert traced(answer, endpoint(1), service=ranged)["outside"] == [
        "only from 192.0.2.0/24",
        "10.244.0.1:8080 (shop/web-1, node-1, ready)",
    ]
    nobody = Answer(service=7, inside=(ONE,), outside=())
    local = replace(WEB, external_local=True)
    assert traced(nobody, endpoint(1))["outside"] == "refused: no backend"
    found = traced(nobody, endpoint(1), service=local)
    assert found["outside"] == "refused: no backend on this node"


def test_what_is_not_known() -> None:
    assert traced("it is away")["answers"] == "not known: it is away"
    assert "does not know this service" in traced(None)["answers"]
    gone = traced(Answer(service=7, inside=(ONE,)))
    assert gone["backends"] == ["10.244.0.1:8080 (in no slice any more)"]


# --- the command ---------------------------------------------------------------------------------


@dataclass
class FakeAgent:
    frontends: list[agent_pb2.NodeFrontend] = field(default_factory=list)

    def ListFrontends(self, request: Any, _context: Any) -> Any:  # noqa: N802
        found = [
            one
            for one in self.frontends
            if one.address in request.addresses and one.port == request.port
        ]
        return agent_pb2.ListFrontendsResponse(frontends=found)


@pytest.fixture
def agent(cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    cluster.services = [servicewire.service_to_proto(WEB)]
    found = slices(endpoint(1), endpoint(2))
    cluster.endpoint_slices = [servicewire.slice_to_proto(item) for item in found]
    addresses = common_pb2.AddressPair(ipv4=NODE)
    cluster.nodes = [registry_pb2.Node(name="node-1", index=1, addresses=addresses)]
    cluster.pods = [registry_pb2.Pod(namespace="shop", name="client", node="node-1")]

    def frontend(address: bytes, port: int, *, outside: bool) -> agent_pb2.NodeFrontend:
        backends = [
            agent_pb2.FrontendBackend(address=endpoint(number).address, port=8080)
            for number in (1, 2)
        ]
        return agent_pb2.NodeFrontend(
            address=address,
            port=port,
            protocol=common_pb2.PROTOCOL_TCP,
            service=7,
            backends=backends,
            outside=outside,
            outside_backends=backends[:1] if outside else [],
        )

    other = agent_pb2.NodeFrontend(address=CLUSTER, port=80, protocol=common_pb2.PROTOCOL_UDP)
    fake = FakeAgent(
        [other, frontend(CLUSTER, 80, outside=False), frontend(bytes(4), 30080, outside=True)]
    )
    server = grpc.server(ThreadPoolExecutor(2))
    serve(server, agent_pb2, "Agent", fake)
    address = f"unix:{tmp_path}/agent"
    server.add_insecure_port(address)
    server.start()
    yield f"node-1={address}"
    server.stop(None).wait()


def test_a_cluster_address(run: Run, agent: str) -> None:
    done = run(
        *("service", "trace", "10.96.0.7:80", "--from", "shop/client"),
        *("--agent", agent, "--agent", "node-2=unix:/nowhere", "-o", "json"),
    )
    record = json.loads(done.out)
    assert (record["service"], record["as"]) == ("shop/web", "cluster address")
    (node,) = record["nodes"]
    assert (node["node"], node["answers"], len(node["backends"])) == ("node-1", "yes", 2)
    assert "outside" not in node


def test_a_node_port(run: Run, agent: str) -> None:
    done = run("service", "trace", "198.19.0.1:30080", "--agent", agent, "-o", "json")
    record = json.loads(done.out)
    assert (record["port"], record["as"]) == ("http", "node port, at node-1")
    (node,) = record["nodes"]
    assert node["outside"] == ["10.244.0.1:8080 (shop/web-1, node-1, ready)"]


def test_nodes_that_do_not_say(run: Run, agent: str) -> None:
    where = ("--agent", agent, "--agent", "node-2=unix:/nowhere")
    done = run("service", "trace", "[fd00:10:96::7]:80", *where)
    assert done.code == 0
    assert "does not know this service" in done.out
    assert "not known" in done.out
    assert "name agents with --agent" in run("service", "trace", "10.96.0.7:80").out


def test_nothing_answers(run: Run, agent: str) -> None:
    assert agent
    done = run("service", "trace", "10.96.0.7:81")
    assert done.code == 1
    assert "which has no such port" in done.out
    assert run("service", "trace", "10.96.0.7").code == 1
    assert "NODE=TARGET" in run("service", "trace", "10.96.0.7:80", "--agent", "x").err
    assert "no pod" in run("service", "trace", "10.96.0.7:80", "--from", "shop/nobody").err
