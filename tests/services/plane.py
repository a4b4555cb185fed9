"""The services of one control plane behind real gRPC on unix sockets, over any store.

Ready-made requests live here, too: `Plane.endpoint(...)` fills in what a story does not care about.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import grpc
import grpc.aio

from deltaplane.errors import DeltaplaneError
from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.runtime import rpc
from deltaplane.store.port import Store
from deltaplane.v1 import (
    audit_pb2_grpc,
    common_pb2,
    ipam_pb2,
    ipam_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)
from services.endpoints.auditing import AuditServicer
from services.endpoints.identity import LabelFilter
from services.endpoints.ranges import DEFAULT_RANGES, Ranges
from services.endpoints.repository import Repositories
from services.endpoints.servicer import RegistryServicer
from services.ipam.repository import Repository
from services.ipam.repository.coalescing import Coalescer as Claims
from services.ipam.servicer import IpamServicer

T = TypeVar("T")
DEADLINE_SECONDS = 10


async def ok(call: Awaitable[T]) -> T:
    """The answer of a call; a failed one raises what the server raised."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await call
    except grpc.aio.AioRpcError as error:
        raise rpc.translate(error) from error


async def failure(call: Awaitable[object]) -> DeltaplaneError:
    """The error of a call that must fail."""
    try:
        answer = await ok(call)
    except DeltaplaneError as error:
        return error
    raise AssertionError(f"answered {answer}")


def claims_of(node: str, uid: str, *claims: tuple[str, str]) -> ipam_pb2.ClaimBlocksRequest:
    """Claims of pools, by request ids."""
    return ipam_pb2.ClaimBlocksRequest(
        node=node,
        node_uid=uid,
        claims=[ipam_pb2.BlockClaim(pool=pool, request_id=request) for pool, request in claims],
    )


async def claim_all(
    stub: "ipam_pb2_grpc.IpamAsyncStub", request: ipam_pb2.ClaimBlocksRequest
) -> list[ipam_pb2.Block | DeltaplaneError]:
    """What came of each claim."""
    answer = await ok(stub.ClaimBlocks(request))
    assert len(answer.results) == len(request.claims)
    return [
        it.block if it.HasField("block") else rpc.error_of(it.error.code, it.error.message)
        for it in answer.results
    ]


async def claim_one(
    stub: "ipam_pb2_grpc.IpamAsyncStub", request: ipam_pb2.ClaimBlocksRequest
) -> ipam_pb2.Block:
    """The block of a request for one; raises why there is none."""
    (outcome,) = await claim_all(stub, request)
    if isinstance(outcome, DeltaplaneError):
        raise outcome
    return outcome


def pair(*texts: str) -> common_pb2.AddressPair:
    addresses = [parse_address(text) for text in texts]
    return common_pb2.AddressPair(
        ipv4=next((a for a in addresses if len(a) == 4), b""),
        ipv6=next((a for a in addresses if len(a) == 16), b""),
    )


def prefix(text: str) -> common_pb2.Prefix:
    value = Prefix.parse(text)
    return common_pb2.Prefix(address=value.address, length=value.length)


def pod(
    name: str,
    labels: dict[str, str] | None = None,
    *,
    namespace: str = "shop",
    node: str = "node-1",
    uid: str = "",
) -> registry_pb2.Pod:
    return registry_pb2.Pod(
        namespace=namespace,
        name=name,
        uid=uid or f"uid-{name}",
        node=node,
        labels={"app": name} if labels is None else labels,
    )


def owner(number: int, attempt: str = "first") -> registry_pb2.OwnerToken:
    return registry_pb2.OwnerToken(
        network="pods", container_id=f"container-{number}", interface="eth0", attempt=attempt
    )


def endpoint(
    number: int,
    *addresses: str,
    pod: str = "web",
    namespace: str = "shop",
    node: str = "node-1",
    pod_uid: str | None = None,
    attempt: str = "first",
) -> registry_pb2.Endpoint:
    return registry_pb2.Endpoint(
        node=node,
        id=number,
        namespace=namespace,
        pod=pod,
        pod_uid=f"uid-{pod}" if pod_uid is None else pod_uid,
        owner=owner(number, attempt),
        addresses=pair(*(addresses or (f"10.244.0.{number}",))),
    )


def release(of: registry_pb2.Endpoint, incarnation: int = 0) -> registry_pb2.EndpointRelease:
    message = registry_pb2.EndpointRelease(
        namespace=of.namespace, pod=of.pod, node=of.node, id=of.id
    )
    if incarnation:
        message.incarnation = incarnation
    else:
        message.owner.CopyFrom(of.owner)
    return message


