import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from deltaplane.store import keys
from deltaplane.store.embedded import EtcdProcess, find_etcd
from deltaplane.store.etcd import EtcdStore
from deltaplane.store.memory import MemoryStore
from deltaplane.store.port import DeletePrefix, Store
from tests.services.plane import Plane, plane


@pytest.fixture
def sockets() -> Iterator[Path]:
    # Not tmp_path: a unix socket's path has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="dp-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def etcd() -> Iterator[str]:
    """The endpoint of an etcd that all tests of this run share, one after another."""
    with tempfile.TemporaryDirectory(prefix="dp-etcd-") as folder:
        process = EtcdProcess(find_etcd(), Path(folder))
        asyncio.run(process.start())
        yield process.endpoint
        asyncio.run(process.stop())


@pytest.fixture
async def etcd_store(etcd: str) -> AsyncIterator[EtcdStore]:
    store = EtcdStore([etcd])
    await store.transact([], [DeletePrefix(keys.ROOT)])
    yield store
    await store.close()


@pytest.fixture(params=["memory", "etcd"])
def etcd_or_memory(request: pytest.FixtureRequest) -> str | None:
    """None stands for memory. Synchronous: the etcd fixture brings an event loop of its own."""
    return str(request.getfixturevalue("etcd")) if request.param == "etcd" else None


@pytest.fixture
async def any_store(etcd_or_memory: str | None) -> AsyncIterator[Store]:
    if etcd_or_memory is None:
        yield MemoryStore()
        return
    store = EtcdStore([etcd_or_memory])
    await store.transact([], [DeletePrefix(keys.ROOT)])
    yield store
    await store.close()


@pytest.fixture
async def memory_plane(sockets: Path) -> AsyncIterator[Plane]:
    async with plane(MemoryStore(), sockets / "memory") as served:
        yield served


@pytest.fixture
async def any_plane(any_store: Store, sockets: Path) -> AsyncIterator[Plane]:
    async with plane(any_store, sockets / "any") as served:
        yield served
