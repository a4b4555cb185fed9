"""What the agent asks of the services, and how it asks them over gRPC."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import grpc.aio

from deltaplane import wire
from deltaplane.model.addresses import AddressPair, Prefix
from deltaplane.runtime import rpc
from deltaplane.v1 import common_pb2, ipam_pb2, ipam_pb2_grpc, registry_pb2, registry_pb2_grpc
from nodeagent.journal import InterfaceRecord

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """This node, as it registers itself.

    Attributes:
        name: Kubernetes node name.
        uid: random, kept beside the journal.
        addresses: of the uplink.
        boot_id: of the running kernel.
    """

    name: str
    uid: str
    addresses: AddressPair
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """An address pool."""

    name: str
    is_ipv4: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRegistration:
    """What the registry answered for this node.

    Attributes:
        index: its number.
        revision: the store had reached it; no older view may be applied here. 0: not known.
    """

    index: int
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What the registry stored for an interface.

    Attributes:
        identity: INIT while there is no pod record.
        has_pod: whether it has been joined with its pod record.
        revision: store revision of the record.
    """

    identity: int
    has_pod: bool
    revision: int


class ControlPlane(Protocol):
    """The services.

    Every call may be repeated; it raises Unavailable when there is no answer in time.
    """

    async def register_node(self, node: NodeFacts) -> NodeRegistration:
        """Registers this node. Raises Conflict: the name is another node's."""
        ...

    async def pools(self) -> tuple[Pool, ...]:
        """All pools, ordered by name."""
        ...

    async def claim_block(self, pool: str, node: NodeFacts, request_id: str) -> Prefix:
        """A block of a pool; the same one for the same id. Raises Exhausted."""
        ...

    async def register(self, record: InterfaceRecord, node: NodeFacts) -> Registration:
        """Registers an interface. Raises Conflict or Refused: the pod is not the one it says."""
        ...

    async def release(self, records: Sequence[InterfaceRecord], node: NodeFacts) -> int:
        """Releases interfaces, absent ones are fine; a revision at which none is registered."""
        ...


class GrpcControlPlane:
    """The services behind two gRPC targets."""

    def __init__(self, registry: str, ipam: str) -> None:
        self._channels = (rpc.channel(registry), rpc.channel(ipam))
        # The stubs are made for both kinds of channel; ours is asynchronous.
        self._registry = registry_pb2_grpc.RegistryStub(self._channels[0])
        self._ipam = ipam_pb2_grpc.IpamStub(self._channels[1])

    async def close(self) -> None:
        """Ends the connections."""
        for channel in self._channels:
            await channel.close()

    async def register_node(self, node: NodeFacts) -> NodeRegistration:
        """See ControlPlane."""
        request = registry_pb2.RegisterNodeRequest(
            node=registry_pb2.Node(
                name=node.name,
                uid=node.uid,
                addresses=wire.address_pair_to_proto(node.addresses),
                boot_id=node.boot_id,
            )
        )
        answer = await _call(self._registry.RegisterNode(request, timeout=rpc.DEADLINE_SECONDS))
        return NodeRegistration(index=answer.node.index, revision=answer.revision)

    async def pools(self) -> tuple[Pool, ...]:
        """See ControlPlane."""
        request = ipam_pb2.ListPoolsRequest()
        answer = await _call(self._ipam.ListPools(request, timeout=rpc.DEADLINE_SECONDS))
        return tuple(
            Pool(name=status.pool.name, is_ipv4=len(status.pool.prefix.address) == 4)
            for status in answer.pools
        )

    async def claim_block(self, pool: str, node: NodeFacts, request_id: str) -> Prefix:
        """See ControlPlane."""
        request = ipam_pb2.ClaimBlockRequest(
            pool=pool, node=node.name, node_uid=node.uid, request_id=request_id
        )
        answer = await _call(self._ipam.ClaimBlock(request, timeout=rpc.DEADLINE_SECONDS))
        return wire.prefix_from_proto(answer.block.prefix, "block.prefix")

    async def register(self, record: InterfaceRecord, node: NodeFacts) -> Registration:
        """See ControlPlane."""
        request = registry_pb2.RegisterEndpointRequest(
            endpoint=registry_pb2.Endpoint(
                node=node.name,
                id=record.number,
                namespace=record.pod.namespace,
                pod=record.pod.name,
                pod_uid=record.pod.uid,
                owner=_owner(record),
                addresses=_addresses(record),
            ),
            node_uid=node.uid,
        )
        answer = await _call(self._registry.RegisterEndpoint(request, timeout=rpc.DEADLINE_SECONDS))
        return Registration(
            identity=answer.endpoint.identity,
            has_pod=answer.endpoint.state == registry_pb2.Endpoint.STATE_READY,
            revision=answer.endpoint.meta.mod_revision,
        )

    async def release(self, records: Sequence[InterfaceRecord], node: NodeFacts) -> int:
        """See ControlPlane."""
        request = registry_pb2.ReleaseEndpointsRequest(
            releases=[
                registry_pb2.EndpointRelease(
                    namespace=record.pod.namespace,
                    pod=record.pod.name,
                    node=node.name,
                    id=record.number,
                    owner=_owner(record),
                )
                for record in records
            ],
            node_uid=node.uid,
        )
        answer = await _call(self._registry.ReleaseEndpoints(request, timeout=rpc.DEADLINE_SECONDS))
        return answer.revision


def _owner(record: InterfaceRecord) -> registry_pb2.OwnerToken:
    return registry_pb2.OwnerToken(
        network=record.attachment.network,
        container_id=record.attachment.container_id,
        interface=record.attachment.ifname,
        attempt=record.attempt,
    )


def _addresses(record: InterfaceRecord) -> common_pb2.AddressPair:
    return wire.address_pair_to_proto(record.addresses)


async def _call(answer: Awaitable[T]) -> T:
    try:
        return await answer
    except grpc.aio.AioRpcError as error:
        raise rpc.translate(error) from error
