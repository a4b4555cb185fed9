"""deltaplane.v1.Ipam: checks requests, asks the repository, answers."""

from typing import Any

import grpc.aio

from deltaplane import wire as values
from deltaplane.model import names
from deltaplane.v1 import ipam_pb2, ipam_pb2_grpc
from services.ipam import wire
from services.ipam.repository import Repository
from services.ipam.repository.coalescing import Coalescer

Context = grpc.aio.ServicerContext[Any, Any]


class IpamServicer(ipam_pb2_grpc.IpamServicer):
    """The calls are described in ipam.proto; errors are those of `deltaplane.errors`."""

    def __init__(self, repository: Repository, coalescer: Coalescer | None = None) -> None:
        self._repository = repository
        # Without a queue each request is a batch of its own.
        self._claim = repository.claim_blocks if coalescer is None else coalescer.claim

    async def CreatePool(
        self, request: ipam_pb2.CreatePoolRequest, context: Context
    ) -> ipam_pb2.CreatePoolResponse:
        """Creates a pool, or finds the same one."""
        pool = await self._repository.create_pool(wire.pool_from_proto(request.pool))
        return ipam_pb2.CreatePoolResponse(pool=wire.stored_pool_to_proto(pool))

    async def ListPools(
        self, request: ipam_pb2.ListPoolsRequest, context: Context
    ) -> ipam_pb2.ListPoolsResponse:
        """Lists pools by name."""
        pools, revision = await self._repository.list_pools()
        return ipam_pb2.ListPoolsResponse(
            pools=[wire.pool_status(pool, claimed) for pool, claimed in pools], revision=revision
        )

    async def ClaimBlocks(
        self, request: ipam_pb2.ClaimBlocksRequest, context: Context
    ) -> ipam_pb2.ClaimBlocksResponse:
        """Claims blocks for a node."""
        return wire.claims_to_proto(await self._claim(wire.claims_from_proto(request)))

    async def ReleaseBlock(
        self, request: ipam_pb2.ReleaseBlockRequest, context: Context
    ) -> ipam_pb2.ReleaseBlockResponse:
        """Gives a block back."""
        prefix = values.prefix_from_proto(request.prefix, "prefix")
        node_uid = wire.check_token(request.node_uid, "node_uid")
        claim = wire.check_token(request.request_id, "request_id") if request.request_id else ""
        if request.node:
            wire.check_name(request.node, "node", names.dns_subdomain_mistake(request.node))
        revision = await self._repository.release_block(prefix, node_uid, claim, node=request.node)
        return ipam_pb2.ReleaseBlockResponse(revision=revision)

    async def ListBlocks(
        self, request: ipam_pb2.ListBlocksRequest, context: Context
    ) -> ipam_pb2.ListBlocksResponse:
        """Lists blocks by prefix."""
        if request.node:
            wire.check_name(request.node, "node", names.dns_subdomain_mistake(request.node))
        if request.pool:
            wire.check_name(request.pool, "pool", names.dns_label_mistake(request.pool))
        blocks, revision = await self._repository.list_blocks(node=request.node, pool=request.pool)
        return ipam_pb2.ListBlocksResponse(blocks=blocks, revision=revision)

    async def UpdatePool(
        self, request: ipam_pb2.UpdatePoolRequest, context: Context
    ) -> ipam_pb2.UpdatePoolResponse:
        """Changes a pool."""
        pool = await self._repository.update_pool(wire.change_from_proto(request))
        return ipam_pb2.UpdatePoolResponse(pool=wire.stored_pool_to_proto(pool))

    async def DeletePool(
        self, request: ipam_pb2.DeletePoolRequest, context: Context
    ) -> ipam_pb2.DeletePoolResponse:
        """Deletes a pool that nobody uses."""
        wire.check_name(request.name, "name", names.dns_label_mistake(request.name))
        revision = await self._repository.delete_pool(request.name)
        return ipam_pb2.DeletePoolResponse(revision=revision)

    async def ClaimAddress(
        self, request: ipam_pb2.ClaimAddressRequest, context: Context
    ) -> ipam_pb2.ClaimAddressResponse:
        """Claims one address for a node."""
        claim = wire.address_claim_from_proto(request)
        return ipam_pb2.ClaimAddressResponse(block=await self._repository.claim_address(claim))
