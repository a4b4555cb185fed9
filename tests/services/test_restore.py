"""A backup of etcd is restored, with a real etcd, its own tools and a real slicer."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deltaplane.delta.view import View
from deltaplane.errors import Refused
from deltaplane.store import keys, lineage, restoring
from deltaplane.store.embedded import EtcdProcess, find_wheel
from deltaplane.store.etcd import EtcdStore
from deltaplane.store.memory import MemoryStore
from deltaplane.store.port import Put, Store
from nodeagent.stream import ApplyResult, BarrierReached, HelloState, SlicerStream
from services.slicer.__main__ import serve
from services.slicer.config import Config
from tests.services.plane import Plane, endpoint, plane, pod

SECONDS = 30.0


# --- the store alone -----------------------------------------------------------------------------


async def of_ours(store: Store, identities: int = 300, nodes: int = 7, services: int = 40) -> bytes:
    made = await lineage.ensure(store)
    counters = [
        Put(keys.IDENTITY_COUNTER, str(identities).encode()),
        Put(keys.NODE_COUNTER, str(nodes).encode()),
        Put(keys.SERVICE_COUNTER, str(services).encode()),
    ]
    await store.transact([], counters)
    return made


async def numbers(store: Store) -> tuple[int, ...]:
    wanted = [keys.IDENTITY_COUNTER, keys.NODE_COUNTER, keys.SERVICE_COUNTER]
    found, _ = await store.get_many(wanted)
    return tuple(int(item.value) if item else 0 for item in found)


async def test_a_finish_writes_a_lineage_and_raises_the_counters(any_store: Store) -> None:
    before = await of_ours(any_store)

    done = await restoring.finish(any_store)

    assert done.before == before.hex()
    assert (await lineage.ensure(any_store)).hex() == done.lineage != done.before
    assert await numbers(any_store) == (300 + 2**20, 7 + 2**20, 40 + 2**20)
    assert (done.identities, done.nodes) == ((300, 300 + 2**20), (7, 7 + 2**20))
    assert done.services == (40, 40 + 2**20)
    assert done.revision == await any_store.head()


async def test_counters_that_nobody_has_used_begin_there(any_store: Store) -> None:
    await lineage.ensure(any_store)
    await restoring.finish(any_store, steps=3)
    assert await numbers(any_store) == (3 * 2**20,) * 3


async def test_it_is_done_once_for_one_restore(any_store: Store) -> None:
    await of_ours(any_store)
    # A key of the backup under a lease that ends later: nobody's work.
    lease = await any_store.grant_lease(60)
    await any_store.transact([], [Put(keys.RELEASED_ENDPOINTS + "node-1/3", b"1", lease)])
    first = await restoring.finish(any_store)
    await any_store.revoke_lease(lease)

    again = await restoring.finish(any_store)

    assert again.repeated
    assert not first.repeated
    assert (again.lineage, again.identities, again.before) == (
        first.lineage,
        first.identities,
        first.before,
    )
    assert await numbers(any_store) == (300 + 2**20, 7 + 2**20, 40 + 2**20)


async def test_after_work_in_the_new_lineage_it_is_another_restore(any_store: Store) -> None:
    await of_ours(any_store)
    first = await restoring.finish(any_store)
    await any_store.transact([], [Put(keys.JOINS, b"slicer")])

    second = await restoring.finish(any_store)

    assert not second.repeated
    assert second.before == first.lineage != second.lineage
    assert await numbers(any_store) == (300 + 2**21, 7 + 2**21, 40 + 2**21)


async def test_a_dry_run_writes_nothing(any_store: Store) -> None:
    await of_ours(any_store)
    head = await any_store.head()

    found = await restoring.finish(any_store, dry_run=True)

    assert found.lineage == ""
    assert found.identities == (300, 300 + 2**20)
    assert await any_store.head() == head


async def test_an_answer_that_got_lost_does_not_raise_twice() -> None:
    store = MemoryStore()
    await of_ours(store)
    store.lose_next_answer()

    done = await restoring.finish(store)

    assert (await lineage.ensure(store)).hex() == done.lineage
    assert await numbers(store) == (300 + 2**20, 7 + 2**20, 40 + 2**20)


@pytest.mark.parametrize("value", [None, b"hello"])
async def test_a_store_of_somebody_else_is_left_alone(
    any_store: Store, value: bytes | None
) -> None:
    if value:
        await any_store.transact([], [Put(keys.LINEAGE, value)])
    head = await any_store.head()
    with pytest.raises(Refused, match="not a store of Deltaplane"):
        await restoring.finish(any_store)
    assert await any_store.head() == head


async def test_numbers_that_run_out_are_told_before_anything_is_written(any_store: Store) -> None:
    await of_ours(any_store, identities=2**31 - 2**20)
    head = await any_store.head()
    with pytest.raises(Refused, match="numbers end"):
        await restoring.finish(any_store)
    assert await any_store.head() == head


@pytest.mark.parametrize("prefix", [keys.SLICERS, keys.COVERAGE])
async def test_a_living_replica_is_named_and_nothing_written(any_store: Store, prefix: str) -> None:
    await of_ours(any_store)
    lease = await any_store.grant_lease(60)
    await any_store.transact([], [Put(f"{prefix}host-7", b"{}", lease)])
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    with pytest.raises(Refused, match=r"slicer host-7.*Stop"):
        await restoring.finish(any_store, patience=5.0, pause=pause)
    with pytest.raises(Refused, match="slicer host-7"):
        await restoring.finish(any_store, dry_run=True, pause=pause)
    assert sum(pauses) == 5.0
    assert await numbers(any_store) == (300, 7, 40)

    async def end(_seconds: float) -> None:
        await any_store.revoke_lease(lease)

    # The backup's own leases end a while after the store has come up.
    assert not (await restoring.finish(any_store, pause=end)).repeated


# --- a real restore ------------------------------------------------------------------------------


@dataclass
class Etcd:
    """One member that can be saved and restored with etcd's own tools."""

    folder: Path
    process: EtcdProcess = field(init=False)

    def __post_init__(self) -> None:
        binary = find_wheel()
        assert binary is not None, "the development requirements bring one"
        self.tool = Path(binary.path).with_name("etcdctl")
        self.process = EtcdProcess(binary, self.folder)

    def _run(self, *arguments: str) -> None:
        environment = {**os.environ, "ETCDCTL_API": "3"}
        subprocess.run(
            [self.tool, *arguments],
            check=True,
            capture_output=True,
            env=environment,
            cwd=self.folder,
        )

    def save(self, file: Path) -> None:
        self._run(f"--endpoints={self.process.endpoint}", "snapshot", "save", str(file))

    async def restore(self, file: Path) -> None:
        """Puts the backup in the place of what there is."""
        await self.process.stop()
        peers = next(it for it in self.process.command() if it.startswith("--initial-cluster="))
        url = peers.removeprefix("--initial-cluster=default=")
        (self.folder / "data").rename(self.folder / "lost")
        self._run(
            *("snapshot", "restore", str(file), "--name=default", f"--data-dir={self.folder}/data"),
            *(peers, f"--initial-advertise-peer-urls={url}"),
        )
        await self.process.start()


