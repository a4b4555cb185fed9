"""Makes a lab's address pools. Used by the supervisor, between ipam and the agents."""

import grpc.aio

from deltaplane.model.addresses import Prefix
from deltaplane.runtime import rpc
from deltaplane.runtime.tls import Tls
from deltaplane.v1 import common_pb2, ipam_pb2, ipam_pb2_grpc
from lab.programs import POOLS


async def ensure(target: str, tls: Tls | None = None) -> None:
    """Creates the pools that are not there yet.

    Args:
        target: gRPC target of ipam.
        tls: our certificate, and what ipam's has to say; None: in plain text.

    Raises:
        DeltaplaneError: ipam refused or did not answer.
    """
    async with rpc.channel(target, tls) as channel:
        stub = ipam_pb2_grpc.IpamStub(channel)
        for name, text, block_length in POOLS:
            prefix = Prefix.parse(text)
            pool = ipam_pb2.Pool(
                name=name,
                prefix=common_pb2.Prefix(address=prefix.address, length=prefix.length),
                block_length=block_length,
            )
            try:
                await stub.CreatePool(
                    ipam_pb2.CreatePoolRequest(pool=pool), timeout=rpc.DEADLINE_SECONDS
                )
            except grpc.aio.AioRpcError as error:
                raise rpc.translate(error) from error
