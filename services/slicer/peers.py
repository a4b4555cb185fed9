"""The other replicas: each knows only the agents that are connected to it, so receipts ask all."""

import asyncio
from collections.abc import Sequence

import grpc
import grpc.aio

from deltaplane.errors import DeltaplaneError
from deltaplane.runtime import rpc
from deltaplane.runtime.clock import Clock
from deltaplane.runtime.tls import Tls
from deltaplane.v1 import receipts_pb2, receipts_pb2_grpc
from services.slicer.receipts import Report
from services.slicer.repository import Repository
from services.slicer.wire import report_from_proto

ASK_SECONDS = 1.0
"""A replica that does not answer in time is left out: its agents count as not connected."""

REFRESH_SECONDS = 1.0
"""How old the list of replicas may be."""


class Peers:
    """Asks the replicas found in the store; channels stay open as long as their replica lives."""

    def __init__(
        self, repository: Repository, server_id: str, clock: Clock, tls: Tls | None = None
    ) -> None:
        self._repository = repository
        self._server_id = server_id
        self._clock = clock
        self._tls = tls
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._refreshed_at = float("-inf")

    async def reports(self, policy: str = "", revision: int = 0) -> Sequence[Report]:
        """What every other replica vouches for; empty while there is none.

        Args:
            policy: reference of the policy whose times are wanted; empty: none are.
            revision: of its last write.
        """
        await self._refresh()
        request = receipts_pb2.ListEffectiveRequest(policy=policy, revision=revision)
        channels = tuple(self._channels.values())
        return await asyncio.gather(*(self._ask(channel, request) for channel in channels))

    async def _refresh(self) -> None:
        now = self._clock.now()
        if now < self._refreshed_at + REFRESH_SECONDS:
            return
        self._refreshed_at = now
        try:
            replicas = await self._repository.replicas()
        except DeltaplaneError:
            return  # etcd is away: the replicas known so far may well be there
        addresses = {r.address for r in replicas if r.address and r.server_id != self._server_id}
        for gone in self._channels.keys() - addresses:
            await self._channels.pop(gone).close()
        for new in addresses - self._channels.keys():
            self._channels[new] = rpc.channel(new, self._tls)

    async def _ask(
        self, channel: grpc.aio.Channel, request: receipts_pb2.ListEffectiveRequest
    ) -> Report:
        stub = receipts_pb2_grpc.ReceiptsStub(channel)
        try:
            answer = await stub.ListEffective(request, timeout=ASK_SECONDS)
        except grpc.aio.AioRpcError:
            return Report()
        return report_from_proto(answer)

    async def close(self) -> None:
        """Ends all channels."""
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()
