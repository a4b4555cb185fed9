"""etcd that wants certificates: the store works, watches included, and an agent's opens nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deltaplane.errors import DeltaplaneError
from deltaplane.runtime.roles import Role
from deltaplane.store.embedded import EtcdProcess
from deltaplane.store.etcd import EtcdStore
from deltaplane.store.port import Put
from tests.contract.store.conftest import collect, find_binary
from tests.trust import Trust, Unchecked, trust
from tests.unit.services.slicer.loopback import free_port


@pytest.fixture
def ca(tmp_path: Path) -> Trust:
    return trust(tmp_path / "ca")


@pytest.fixture
async def secured(ca: Trust, tmp_path: Path) -> AsyncIterator[EtcdProcess]:
    process = EtcdProcess(
        find_binary("etcd-3.4"),
        tmp_path / "etcd",
        client_address=f"127.0.0.1:{free_port()}",
        tls_dir=ca.issue("etcd"),
    )
    await process.start()
    yield process
    process.kill()


async def test_who_may_use_etcd(ca: Trust, secured: EtcdProcess) -> None:
    store = EtcdStore([secured.endpoint], tls=ca.of("slicer", "etcd"))
    written = await store.transact([], [Put("/a/1", b"x")])
    ca.issue("slicer")
    again = await store.transact([], [Put("/a/2", b"y")])
    events = await collect(store, "/a/", after=0, until=lambda found: len(found) == 2)
    assert [event.mod_revision for event in events] == [written.revision, again.revision]
    await store.close()
    wrong = [
        ca.of("node/n1", "etcd"),
        ca.of("bridge", "etcd"),
        ca.of("slicer", "endpoints"),  # the server shows another name
        # What a CA for nodes makes, be it asked to or stolen: etcd looks at its name constraints.
        Unchecked(ca.issue_as_node_authority("node/n1", "node.deltaplane"), Role.ETCD),
        Unchecked(ca.issue_as_node_authority("slicer", "store-client.deltaplane"), Role.ETCD),
        None,
    ]
    stores = [EtcdStore([secured.endpoint], deadline_seconds=1, tls=tls) for tls in wrong]
    await asyncio.gather(*map(refused, stores))


async def refused(store: EtcdStore) -> None:
    with pytest.raises(DeltaplaneError):
        await store.head()
    await store.close()
