"""A bridge between a fake API server and a registry in memory behind real gRPC."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from deltaplane.store.memory import MemoryStore
from tests.kubernetes.apiserver import ApiServer
from tests.kubernetes.bridge.world import World, world
from tests.services.plane import Plane, plane


@pytest.fixture
def socket() -> Iterator[Path]:
    # Not tmp_path: a unix socket's path has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="dp-") as folder:
        yield Path(folder) / "registry"


@pytest.fixture
async def served(socket: Path) -> AsyncIterator[Plane]:
    async with plane(MemoryStore(), socket) as found:
        yield found


@pytest.fixture
async def bridged(server: ApiServer, served: Plane, socket: Path) -> AsyncIterator[World]:
    async with world(server, served, socket) as found:
        yield found
