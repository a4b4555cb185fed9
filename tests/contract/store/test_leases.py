import asyncio

import pytest

from deltaplane.errors import Invalid, NotFound
from deltaplane.store.port import Put, Store
from tests.contract.store.conftest import collect

UNKNOWN_LEASE = 4711


async def test_a_lease_that_nobody_renews_takes_its_keys_along(store: Store, prefix: str) -> None:
    lease = await store.grant_lease(1)
    start = await store.head()
    await store.transact([], [Put(prefix + "b", b"", lease), Put(prefix + "a", b"", lease)])
    stored = await store.get(prefix + "a")
    assert stored is not None
    assert stored.lease == lease

    events = await collect(store, prefix, after=start, until=lambda e: len(e) >= 4)

    assert [(event.key[-1], event.value) for event in events[2:]] == [("a", None), ("b", None)]
    assert events[2].mod_revision == events[3].mod_revision
    assert not await store.keep_alive(lease)
    assert await store.get(prefix + "a") is None


async def test_a_lease_lives_while_it_is_renewed(store: Store, prefix: str) -> None:
    lease = await store.grant_lease(2)
    await store.transact([], [Put(prefix + "a", b"", lease)])
    loop = asyncio.get_running_loop()
    end = loop.time() + 3.5
    while loop.time() < end:
        assert await store.keep_alive(lease)
        await asyncio.sleep(0.25)
    assert await store.get(prefix + "a") is not None
    await store.revoke_lease(lease)


async def test_revoking_a_lease_deletes_its_keys(store: Store, prefix: str) -> None:
    lease = await store.grant_lease(60)
    await store.transact([], [Put(prefix + "a", b"", lease), Put(prefix + "b", b"")])
    await store.revoke_lease(lease)
    assert [item.key for item in (await store.list(prefix)).items] == [prefix + "b"]
    assert not await store.keep_alive(lease)
    await store.revoke_lease(lease)


async def test_a_key_written_again_without_its_lease_stays(store: Store, prefix: str) -> None:
    lease = await store.grant_lease(60)
    await store.transact([], [Put(prefix + "a", b"1", lease)])
    await store.transact([], [Put(prefix + "a", b"2")])
    await store.revoke_lease(lease)
    stored = await store.get(prefix + "a")
    assert stored is not None
    assert (stored.value, stored.lease) == (b"2", 0)


async def test_an_unknown_lease_is_told(store: Store, prefix: str) -> None:
    with pytest.raises(NotFound):
        await store.transact([], [Put(prefix + "b", b""), Put(prefix + "a", b"", UNKNOWN_LEASE)])
    assert (await store.list(prefix)).items == ()
    assert not await store.keep_alive(UNKNOWN_LEASE)
    with pytest.raises(Invalid):
        await store.grant_lease(0)