@contextlib.asynccontextmanager
async def slicer(etcd: str, socket: str) -> AsyncIterator[None]:
    """A slicer that serves while the block runs."""
    settings = Config(
        etcd=(etcd,), listen=(socket,), admin=f"{socket}-admin", trace_ratio=0.0, stale_after=60.0
    )
    store, stop = EtcdStore([etcd]), asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(serve(settings, store, stop=stop))
            try:
                yield
            finally:
                stop.set()
    finally:
        await store.close()


@dataclass
class Agent:
    """An agent's stream, which goes on whatever happens to the slicer."""

    node: str
    applied: int = 0
    lineage: bytes = b""
    endpoints: frozenset[int] = frozenset()
    identities: frozenset[int] = frozenset()
    stream: SlicerStream = field(default_factory=SlicerStream)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def apply(self, reached: BarrierReached) -> ApplyResult:
        self.applied, self.lineage = reached.revision, reached.lineage
        self.endpoints = frozenset(held.value.id for held in reached.view.endpoints.values())
        self.identities = identities_of(reached.view)
        self.changed.set()
        return ApplyResult()

    async def reach(self, revision: int, lineage_id: bytes) -> None:
        async with asyncio.timeout(SECONDS):
            while self.lineage != lineage_id or self.applied < revision:
                self.changed.clear()
                await self.changed.wait()

    async def refused(self, reason: str) -> None:
        async with asyncio.timeout(SECONDS):
            # The stream tells nobody that it has failed once more.
            while reason not in self.stream.last_error:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


