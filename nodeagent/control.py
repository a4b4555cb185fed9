"""What the agent asks of the services, and how it asks them over gRPC."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import grpc.aio

from deltaplane import wire
from deltaplane.errors import DeltaplaneError, Internal
from deltaplane.model.addresses import AddressPair, Prefix
from deltaplane.model.objects import PoolObject
from deltaplane.runtime import rpc, tracing
from deltaplane.runtime.roles import Role
from deltaplane.runtime.tls import Tls
from deltaplane.v1 import common_pb2, ipam_pb2, ipam_pb2_grpc, registry_pb2, registry_pb2_grpc
from nodeagent.cni.netconf import Attachment, PodName
from nodeagent.entries import InterfaceRecord, State
from nodeagent.pools import Wish

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


@dataclass(frozen=True, slots=True)
class PoolListing:
    """All pools with their generations, at a revision."""

    pools: tuple[tuple[PoolObject, int], ...]
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedBlock:
    """A block of this node, as etcd has it.

    Attributes:
        prefix: the block.
        pool: name of its pool.
        request_id: of the claim.
        usable_after: nothing may be handed out before every node has passed this revision; 0: at
            once.
        fixed: a single address that a pod has asked for.
    """

    prefix: Prefix
    pool: str
    request_id: str = ""
    usable_after: int = 0
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class BlockWish:
    """A claim of a block of a pool; the id names it for good."""

    pool: str
    request_id: str


CLAIMS_AT_ONCE = 64
"""Claims of a request; the service takes no more."""


@dataclass(frozen=True, slots=True)
class BlockListing:
    """The blocks of this node, at a revision."""

    blocks: tuple[ClaimedBlock, ...]
    revision: int


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


@dataclass(frozen=True, slots=True)
class Wanted:
    """The registry stored nothing: the pod asks for other addresses."""

    wish: Wish


class ControlPlane(Protocol):
    """The services.

    Every call may be repeated; it raises Unavailable when there is no answer in time.
    """

    async def register_node(self, node: NodeFacts) -> NodeRegistration:
        """Registers this node. Raises Conflict: the name is another node's."""
        ...

    async def pools(self) -> PoolListing:
        """All pools."""
        ...

    async def claim_blocks(
        self, wishes: Sequence[BlockWish], node: NodeFacts
    ) -> tuple[ClaimedBlock | DeltaplaneError, ...]:
        """A block for each wish, in one request; the same one for the same id.

        Instead of a block: Exhausted, the pool has none left; Refused, it is draining; NotFound.

        Args:
            wishes: 1..CLAIMS_AT_ONCE.
            node: this one.

        Raises:
            Refused: the node is not registered.
        """
        ...

    async def claim_address(self, address: bytes, node: NodeFacts, request_id: str) -> ClaimedBlock:
        """One address outside this node's blocks; the same id gives it again.

        Raises:
            Invalid: it is in no pool.
            Conflict: somebody has it.
            Exhausted: too many addresses are claimed so.
        """
        ...

    async def release_block(self, prefix: Prefix, node: NodeFacts) -> None:
        """Gives a block back; fine when nobody has it. Raises Refused: another node has it."""
        ...

    async def blocks(self, node: NodeFacts, index: int) -> BlockListing:
        """What this node owns under this number."""
        ...

    async def interfaces(self, node: NodeFacts, index: int) -> tuple[InterfaceRecord, ...]:
        """What is registered of this node under this number, as READY."""
        ...

    async def register(self, record: InterfaceRecord, node: NodeFacts) -> Registration | Wanted:
        """Registers an interface. Raises Conflict or Refused: the pod is not the one it says."""
        ...

    async def release(self, records: Sequence[InterfaceRecord], node: NodeFacts) -> int:
        """Releases interfaces, absent ones are fine; a revision at which none is registered."""
        ...


