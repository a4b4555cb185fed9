"""What a real server adds to the contract: it dies, hangs, comes back, and is one of several."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest

from deltaplane.errors import Refused, Unavailable
from deltaplane.store.embedded import EtcdProcess
from deltaplane.store.etcd import EtcdStore
from deltaplane.store.port import Absent, Event, Put, Store
from tests.contract.store.conftest import ETCDS, collect, find_binary

DEADLINE_SECONDS = 0.4

CALLS: list[Callable[[Store], Awaitable[object]]] = [
    lambda store: store.get("a"),
    lambda store: store.get_many(["a", "b"]),
    lambda store: store.list("a"),
    lambda store: store.transact([Absent("a")], []),
    lambda store: store.transact([], [Put("a", b"")]),
    lambda store: store.head(),
    lambda store: store.grant_lease(10),
    lambda store: store.keep_alive(1),
    lambda store: store.revoke_lease(1),
]


@pytest.fixture
async def client(server: EtcdProcess) -> AsyncIterator[EtcdStore]:
    store = EtcdStore([server.endpoint], deadline_seconds=DEADLINE_SECONDS)
    yield store
    await store.close()


async def assert_unavailable_in_time(store: Store) -> None:
    loop = asyncio.get_running_loop()
    for call in CALLS:
        before = loop.time()
        with pytest.raises(Unavailable):
            await call(store)
        # The machine is shared, so not to the millisecond.
        assert loop.time() - before < DEADLINE_SECONDS + 1


async def test_a_dead_server_is_unavailable_and_found_again(
    client: EtcdStore, server: EtcdProcess, prefix: str
) -> None:
    await client.transact([], [Put(prefix + "a", b"1")])
    server.kill()
    await assert_unavailable_in_time(client)

    await server.start()
    async with asyncio.timeout(10):
        stored = await client.get(prefix + "a")
    assert stored is not None
    assert stored.value == b"1"


async def test_a_server_that_hangs_is_unavailable_and_comes_back(
    client: EtcdStore, server: EtcdProcess, prefix: str
) -> None:
    start = await client.head()
    server.freeze()
    await assert_unavailable_in_time(client)
    server.resume()
    async with asyncio.timeout(10):
        await client.transact([], [Put(prefix + "a", b"1")])
    assert await collect(client, prefix, after=start, until=bool)


async def test_a_call_waits_for_a_server_that_restarts_in_time(server: EtcdProcess) -> None:
    patient = EtcdStore([server.endpoint], deadline_seconds=10)
    server.kill()
    async with asyncio.TaskGroup() as group:
        head = group.create_task(patient.head())
        await server.start()
    assert head.result() > 0
    await patient.close()


async def write_until(store: Store, prefix: str, done: asyncio.Event, settled: asyncio.Lock) -> int:
    """Numbers the keys without a gap; repeats what may have been applied. The last number.

    While it holds the lock, what was written last may not be in the server's log.
    """
    number = 0
    while not done.is_set():
        async with settled:
            try:
                await store.transact([Absent(f"{prefix}{number}")], [Put(f"{prefix}{number}", b"")])
                await store.head()
            except Unavailable:
                continue
        number += 1
        # A lock is fair only to those who wait when it is released.
        await asyncio.sleep(0)
    return number - 1


async def test_a_watch_survives_crashes_without_losing_or_doubling_an_event(
    client: EtcdStore, server: EtcdProcess, prefix: str
) -> None:
    start = await client.head()
    done, settled = asyncio.Event(), asyncio.Lock()

    def ended(events: list[Event]) -> bool:
        return bool(events) and events[-1].key == prefix + "end"

    async with asyncio.TaskGroup() as group:
        writing = group.create_task(write_until(client, prefix, done, settled))
        watching = group.create_task(collect(client, prefix, after=start, until=ended))
        for _ in range(3):
            await asyncio.sleep(0.3)
            if server.binary.forgets:
                # May be killed only when its log has what it told: `EtcdBinary.forgets`.
                async with settled:
                    server.kill()
            else:
                server.kill()
            await server.start()
        done.set()
        last = await writing
        await client.transact([], [Put(prefix + "end", b"")])

    events = watching.result()
    assert [event.key.removeprefix(prefix) for event in events[:-1]] == [
        str(number) for number in range(last + 1)
    ]
    revisions = [event.mod_revision for event in events]
    assert revisions == sorted(set(revisions))
    assert last > 20


async def test_a_crash_while_a_watch_catches_up_loses_nothing(
    client: EtcdStore, server: EtcdProcess, prefix: str
) -> None:
    # etcd sends a thousand revisions at a time, the store's revision in every header.
    start = await client.head()
    numbers = iter(range(2500))

    async def write() -> None:
        for number in numbers:
            await client.transact([], [Put(f"{prefix}{number}", bytes(1000))])

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(write())
    await client.head()

    seen: list[int] = []
    async with (
        asyncio.timeout(30),
        aclosing(cast("Any", client.watch(prefix, after=start))) as watch,
    ):
        async for batch in watch:
            if batch.events and not seen:
                if server.binary.forgets:
                    # Killed, it could lose what the watch waits for: `EtcdBinary.forgets`.
                    await server.stop()
                else:
                    server.kill()
                await server.start()
            seen += [event.mod_revision for event in batch.events]
            if len(seen) >= 2500:
                break
    assert seen == list(range(start + 1, start + 2501))


async def test_a_watch_survives_a_server_that_hangs(
    client: EtcdStore, server: EtcdProcess, prefix: str
) -> None:
    start = await client.head()
    await client.transact([], [Put(prefix + "a", b"1")])
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(
            collect(client, prefix, after=start, until=lambda events: len(events) >= 2)
        )
        server.freeze()
        # Longer than the watch takes to give the connection up.
        await asyncio.sleep(4)
        server.resume()
        async with asyncio.timeout(10):
            while True:
                try:
                    await client.transact([Absent(prefix + "b")], [Put(prefix + "b", b"2")])
                    break
                except Unavailable:
                    continue
    assert [event.key for event in watching.result()] == [prefix + "a", prefix + "b"]


@pytest.mark.parametrize("broken", ["dead", "frozen"])
@pytest.mark.parametrize("kind", ETCDS[:1])
async def test_reads_go_on_with_the_next_endpoint(
    server: EtcdProcess, tmp_path: Path, broken: str, kind: str, prefix: str
) -> None:
    other = EtcdProcess(find_binary(kind), tmp_path)
    await other.start()
    try:
        # A fresh store takes its first endpoint by chance: several see both orders.
        stores = [EtcdStore([other.endpoint, server.endpoint]) for _ in range(4)]
        for store in stores:
            await store.head()
        other.freeze() if broken == "frozen" else other.kill()
        for store in stores:
            assert (await store.list(prefix)).items == ()
            # Having left the broken one it stays with the other: no call waits again.
            async with asyncio.timeout(0.5):
                await store.head()
            await store.close()
    finally:
        other.kill()


async def test_a_closed_store_is_unavailable(server: EtcdProcess) -> None:
    store = EtcdStore([server.endpoint])
    await store.close()
    with pytest.raises(Unavailable):
        await store.head()
    assert [batch async for batch in store.watch("a", after=1)] == []


@pytest.mark.parametrize("state", ["frozen", "dead"])
async def test_closing_ends_what_waits_for_a_server_that_is_away(
    server: EtcdProcess, state: str
) -> None:
    store = EtcdStore([server.endpoint], deadline_seconds=20)
    await store.head()

    async def watch() -> int:
        return len([batch async for batch in store.watch("a", after=1)])

    server.freeze() if state == "frozen" else server.kill()
    async with asyncio.timeout(5):
        waiting = asyncio.gather(store.head(), store.keep_alive(1), watch(), return_exceptions=True)
        # Lets them get as far as they can: there is nothing to wait for.
        await asyncio.sleep(0.2)
        await store.close()
        head, kept, watched = await waiting
    assert isinstance(head, Unavailable)
    assert isinstance(kept, Unavailable)
    assert watched == 0


async def test_a_message_larger_than_grpcs_default_arrives(client: EtcdStore, prefix: str) -> None:
    start = await client.head()
    for n in range(6):
        await client.transact([], [Put(f"{prefix}{n}", bytes(1_000_000))])
    assert len((await client.list(prefix)).items) == 6
    assert len(await collect(client, prefix, after=start, until=lambda e: len(e) >= 6)) == 6


async def test_a_server_runs_once_and_says_why_it_cannot(
    server: EtcdProcess, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="running already"):
        await server.start()
    taken = EtcdProcess(find_binary(ETCDS[0]), tmp_path / "state", client_address=server.endpoint)
    with pytest.raises(Refused, match="another process"):
        await taken.start()
    assert taken.pid is None
    assert server.pid is not None


async def test_a_server_listens_on_the_address_it_is_given(tmp_path: Path) -> None:
    socket = tmp_path / "etcd:7"
    process = EtcdProcess(
        find_binary(ETCDS[0]), tmp_path / "state", client_address=f"unix:{socket}"
    )
    await process.start()
    try:
        assert process.endpoint == f"unix:{socket}"
        assert socket.is_socket()
    finally:
        await process.stop()
    assert process.pid is None
