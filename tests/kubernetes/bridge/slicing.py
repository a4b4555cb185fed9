"""A slicer that knows of endpoints what a test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from deltaplane.errors import NotFound
from deltaplane.runtime import rpc
from deltaplane.v1 import receipts_pb2, receipts_pb2_grpc


class Slicer(receipts_pb2_grpc.ReceiptsServicer):
    """Endpoints are not there, open, or complete.

    Attributes:
        complete: by "namespace/name"; set: every node knows it.
        asked: what it was asked about.
    """

    def __init__(self) -> None:
        self.complete: dict[str, asyncio.Event] = {}
        self.asked: list[str] = []

    @contextlib.asynccontextmanager
    async def serving(self, where: str) -> AsyncIterator[None]:
        server = grpc.aio.server(interceptors=[rpc.ErrorInterceptor()])
        receipts_pb2_grpc.add_ReceiptsServicer_to_server(self, server)
        server.add_insecure_port(where)
        await server.start()
        try:
            yield
        finally:
            await server.stop(0)

    async def Watch(  # noqa: N802 - the name comes from the proto file
        self, request: receipts_pb2.WatchRequest, _context: Any
    ) -> AsyncIterator[receipts_pb2.WatchResponse]:
        self.asked.append(request.endpoint)
        known = self.complete.get(request.endpoint)
        if known is None:
            raise NotFound(request.endpoint)
        yield receipts_pb2.WatchResponse(revision=1, nodes_total=1, complete=known.is_set())
        await known.wait()
        yield receipts_pb2.WatchResponse(revision=1, nodes_enforced=1, complete=True)

    async def ListEffective(  # noqa: N802 - the name comes from the proto file
        self, _request: receipts_pb2.ListEffectiveRequest, _context: Any
    ) -> receipts_pb2.ListEffectiveResponse:
        raise NotImplementedError
