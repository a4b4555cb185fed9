"""The brake: by itself, and in the applier on the fake data plane and on the kernel's maps."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import islice

import pytest

from deltaplane.errors import Conflict, Refused
from deltaplane.model.objects import BRAKED, EndpointObject, Kind, StreamObject
from nodeagent.apply import Applier
from nodeagent.brake import Brake, Sweep
from nodeagent.dataplane import bpffs
from nodeagent.dataplane.config import Capacities, DataPlaneConfig
from nodeagent.dataplane.fake import FakeDataPlane
from nodeagent.dataplane.kernel import KernelDataPlane
from nodeagent.dataplane.port import DataPlane
from nodeagent.state import Touched
from nodeagent.worker import Worker
from tests.unit.nodeagent.worlds import OWN, FakeRoutes, Stream, block, node, pair

CAPACITIES = Capacities(mappings=2048, ranges=16, nodes=16, endpoints=4, connections=64)
KNOWN: Sequence[StreamObject] = (node(OWN), node(2), block(2, 2))


def endpoints(count: int, start: int = 1) -> list[StreamObject]:
    """Pods of another node, each with an address of both families."""
    return [
        EndpointObject(
            node_index=2,
            id=number,
            identity=300,
            addresses=pair(f"10.0.2.{number}", f"fd00::2:{number:x}"),
            incarnation=1,
        )
        for number in range(start, start + count)
    ]


@pytest.mark.parametrize(
    ("entries", "held", "too_much"),
    [(100, 100, False), (101, 1009, True), (101, 1010, False), (0, 0, False), (500, 900, True)],
)
def test_too_much_is_above_both_limits(entries: int, held: int, too_much: bool) -> None:
    assert Sweep(Touched(), entries, held).is_too_much is too_much


def test_what_was_confirmed_is_confirmed_once_and_for_no_more() -> None:
    brake, found = Brake(), Sweep(Touched(), 200, 300)
    for seen, is_held in ((0, True), (199, True), (200, False)):
        brake.confirm(seen)
        brake.weigh(found)
        assert (brake.sweep is not None) is is_held
    brake.weigh(found)
    assert brake.sweep is found


@pytest.fixture(params=["fake", pytest.param("kernel", marks=pytest.mark.root)])
def dataplane(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DataPlane]:
    if request.param == "fake":
        yield FakeDataPlane(CAPACITIES)
        return
    mount = tmp_path_factory.mktemp("bpffs")
    bpffs.ensure(mount)
    plane = KernelDataPlane(mount / "node", config=DataPlaneConfig(), capacities=CAPACITIES)
    yield plane
    plane.close()
    bpffs.remove_pins(mount / "node")
    assert bpffs.release(mount)


Start = Callable[[], AbstractAsyncContextManager[Applier]]


@pytest.fixture
def start(dataplane: DataPlane) -> Start:
    """An agent's life on the same kernel; its routes are the kernel's, too."""
    routes = FakeRoutes()

    @asynccontextmanager
    async def life() -> AsyncIterator[Applier]:
        worker = Worker("test")
        applier = Applier(dataplane, routes, worker)
        applier.tracker.node_index = OWN
        await applier.load()
        running = asyncio.ensure_future(applier.run())
        try:
            yield applier
        finally:
            running.cancel()
            await asyncio.wait([running])
            worker.close()

    return life


def pods(dataplane: DataPlane) -> int:
    """Addresses of pods in the kernel."""
    return sum(mapping.identity == 300 for mapping in dataplane.dump().mappings)


async def test_a_restart_that_would_remove_too_much_adds_and_removes_nothing(
    dataplane: DataPlane, start: Start
) -> None:
    stream = Stream()
    async with start() as applier:
        assert not (await applier.barrier(stream.barrier(*KNOWN, *endpoints(80)))).held
    before = dataplane.dump().applied
    async with start() as applier:
        stream = Stream()
        stream.revision = before.revision
        # 20 of 80 are left, and one is new: 120 of about 165 entries would go.
        poor = [*endpoints(20), *endpoints(1, start=200)]
        result = await applier.barrier(stream.barrier(*KNOWN, *poor))
        assert result.held
        (refusal,) = result.refused
        assert (refusal.kind, refusal.key) == (Kind.NODE, OWN.to_bytes(4))
        assert refusal.reason.startswith(f"{BRAKED}120 of ")
        assert pods(dataplane) == 2 * 81
        assert dataplane.dump().applied == before
        # What the stream removes or adds now waits or works, and nothing newer counts.
        result = await applier.barrier(stream.barrier(*KNOWN, *poor[1:], *endpoints(1, start=201)))
        assert result.held
        assert pods(dataplane) == 2 * 82
        assert dataplane.dump().applied == before

        with pytest.raises(Conflict):
            await applier.confirm_sweep(120)
        assert pods(dataplane) == 2 * 82
        await applier.confirm_sweep(122)
        assert pods(dataplane) == 2 * 21
        with pytest.raises(Refused):
            await applier.confirm_sweep(122)
        result = await applier.barrier(stream.barrier(*KNOWN, *poor[1:], *endpoints(1, start=201)))
        assert not result.held
        assert not result.refused
        assert dataplane.dump().applied.revision == stream.revision


async def test_what_comes_back_releases_the_brake(start: Start) -> None:
    async with start() as applier:
        await applier.barrier(Stream().barrier(*KNOWN, *endpoints(80)))
    async with start() as applier:
        stream = Stream()
        assert (await applier.barrier(stream.barrier(*KNOWN))).held
        result = await applier.barrier(stream.barrier(*KNOWN, *endpoints(79)))
        assert not result.held
        assert applier.brake.sweep is None
        assert len(applier.kernel.mappings) == 2 * 79 + 2


@pytest.mark.parametrize("replaced", [True, False])
async def test_a_new_view_is_weighed_and_the_stream_is_not(start: Start, replaced: bool) -> None:
    stream = Stream()
    async with start() as applier:
        await applier.barrier(stream.barrier(*KNOWN, *endpoints(80)))
        result = await applier.barrier(stream.barrier(*KNOWN), replaced=replaced)
        assert result.held is replaced
        assert len(applier.kernel.mappings) == (2 * 80 + 2 if replaced else 2)


async def test_a_small_node_may_lose_all(start: Start) -> None:
    async with start() as applier:
        await applier.barrier(Stream().barrier(*KNOWN, *islice(endpoints(50), 48)))
    async with start() as applier:
        assert not (await applier.barrier(Stream().barrier(node(OWN)))).held
        assert len(applier.kernel.mappings) == 1
