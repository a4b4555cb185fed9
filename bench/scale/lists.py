"""Listing every endpoint, as each mode's users would.

`endpoint`: from the registry, which reads them from etcd page by page. `slice` and `delta`: from
what the server has in memory. That cache is why these are faster, and nothing else.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from bench.scale.plane import Plane
from bench.scale.server import SERVICE
from deltaplane.runtime import rpc
from deltaplane.store.etcdpb import rpc_pb2
from deltaplane.v1 import registry_pb2, registry_pb2_grpc, slicer_pb2, slicer_pb2_grpc

PAGE_ENDPOINTS = 1000
PAGE_SLICES = 1000
SECONDS = 60.0


@contextlib.asynccontextmanager
async def lister(plane: Plane) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """A function that lists everything and says how many endpoints there are."""
    target = plane.registry.target if plane.mode.name == "endpoint" else plane.server.target
    async with rpc.channel(target) as channel:

        async def from_registry() -> int:
            stub, token, count = registry_pb2_grpc.RegistryStub(channel), "", 0
            while True:
                page = await stub.ListEndpoints(
                    registry_pb2.ListEndpointsRequest(page_size=PAGE_ENDPOINTS, page_token=token),
                    timeout=SECONDS,
                )
                count += len(page.endpoints)
                token = page.next_page_token
                if not token:
                    return count

        async def from_slicer() -> int:
            stub, token, count = slicer_pb2_grpc.SlicerStub(channel), "", 0
            while True:
                page = await stub.ListSlices(
                    slicer_pb2.ListSlicesRequest(page_size=PAGE_SLICES, page_token=token),
                    timeout=SECONDS,
                )
                count += sum(len(one.endpoints) for one in page.slices)
                token = page.next_page_token
                if not token:
                    return count

        async def from_slices() -> int:
            list_all: Any = channel.unary_stream(f"/{SERVICE}/List")
            call = list_all(b"", timeout=SECONDS)
            count = 0
            async for data in call:
                for event in rpc_pb2.WatchResponse.FromString(data).events:
                    page = registry_pb2.ListEndpointsResponse.FromString(event.kv.value)
                    count += len(page.endpoints)
            return count

        yield {"endpoint": from_registry, "slice": from_slices}.get(plane.mode.name, from_slicer)
