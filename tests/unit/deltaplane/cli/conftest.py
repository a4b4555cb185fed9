"""A small cluster behind real gRPC: the command runs as it always does, the services are fakes."""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from deltaplane.cli import main
from deltaplane.v1 import (
    ipam_pb2,
    policy_pb2,
    receipts_pb2,
    registry_pb2,
    service_pb2,
    slicer_pb2,
)


@dataclass
class Cluster:
    """What the fakes answer, and what they were told."""

    nodes: list[registry_pb2.Node] = field(default_factory=list)
    fences: list[registry_pb2.Fence] = field(default_factory=list)
    quarantines: list[slicer_pb2.GetQuarantineResponse] = field(default_factory=list)
    deleted_nodes: list[str] = field(default_factory=list)
    namespaces: list[registry_pb2.Namespace] = field(default_factory=list)
    pods: list[registry_pb2.Pod] = field(default_factory=list)
    endpoints: list[registry_pb2.Endpoint] = field(default_factory=list)
    identities: list[registry_pb2.Identity] = field(default_factory=list)
    policies: dict[tuple[str, str, str], policy_pb2.NetworkPolicy | policy_pb2.Policy] = field(
        default_factory=dict
    )
    pools: list[ipam_pb2.PoolStatus] = field(default_factory=list)
    pool_calls: list[Any] = field(default_factory=list)
    blocks: list[ipam_pb2.Block] = field(default_factory=list)
    slices: list[slicer_pb2.Slice] = field(default_factory=list)
    services: list[service_pb2.Service] = field(default_factory=list)
    endpoint_slices: list[service_pb2.EndpointSlice] = field(default_factory=list)
    deleted_services: list[str] = field(default_factory=list)
    agents: list[slicer_pb2.AgentStatus] = field(default_factory=list)
    receipts: list[receipts_pb2.WatchResponse] = field(default_factory=list)
    watched: list[receipts_pb2.WatchRequest] = field(default_factory=list)
    refuse_policies: str = ""
    ends_early: bool = False
    page: int = 1000
    revision: int = 40


