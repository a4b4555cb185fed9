"""Waiting until the nodes that are told of a new endpoint know it: ADD's answer with `span`.

A pod whose first packet comes before its address is mapped there is `other-pod` to the policies of
the other side, and a refused SYN costs it a second.
"""

import asyncio
from collections.abc import Sequence

import grpc.aio

from deltaplane.runtime import log, metrics, rpc
from deltaplane.runtime.tls import Tls
from deltaplane.v1 import receipts_pb2, receipts_pb2_grpc
from nodeagent.cni.netconf import PodName

SPAN_SECONDS = 0.25
"""ADD waits no longer: a node that is away must not keep pods from starting."""

_LATE = metrics.counter(
    "cni_add_span_late", "ADDs answered before all nodes of their span knew the endpoint"
)


class SpanWait:
    """Asks a slicer for the receipt of an endpoint; the next one when that fails."""

    def __init__(
        self, targets: Sequence[str], seconds: float = SPAN_SECONDS, tls: Tls | None = None
    ) -> None:
        self._channels = [rpc.channel(target, tls) for target in targets]
        self._seconds = seconds

    async def wait(self, pod: PodName) -> bool:
        """Whether all of them know it in time; never raises because of a slicer."""
        request = receipts_pb2.WatchRequest(endpoint=f"{pod.namespace}/{pod.name}", wait=True)
        try:
            async with asyncio.timeout(self._seconds):
                if await self._complete(request):
                    return True
        except TimeoutError:
            pass
        _LATE.inc()
        log.get().info("span_not_reached", namespace=pod.namespace, pod=pod.name)
        return False

    async def _complete(self, request: receipts_pb2.WatchRequest) -> bool:
        for number, channel in enumerate(self._channels):
            stub = receipts_pb2_grpc.ReceiptsStub(channel)
            try:
                async for receipt in stub.Watch(request, timeout=self._seconds):
                    if receipt.complete:
                        self._channels[0], self._channels[number] = channel, self._channels[0]
                        return True
            except grpc.aio.AioRpcError as error:
                log.get().debug("receipt_failed", reason=error.details())
        return False

    async def close(self) -> None:
        """Ends all connections."""
        for channel in self._channels:
            await channel.close()