class GrpcControlPlane:
    """The services behind two gRPC targets, reached as `tls` says; without it in plain text."""

    def __init__(
        self,
        registry: str,
        ipam: str,
        tls: Callable[[Role], Tls | None] = lambda _: None,
    ) -> None:
        self._channels = (
            rpc.channel(registry, tls(Role.ENDPOINTS)),
            rpc.channel(ipam, tls(Role.IPAM)),
        )
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

    async def pools(self) -> PoolListing:
        """See ControlPlane."""
        request = ipam_pb2.ListPoolsRequest()
        answer = await _call(self._ipam.ListPools(request, timeout=rpc.DEADLINE_SECONDS))
        return PoolListing(
            tuple((_pool(status.pool), status.pool.meta.mod_revision) for status in answer.pools),
            answer.revision,
        )

    async def claim_blocks(
        self, wishes: Sequence[BlockWish], node: NodeFacts
    ) -> tuple[ClaimedBlock | DeltaplaneError, ...]:
        """See ControlPlane."""
        request = ipam_pb2.ClaimBlocksRequest(
            node=node.name,
            node_uid=node.uid,
            claims=(
                ipam_pb2.BlockClaim(pool=wish.pool, request_id=wish.request_id) for wish in wishes
            ),
        )
        answer = await _call(self._ipam.ClaimBlocks(request, timeout=rpc.DEADLINE_SECONDS))
        if len(answer.results) != len(wishes):
            raise Internal(f"{len(answer.results)} answers to {len(wishes)} claims")
        return tuple(
            rpc.error_of(result.error.code, result.error.message)
            if result.HasField("error")
            else _block(result.block)
            for result in answer.results
        )

    async def claim_address(self, address: bytes, node: NodeFacts, request_id: str) -> ClaimedBlock:
        """See ControlPlane."""
        request = ipam_pb2.ClaimAddressRequest(
            address=address, node=node.name, node_uid=node.uid, request_id=request_id
        )
        answer = await _call(self._ipam.ClaimAddress(request, timeout=rpc.DEADLINE_SECONDS))
        return _block(answer.block)

    async def release_block(self, prefix: Prefix, node: NodeFacts) -> None:
        """See ControlPlane."""
        # By the request that got it: a release that arrives late must not take the block away that
        # this node has got again since, and uses.
        listing = ipam_pb2.ListBlocksRequest(node=node.name)
        owned = await _call(self._ipam.ListBlocks(listing, timeout=rpc.DEADLINE_SECONDS))
        its = wire.prefix_to_proto(prefix)
        found = [it for it in owned.blocks if (it.prefix, it.node_uid) == (its, node.uid)]
        if not found:
            return
        request = ipam_pb2.ReleaseBlockRequest(
            prefix=its,
            node_uid=node.uid,
            request_id=found[0].request_id,
            node=node.name,
        )
        await _call(self._ipam.ReleaseBlock(request, timeout=rpc.DEADLINE_SECONDS))

    async def blocks(self, node: NodeFacts, index: int) -> BlockListing:
        """See ControlPlane."""
        request = ipam_pb2.ListBlocksRequest(node=node.name)
        answer = await _call(self._ipam.ListBlocks(request, timeout=rpc.DEADLINE_SECONDS))
        return BlockListing(
            tuple(
                _block(block)
                for block in answer.blocks
                if (block.node_uid, block.node_index) == (node.uid, index)
            ),
            answer.revision,
        )

    async def interfaces(self, node: NodeFacts, index: int) -> tuple[InterfaceRecord, ...]:
        """See ControlPlane."""
        found: list[registry_pb2.Endpoint] = []
        request = registry_pb2.ListEndpointsRequest(node=node.name)
        while True:
            answer = await _call(
                self._registry.ListEndpoints(request, timeout=rpc.DEADLINE_SECONDS)
            )
            found += [item for item in answer.endpoints if item.node_index == index]
            if not answer.next_page_token:
                return tuple(map(_record, found))
            request.page_token = answer.next_page_token

    async def register(self, record: InterfaceRecord, node: NodeFacts) -> Registration | Wanted:
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
        answer = await _call(
            self._registry.RegisterEndpoint(
                request, timeout=rpc.DEADLINE_SECONDS, metadata=tracing.metadata()
            )
        )
        if answer.HasField("wanted"):
            return Wanted(
                Wish(
                    ipv4_pool=answer.wanted.ipv4_pool,
                    ipv6_pool=answer.wanted.ipv6_pool,
                    addresses=tuple(answer.wanted.addresses),
                )
            )
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


DEFAULT_MIN_FREE_PERCENT = 50
"""What 0 in a pool's record stands for."""


def _pool(message: ipam_pb2.Pool) -> PoolObject:
    return PoolObject(
        name=message.name,
        prefix=wire.prefix_from_proto(message.prefix, "pool.prefix"),
        block_length=message.block_length,
        reserved=tuple(wire.prefix_from_proto(part, "pool.reserved") for part in message.reserved),
        is_static=message.mode == ipam_pb2.Pool.MODE_STATIC,
        draining=message.draining,
        min_free_percent=message.min_free_percent or DEFAULT_MIN_FREE_PERCENT,
        on_request=message.on_request,
    )


def _block(message: ipam_pb2.Block) -> ClaimedBlock:
    return ClaimedBlock(
        prefix=wire.prefix_from_proto(message.prefix, "block.prefix"),
        pool=message.pool,
        request_id=message.request_id,
        usable_after=message.usable_after_revision,
        fixed=message.fixed,
    )


def _record(message: registry_pb2.Endpoint) -> InterfaceRecord:
    owner = message.owner
    return InterfaceRecord(
        number=message.id,
        state=State.READY,
        attachment=Attachment(
            network=owner.network, container_id=owner.container_id, ifname=owner.interface
        ),
        attempt=owner.attempt,
        pod=PodName(namespace=message.namespace, name=message.pod, uid=message.pod_uid),
        addresses=wire.address_pair_from_proto(message.addresses, "endpoint.addresses"),
    )


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
