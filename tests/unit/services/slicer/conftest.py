from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.services.slicer.loopback import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    for index in (1, 2):
        await world.node(index)
    await world.identity(300, "web")
    await world.identity(301, "db")
    await world.endpoint(1, 1, 300)
    yield world
    await world.store.close()


@pytest.fixture
def target(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/slicer.sock"