@dataclass
class Plane:
    """Clients of one replica of each service, and the store below them."""

    store: Store
    ipam: "ipam_pb2_grpc.IpamAsyncStub"
    registry: "registry_pb2_grpc.RegistryAsyncStub"
    repositories: Repositories
    records: "audit_pb2_grpc.AddressRecordsAsyncStub"
    nodes: dict[str, registry_pb2.Node] = field(default_factory=dict)

    async def pool(self, text: str = "10.244.0.0/16", block: int = 26, name: str = "ipv4") -> None:
        pool = ipam_pb2.Pool(name=name, prefix=prefix(text), block_length=block)
        await ok(self.ipam.CreatePool(ipam_pb2.CreatePoolRequest(pool=pool)))

    async def node(self, name: str = "node-1", uid: str = "") -> registry_pb2.Node:
        message = registry_pb2.Node(
            name=name, uid=uid or f"uid-of-{name}", addresses=pair("198.19.0.1", "fd99::1")
        )
        answer = await ok(
            self.registry.RegisterNode(registry_pb2.RegisterNodeRequest(node=message))
        )
        self.nodes[name] = answer.node
        return answer.node

    async def claim(
        self, node: str = "node-1", request: str = "0", pool: str = "ipv4"
    ) -> ipam_pb2.Block:
        return await claim_one(self.ipam, self.claim_request(node, request, pool))

    async def no_claim(
        self, node: str = "node-1", request: str = "0", pool: str = "ipv4"
    ) -> DeltaplaneError:
        """The error of a claim that must fail."""
        return await failure(self.claim(node, request, pool))

    def claim_request(
        self, node: str = "node-1", request: str = "0", pool: str = "ipv4"
    ) -> ipam_pb2.ClaimBlocksRequest:
        return claims_of(node, self.nodes[node].uid, (pool, request))

    async def ready_node(self, name: str = "node-1", block: str = "10.244.0.0/26") -> None:
        """A node that owns a block, from a pool that has just this one."""
        await self.pool(block, name=f"pool-{name}")
        await self.node(name)
        await self.claim(name, pool=f"pool-{name}")

    async def apply_pods(self, *pods: registry_pb2.Pod) -> int:
        request = registry_pb2.ApplyPodsRequest(pods=pods)
        return (await ok(self.registry.ApplyPods(request))).revision

    async def apply_namespace(self, labels: dict[str, str], name: str = "shop") -> int:
        namespace = registry_pb2.Namespace(name=name, labels=labels)
        request = registry_pb2.ApplyNamespacesRequest(namespaces=[namespace])
        return (await ok(self.registry.ApplyNamespaces(request))).revision

    def registration(
        self, endpoint: registry_pb2.Endpoint
    ) -> Awaitable[registry_pb2.RegisterEndpointResponse]:
        uid = self.nodes[endpoint.node].uid
        request = registry_pb2.RegisterEndpointRequest(endpoint=endpoint, node_uid=uid)
        return self.registry.RegisterEndpoint(request)

    async def register(self, endpoint: registry_pb2.Endpoint) -> registry_pb2.Endpoint:
        return (await ok(self.registration(endpoint))).endpoint

    async def release(
        self, *releases: registry_pb2.EndpointRelease
    ) -> registry_pb2.ReleaseEndpointsResponse:
        uid = self.nodes[releases[0].node].uid
        request = registry_pb2.ReleaseEndpointsRequest(releases=releases, node_uid=uid)
        return await ok(self.registry.ReleaseEndpoints(request))

    async def endpoints(self) -> Sequence[registry_pb2.Endpoint]:
        request = registry_pb2.ListEndpointsRequest()
        return list((await ok(self.registry.ListEndpoints(request))).endpoints)

    async def identities(self) -> dict[int, registry_pb2.Identity]:
        answer = await ok(self.registry.ListIdentities(registry_pb2.ListIdentitiesRequest()))
        return {identity.id: identity for identity in answer.identities}

    async def keys(self, prefix: str = "/deltaplane/v1/") -> dict[str, bytes]:
        """Everything that is stored."""
        return {item.key: item.value for item in (await self.store.list(prefix)).items}


@contextlib.asynccontextmanager
async def plane(
    store: Store,
    socket: Path,
    labels: LabelFilter | None = None,
    *,
    ranges: Ranges = DEFAULT_RANGES,
) -> AsyncIterator[Plane]:
    """Serves one replica of ipam and of the registry on a unix socket."""
    repositories = Repositories.over(store, labels or LabelFilter(), ranges)
    server = grpc.aio.server(interceptors=[rpc.ErrorInterceptor()])
    ipam = Repository(store)
    claims = Claims(ipam.claimer)
    ipam_pb2_grpc.add_IpamServicer_to_server(IpamServicer(ipam, claims), server)
    registry_pb2_grpc.add_RegistryServicer_to_server(RegistryServicer(repositories), server)
    audit_pb2_grpc.add_AddressRecordsServicer_to_server(AuditServicer(repositories.auditor), server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    channel = rpc.channel(f"unix:{socket}")
    queues = [asyncio.create_task(it.run()) for it in (repositories.coalescer, claims)]
    try:
        yield Plane(
            store=store,
            ipam=ipam_pb2_grpc.IpamStub(channel),
            registry=registry_pb2_grpc.RegistryStub(channel),
            repositories=repositories,
            records=audit_pb2_grpc.AddressRecordsStub(channel),
        )
    finally:
        for queue in queues:
            queue.cancel()
        await asyncio.gather(*queues, return_exceptions=True)
        await channel.close()
        await server.stop(0)