def identities_of(view: View) -> frozenset[int]:
    return frozenset(held.value.id for held in view.identities.values())


async def with_pods(served: Plane, *names: str) -> dict[str, int]:
    """Registers a pod each, and gives the identities they got."""
    found = {}
    for number, name in enumerate(names, start=len(await served.endpoints()) + 1):
        await served.apply_pods(pod(name))
        registered = await served.register(endpoint(number, pod=name))
        found[name] = registered.identity
    return found


@pytest.mark.timeout(120)
async def test_agents_of_a_lost_future_come_back_by_a_snapshot(sockets: Path) -> None:
    etcd = Etcd(sockets / "etcd")
    await etcd.process.start()
    agent, socket, backup = Agent("node-1"), f"unix:{sockets}/slicer", sockets / "backup"
    running = None
    try:
        store = EtcdStore([etcd.process.endpoint])
        old = await lineage.ensure(store)
        async with plane(store, sockets / "a") as served, slicer(etcd.process.endpoint, socket):
            await served.ready_node()
            kept = await with_pods(served, "kept")
            hello = HelloState(node="node-1", node_uid=served.nodes["node-1"].uid)
            running = asyncio.create_task(agent.stream.run([socket], hello, agent.apply))
            await asyncio.to_thread(etcd.save, backup)
            lost = await with_pods(served, "lost-1", "lost-2")
            second = await served.node("node-2")
            await agent.reach(await store.head(), old)
            assert agent.endpoints == {1, 2, 3}
        seen = agent.applied
        await store.close()
        await etcd.restore(backup)
        store = EtcdStore([etcd.process.endpoint])
        assert await store.head() < seen

        async with slicer(etcd.process.endpoint, socket):
            await agent.refused("was it restored from a backup?")
        assert (agent.applied, agent.lineage) == (seen, old)
        assert agent.endpoints == {1, 2, 3}

        done = await restoring.finish(store)

        async with plane(store, sockets / "b") as served, slicer(etcd.process.endpoint, socket):
            await agent.reach(1, bytes.fromhex(done.lineage))
            assert agent.endpoints == {1}
            served.nodes["node-1"] = await served.node()
            assert served.nodes["node-1"].index == 1
            again = await with_pods(served, "kept", "lost-3")
            node = await served.node("node-2")
            await agent.reach(await store.head(), bytes.fromhex(done.lineage))
        # What the backup knows keeps its number; nothing that was given after it is given again.
        assert again["kept"] == kept["kept"]
        assert again["lost-3"] > max(lost.values()) + 2**19
        assert node.index > second.index + 2**19
        assert agent.identities >= {again["lost-3"]}
        assert not agent.identities & set(lost.values())
        await store.close()
    finally:
        if running is not None:
            running.cancel()
            await asyncio.wait([running])
        await etcd.process.stop()


@pytest.mark.timeout(90)
async def test_the_command_says_what_it_did(etcd: str, etcd_store: EtcdStore) -> None:
    before = await of_ours(etcd_store)
    words = ("restore", "finish", "--etcd", etcd)

    def run(*options: str) -> "subprocess.CompletedProcess[str]":
        program = Path(sys.executable).with_name("deltaplane")
        return subprocess.run(
            [program, *words, *options], capture_output=True, text=True, check=False
        )

    async def command(*options: str) -> "subprocess.CompletedProcess[str]":
        return await asyncio.to_thread(run, *options)

    dry = await command("--dry-run", "-o", "json")
    assert dry.returncode == 0, dry.stderr
    assert json.loads(dry.stdout)["lineage_before"] == before.hex()
    assert await lineage.ensure(etcd_store) == before
    done = json.loads((await command("-o", "json")).stdout)
    assert (await lineage.ensure(etcd_store)).hex() == done["lineage"]
    again = await command()
    assert "finished already" in again.stderr
    assert done["lineage"] in again.stdout