class FakeRegistry:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def ListNodes(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return registry_pb2.ListNodesResponse(
            nodes=self._cluster.nodes,
            fences=self._cluster.fences,
            revision=self._cluster.revision,
        )

    def DeleteNode(self, request: Any, _context: Any) -> Any:  # noqa: N802
        self._cluster.deleted_nodes.append(request.name)
        return registry_pb2.DeleteNodeResponse(endpoints_removed=3)

    def ListNamespaces(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return registry_pb2.ListNamespacesResponse(namespaces=self._cluster.namespaces)

    def ListPods(self, request: Any, _context: Any) -> Any:  # noqa: N802
        found = [p for p in self._cluster.pods if request.namespace in ("", p.namespace)]
        return registry_pb2.ListPodsResponse(pods=found)

    def ListEndpoints(self, request: Any, _context: Any) -> Any:  # noqa: N802
        found = [
            e
            for e in self._cluster.endpoints
            if request.namespace in ("", e.namespace) and request.pod in ("", e.pod)
        ]
        start = int(request.page_token or 0)
        end = start + self._cluster.page
        return registry_pb2.ListEndpointsResponse(
            endpoints=found[start:end], next_page_token=str(end) if end < len(found) else ""
        )

    def ListServices(self, request: Any, _context: Any) -> Any:  # noqa: N802
        found = [
            item
            for item in self._cluster.services
            if request.namespace in ("", item.namespace) and request.name in ("", item.name)
        ]
        start = int(request.page_token or 0)
        end = start + self._cluster.page
        return registry_pb2.ListServicesResponse(
            services=found[start:end], next_page_token=str(end) if end < len(found) else ""
        )

    def ListEndpointSlices(self, request: Any, _context: Any) -> Any:  # noqa: N802
        found = [
            item
            for item in self._cluster.endpoint_slices
            if request.namespace in ("", item.namespace) and request.service in ("", item.service)
        ]
        start = int(request.page_token or 0)
        end = start + self._cluster.page
        return registry_pb2.ListEndpointSlicesResponse(
            slices=found[start:end], next_page_token=str(end) if end < len(found) else ""
        )

    def DeleteServices(self, request: Any, _context: Any) -> Any:  # noqa: N802
        self._cluster.deleted_services += [f"{it.namespace}/{it.name}" for it in request.services]
        return registry_pb2.DeleteServicesResponse(revision=self._cluster.revision)

    def ListIdentities(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return registry_pb2.ListIdentitiesResponse(identities=self._cluster.identities)

    def ListPolicies(self, request: Any, _context: Any) -> Any:  # noqa: N802
        found = [
            policy
            for (kind, namespace, name), policy in sorted(self._cluster.policies.items())
            if request.namespace in ("", namespace)
            and request.name in ("", name)
            and request.kind in ("", kind)
        ]
        answer = registry_pb2.ListPoliciesResponse()
        for policy in found:
            if isinstance(policy, policy_pb2.Policy):
                answer.others.append(policy)
                if not request.name:
                    answer.others[-1].ClearField("manifest")
            else:
                answer.policies.append(policy)
        return answer

    def ApplyPolicies(self, request: Any, context: Any) -> Any:  # noqa: N802
        if self._cluster.refuse_policies:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, self._cluster.refuse_policies)
        for policy in request.policies:
            self._cluster.policies["NetworkPolicy", policy.namespace, policy.name] = policy
        for policy in request.others:
            self._cluster.policies[policy.kind, policy.namespace, policy.name] = policy
        self._cluster.revision += 1
        return registry_pb2.ApplyPoliciesResponse(revision=self._cluster.revision)

    def DeletePolicies(self, request: Any, _context: Any) -> Any:  # noqa: N802
        for policy in request.policies:
            kind = policy.kind or "NetworkPolicy"
            self._cluster.policies.pop((kind, policy.namespace, policy.name), None)
        self._cluster.revision += 1
        return registry_pb2.DeletePoliciesResponse(revision=self._cluster.revision)


class FakeIpam:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def ListPools(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return ipam_pb2.ListPoolsResponse(pools=self._cluster.pools)

    def ListBlocks(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return ipam_pb2.ListBlocksResponse(blocks=self._cluster.blocks)

    def CreatePool(self, request: Any, _context: Any) -> Any:  # noqa: N802
        self._cluster.pool_calls.append(request)
        answer = ipam_pb2.CreatePoolResponse(pool=request.pool)
        answer.pool.meta.mod_revision = 41
        return answer

    def UpdatePool(self, request: Any, _context: Any) -> Any:  # noqa: N802
        self._cluster.pool_calls.append(request)
        (status,) = self._cluster.pools
        answer = ipam_pb2.UpdatePoolResponse(pool=status.pool)
        answer.pool.meta.mod_revision = 41
        return answer

    def DeletePool(self, request: Any, _context: Any) -> Any:  # noqa: N802
        self._cluster.pool_calls.append(request)
        return ipam_pb2.DeletePoolResponse(revision=41)


class FakeSlicer:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def ListSlices(self, request: Any, _context: Any) -> Any:  # noqa: N802
        start = int(request.page_token or 0)
        end = start + self._cluster.page
        return slicer_pb2.ListSlicesResponse(
            slices=self._cluster.slices[start:end],
            next_page_token=str(end) if end < len(self._cluster.slices) else "",
        )

    def ListAgents(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return slicer_pb2.ListAgentsResponse(agents=self._cluster.agents, head_revision=40)

    def GetQuarantine(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        answers = self._cluster.quarantines
        return answers.pop(0) if len(answers) > 1 else answers[0]


class FakeReceipts:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def Watch(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._cluster.watched.append(request)
        if request.policy == "shop/nope":
            context.abort(grpc.StatusCode.NOT_FOUND, "there is no policy 'shop/nope'")
        for receipt in self._cluster.receipts if request.wait else self._cluster.receipts[-1:]:
            answer = receipts_pb2.WatchResponse()
            answer.CopyFrom(receipt)
            answer.revision = request.revision or receipt.revision
            yield answer
        if self._cluster.ends_early:
            return
        if request.wait and not (self._cluster.receipts and self._cluster.receipts[-1].complete):
            # As the real one: it goes on until the caller has had enough.
            ended = threading.Event()
            context.add_callback(ended.set)
            ended.wait(10)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def serve(server: grpc.Server, module: Any, name: str, fake: object) -> None:
    """Serves the methods that a fake has; the others are UNIMPLEMENTED."""
    service = module.DESCRIPTOR.services_by_name[name]
    handlers: dict[str, Any] = {}
    for method in service.methods:
        if behaviour := getattr(fake, method.name, None):
            make = (
                grpc.unary_stream_rpc_method_handler
                if method.server_streaming
                else grpc.unary_unary_rpc_method_handler
            )
            handlers[method.name] = make(
                behaviour,
                request_deserializer=GetMessageClass(method.input_type).FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
    generic = grpc.method_handlers_generic_handler(service.full_name, handlers)
    server.add_generic_rpc_handlers((generic,))


@pytest.fixture
def target(cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    """Where all fakes serve."""
    server = grpc.server(ThreadPoolExecutor(4))
    serve(server, registry_pb2, "Registry", FakeRegistry(cluster))
    serve(server, ipam_pb2, "Ipam", FakeIpam(cluster))
    serve(server, slicer_pb2, "Slicer", FakeSlicer(cluster))
    serve(server, receipts_pb2, "Receipts", FakeReceipts(cluster))
    address = f"unix:{tmp_path}/s"
    server.add_insecure_port(address)
    server.start()
    yield address
    server.stop(None).wait()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process; nothing of the caller's environment counts."""
    for name in ("LAB", "REGISTRY", "IPAM", "SLICER"):
        monkeypatch.delenv(f"DELTAPLANE_{name}", raising=False)
    monkeypatch.setenv("TERM", "dumb")

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["deltaplane", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.main()
        text = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), text.out, text.err)

    return run


@pytest.fixture
def run(command: Run, target: str) -> Run:
    """The command on the small cluster."""
    where = ("--registry", target, "--ipam", target, "--slicer", target)

    def on_cluster(*arguments: str) -> Outcome:
        return command(*arguments, *where)

    return on_cluster
