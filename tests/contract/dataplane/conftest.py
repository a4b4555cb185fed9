"""Data planes in memory, with and without a file, and one of the kernel: the same must apply."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from nodeagent.dataplane import bpffs
from nodeagent.dataplane.config import Capacities, DataPlaneConfig
from nodeagent.dataplane.fake import FakeDataPlane
from nodeagent.dataplane.kernel import KernelDataPlane
from nodeagent.dataplane.memory import MemoryDataPlane
from nodeagent.dataplane.port import Actual, Applied, DataPlane

SMALL = Capacities(
    mappings=2048,
    ranges=16,
    nodes=16,
    policy_entries=2048,
    policy_prefixes=16,
    subjects=16,
    endpoints=4,
    connections=64,
    fragments=64,
    denials=64,
    frontends=2048,
    slots=2048,
    members=2048,
    tables=2,
    sources=16,
    affinities=64,
    sockets=64,
    translations=64,
)
EMPTY = Actual(
    applied=Applied(lineage=bytes(16), revision=0),
    mappings=frozenset(),
    ranges=frozenset(),
    next_hops=frozenset(),
    policy_sets=(),
    subjects=frozenset(),
    local_endpoints=frozenset(),
)


class Plane(DataPlane, Protocol):
    """The port, and a look at what no dump shows."""

    def holder_of(self, address: bytes) -> int | None: ...
    @property
    def node_index(self) -> int: ...


Restart = Callable[[], Plane]
"""Closes the plane and makes one that takes over what it left."""


class KernelNode:
    """Pins of one node, and the agent that has them open. Loading takes most of a second."""

    def __init__(self, pins: Path) -> None:
        self.pins = pins
        self.plane = self._make()

    def _make(self) -> KernelDataPlane:
        return KernelDataPlane(self.pins, config=DataPlaneConfig(), capacities=SMALL)

    def restart(self) -> Plane:
        self.plane.close()
        self.plane = self._make()
        return self.plane

    def wipe(self) -> None:
        plane = self.plane
        arrays = {"outcomes", "settings", "applied", "frontend_ports", "itself_ports"}
        for name in plane._maps.keys() - arrays:
            plane._maps[name].delete([key for key, _ in plane._maps[name].entries()])
        plane._set_keys.clear()
        plane.set_applied(EMPTY.applied)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelNode]:
    mount = tmp_path_factory.mktemp("bpffs")
    bpffs.ensure(mount)
    node = KernelNode(mount / "node")
    yield node
    node.plane.close()
    bpffs.remove_pins(node.pins)
    assert bpffs.release(mount)


@pytest.fixture(params=["fake", "memory", pytest.param("kernel", marks=pytest.mark.root)])
def plane(request: pytest.FixtureRequest, tmp_path: Path) -> Plane:
    if request.param == "fake":
        return FakeDataPlane(SMALL)
    if request.param == "memory":
        return MemoryDataPlane(tmp_path, SMALL)
    node: KernelNode = request.getfixturevalue("node")
    node.wipe()
    return node.plane


@pytest.fixture
def restart(plane: Plane, request: pytest.FixtureRequest, tmp_path: Path) -> Restart:
    if isinstance(plane, MemoryDataPlane):
        return lambda: MemoryDataPlane(tmp_path, SMALL)
    if isinstance(plane, FakeDataPlane):
        return lambda: plane
    node: KernelNode = request.getfixturevalue("node")
    return node.restart
