"""A slicer with certificates: what an agent may ask about other nodes, which is nothing."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from deltaplane.errors import DeltaplaneError, Forbidden
from deltaplane.runtime import rpc
from deltaplane.v1 import receipts_pb2, receipts_pb2_grpc
from nodeagent.stream import SlicerStream, Timing
from services.slicer.__main__ import serve
from services.slicer.config import Config
from tests.trust import Trust, trust
from tests.unit.services.slicer.loopback import PATIENCE, Agent, World, background, until


@pytest.fixture
def ca(tmp_path: Path) -> Trust:
    return trust(tmp_path / "ca")


@contextlib.asynccontextmanager
async def slicer(ca: Trust, folder: Path) -> AsyncIterator[tuple[World, str]]:
    """Two nodes, an endpoint and its policy on each."""
    world = World()
    for index in (1, 2):
        await world.node(index)
        await world.identity(300 + index, f"app-{index}")
        await world.endpoint(index, 1, 300 + index)
    await world.policy("one", "app-1")
    target = f"unix:{folder}/slicer.sock"
    config = Config(listen=(target,), log_level="error", tls_dir=ca.issue("slicer"), insecure=False)
    async with background(serve(config, world.store)) as task:
        await until(lambda: task.done() or (folder / "slicer.sock").exists())
        yield world, target


def agent(ca: Trust, index: int, certificate: str) -> Agent:
    """One that says it is a node, with the certificate of another or the same."""
    made = Agent(index)
    timing = Timing(retry_min=0.01, retry_max=0.05)
    made.stream = SlicerStream(timing=timing, tls=ca.of(certificate, "slicer"))
    return made


async def watch(ca: Trust, target: str, peer: str, **subject: object) -> DeltaplaneError | None:
    async with rpc.channel(target, ca.of(peer, "slicer")) as channel:
        request = receipts_pb2.WatchRequest(**subject)  # type: ignore[arg-type]
        try:
            async for _ in receipts_pb2_grpc.ReceiptsStub(channel).Watch(request, timeout=PATIENCE):
                pass
        except grpc.aio.AioRpcError as error:
            return rpc.translate(error)
    return None


async def test_a_node_opens_its_own_stream_only(ca: Trust, tmp_path: Path) -> None:
    own, other = agent(ca, 1, "node/node-1"), agent(ca, 2, "node/node-1")
    service = agent(ca, 2, "bridge")
    async with (
        slicer(ca, tmp_path) as (_, target),
        background(own.run(target)),
        background(other.run(target)),
        background(service.run(target)),
    ):
        await until(lambda: own.barriers)
        await until(lambda: other.stream.last_error and service.stream.last_error)
        assert "node node-1 asks about node-2" in other.stream.last_error
        assert "bridge may not call deltaplane.v1.Slicer/Stream" in service.stream.last_error
        assert not other.barriers
        assert not service.barriers


async def test_a_node_asks_for_receipts_of_its_own_endpoints_only(
    ca: Trust, tmp_path: Path
) -> None:
    async with slicer(ca, tmp_path) as (_, target):
        assert await watch(ca, target, "node/node-1", endpoint="shop/pod-1-1") is None
        for subject in ({"endpoint": "shop/pod-2-1"}, {"policy": "shop/one"}, {"revision": 3}, {}):
            found = await watch(ca, target, "node/node-1", **subject)
            assert isinstance(found, Forbidden), subject
        for peer in ("bridge", "admin"):
            for subject in ({"endpoint": "shop/pod-2-1"}, {"policy": "shop/one"}, {"revision": 3}):
                assert await watch(ca, target, peer, **subject) is None, subject
