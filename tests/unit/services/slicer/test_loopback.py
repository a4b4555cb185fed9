"""Streams over a real connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from deltaplane.delta.messages import Mode
from deltaplane.errors import Internal, Refused
from deltaplane.model.addresses import AddressPair, parse_address
from deltaplane.model.objects import EndpointObject, Kind
from deltaplane.runtime import rpc
from deltaplane.store import keys
from deltaplane.store.port import Delete, Put
from deltaplane.v1 import (
    slicer_pb2,
    slicer_pb2_grpc,
)
from nodeagent.stream import (
    Floor,
    HelloState,
)
from services.slicer import metrics
from services.slicer.__main__ import serve
from services.slicer.config import Config
from services.slicer.facts import Record
from services.slicer.repository import Batch, Repository
from tests.unit.services.slicer.loopback import (
    PATIENCE,
    Agent,
    Switch,
    World,
    agents,
    background,
    slicer,
    until,
)


async def test_snapshot_then_live_changes(world: World, target: str) -> None:
    agent = Agent(1)
    async with slicer(world, target), background(agent.run(target)):
        await until(lambda: agent.barriers)
        first = agent.barriers[0]
        assert first.complete
        assert first.lineage == (await world.store.get(keys.LINEAGE)).value  # type: ignore[union-attr]
        assert agent.endpoints == {(1, 1, 300)}
        assert {held.value.name for held in first.view.nodes.values()} == {"node-1", "node-2"}
        assert len(first.view.subject_policies) == 2

        revision = await world.endpoint(2, 7, 301)
        await until(lambda: agent.revision >= revision)
        assert agent.endpoints == {(1, 1, 300), (2, 7, 301)}
        added = EndpointObject(
            node_index=2,
            id=7,
            identity=301,
            addresses=AddressPair(ipv4=parse_address("10.244.2.7")),
            incarnation=revision,
        )
        assert (Kind.ENDPOINT, added.key) in set().union(*(b.changed for b in agent.barriers))
        assert agent.barriers[-1].view.endpoints[added.key].value == added

        revision = await world.write(Delete(world.endpoint_key(2, 7)))
        await until(lambda: agent.revision >= revision)
        assert agent.endpoints == {(1, 1, 300)}


async def test_a_policy_changes_the_subjects_policy(world: World, target: str) -> None:
    agent = Agent(1)
    async with slicer(world, target), background(agent.run(target)):
        await until(lambda: agent.barriers)
        revision = await world.policy("closed", "web")
        await until(lambda: agent.revision >= revision)
        view = agent.barriers[-1].view
        assert view.subject_policies[(300).to_bytes(4)].value.ingress.isolated
        assert not view.subject_policies[(301).to_bytes(4)].value.ingress.isolated


async def test_an_agent_that_is_connected_hears_of_freshness_without_changes(
    world: World, target: str
) -> None:
    agent = Agent(1)
    async with slicer(world, target), background(agent.run(target)):
        await until(lambda: agent.barriers)
        outside = await world.write(Put(keys.namespace("other"), b""))
        await until(lambda: agent.revision >= outside)
        assert not agent.barriers[-1].changed


@pytest.mark.parametrize(("knows_the_past", "mode"), [(True, Mode.RESUME), (False, Mode.REPAIR)])
async def test_killed_server_comes_back_and_the_agent_needs_no_snapshot(
    world: World, target: str, knows_the_past: bool, mode: Mode
) -> None:
    agent = Agent(1)
    async with background(agent.run(target)):
        async with slicer(world, target):
            await until(lambda: agent.barriers)
        await until(lambda: not agent.stream.connected)
        before = set(agent.barriers[-1].view.endpoints)
        missed = await world.endpoint(2, 9, 301)
        if not knows_the_past:
            await world.write(Delete(keys.CHECKPOINTS))
        async with slicer(world, target):
            await until(lambda: agent.revision >= missed)
            assert [Mode(a.mode) for a in await agents(target)] == [mode]
        after = agent.barriers[-1]
        assert after.changed == {
            (Kind.ENDPOINT, key) for key in after.view.endpoints.keys() - before
        }
        assert agent.endpoints == {(1, 1, 300), (2, 9, 301)}


@pytest.mark.parametrize("graceful", [False, True])
async def test_another_replica_resumes_where_one_has_ended(
    world: World, tmp_path: Path, graceful: bool
) -> None:
    switch, agent = Switch(tmp_path), Agent(1)
    switch.lead_to(switch.first)
    async with slicer(world, switch.second), contextlib.AsyncExitStack() as first:
        # The agent comes last: it is to see no start.
        await first.enter_async_context(slicer(world, switch.first, graceful=graceful))
        async with background(agent.run(switch.target)):
            revision = await world.endpoint(2, 3, 301)
            await until(lambda: agent.revision >= revision)
            switch.lead_to(switch.second)
            await first.aclose()
            missed = await world.endpoint(2, 4, 301)
            await until(lambda: agent.revision >= missed)
            assert [Mode(a.mode) for a in await agents(switch.second)] == [Mode.RESUME]
        assert agent.endpoints == {(1, 1, 300), (2, 3, 301), (2, 4, 301)}
        changed = [key for b in agent.barriers if b.revision >= missed for key in b.changed]
        assert changed == [(Kind.ENDPOINT, bytes((0, 0, 0, 2, 0, 0, 0, 4)))]
        if graceful:
            assert agent.stream.last_error == "", "it was told to leave"


@pytest.mark.parametrize(
    ("hello", "text"),
    [
        (HelloState(node="node-9", node_uid="uid-9"), "not registered"),
        (HelloState(node="node-1", node_uid="other"), "registered with UID 'uid-1'"),
    ],
)
async def test_strangers_are_refused_with_a_clear_status(
    world: World, target: str, hello: HelloState, text: str
) -> None:
    agent = Agent(1)
    agent.hello = hello
    async with slicer(world, target), background(agent.run(target)):
        await until(lambda: agent.stream.last_error)
        assert text in agent.stream.last_error
        assert not agent.barriers


async def test_an_agent_from_the_future_of_a_restored_store_is_refused(
    world: World, target: str
) -> None:
    async with slicer(world, target):
        lineage = await world.store.get(keys.LINEAGE)
        assert lineage is not None
        agent = Agent(1, floor=Floor(lineage=lineage.value, revision=10_000))
        async with background(agent.run(target)):
            await until(lambda: agent.stream.last_error)
            assert "restored from a backup" in agent.stream.last_error
            assert not agent.barriers


async def test_the_newest_stream_of_a_node_wins(world: World, target: str) -> None:
    old, new = Agent(1), Agent(1)
    async with slicer(world, target), background(old.run(target)) as running:
        await until(lambda: old.barriers)
        async with background(new.run(target)):
            await until(lambda: old.stream.last_error)
            running.cancel()
            assert "newer stream" in old.stream.last_error
            revision = await world.endpoint(2, 5, 300)
            await until(lambda: new.revision >= revision)
            assert len(await agents(target)) == 1


async def test_etcd_away_keeps_streams_and_the_watch_resumes(world: World, target: str) -> None:
    agent = Agent(1)
    async with slicer(world, target), background(agent.run(target)):
        await until(lambda: agent.barriers)
        world.store.available = False
        seen = len(agent.barriers)
        await until(lambda: len(agent.barriers) >= seen)
        assert agent.stream.connected
        world.store.available = True
        revision = await world.endpoint(2, 6, 300)
        await until(lambda: agent.revision >= revision)
        assert agent.stream.last_error == ""


async def test_a_store_with_another_lineage_ends_the_process(world: World, target: str) -> None:
    stop = asyncio.Event()
    await world.write(Put(keys.LINEAGE, b"A" * 16))
    task = asyncio.create_task(
        serve(Config(listen=(target,), log_level="error"), world.store, stop=stop)
    )
    await until(Path(target.removeprefix("unix:")).exists)
    await world.write(Put(keys.LINEAGE, b"B" * 16))
    with pytest.raises(ExceptionGroup) as failure:
        async with asyncio.timeout(PATIENCE):
            await task
    assert failure.group_contains(Refused, match="lineage of the store has changed")


async def test_a_watch_that_breaks_its_word_ends_the_process(
    world: World, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def changes(_: Repository, after: int) -> AsyncIterator[Batch]:
        late = Record(key=keys.node("node-9"), generation=after + 1, content=None)
        yield Batch((), after + 2)
        yield Batch((late,), after + 1)

    monkeypatch.setattr(Repository, "changes", changes)
    with pytest.raises(ExceptionGroup) as failure:
        async with asyncio.timeout(PATIENCE):
            await serve(Config(listen=(target,), log_level="error"), world.store)
    assert failure.group_contains(Internal, match="start again")


async def test_a_store_that_forgets_is_noticed(world: World) -> None:
    repository = Repository(world.store)
    lineage = await repository.lineage()
    head = await world.store.head()
    await repository.check_history(lineage, head)
    with pytest.raises(Refused, match="forgotten"):
        await repository.check_history(lineage, head + 1)


async def test_compacted_history_is_listed_again(world: World, target: str) -> None:
    agent = Agent(1)
    async with slicer(world, target), background(agent.run(target)):
        await until(lambda: agent.barriers)
        relists = metrics.RELISTS._value.get()
        # The store in memory does not let go of the loop: the watch sees none of this before
        # history is gone.
        for number in range(20, 40):
            await world.endpoint(2, number, 301)
            await world.write(Delete(world.endpoint_key(2, number)))
        await world.write(Delete(world.endpoint_key(1, 1)))
        revision = await world.endpoint(2, 50, 301)
        world.store.compact(revision)
        await until(lambda: agent.revision >= revision)
        assert agent.endpoints == {(2, 50, 301)}
        assert agent.stream.last_error == "", "the stream went on"
        assert metrics.RELISTS._value.get() == relists + 1


async def test_slices_are_listed_in_pages(world: World, target: str) -> None:
    for number in range(2, 132):
        await world.endpoint(1, number, 300)
    await world.endpoint(2, 1, 301)
    async with slicer(world, target), rpc.channel(target) as channel:
        stub = slicer_pb2_grpc.SlicerStub(channel)
        found: list[slicer_pb2.Slice] = []
        token = ""
        while True:
            page = await stub.ListSlices(
                slicer_pb2.ListSlicesRequest(page_size=1, page_token=token), timeout=PATIENCE
            )
            found += page.slices
            token = page.next_page_token
            if not token:
                break
        assert [s.id for s in found] == ["300/0", "300/1", "301/"]
        assert sum(len(s.endpoints) for s in found) == 132
        for one in found:
            assert min(endpoint.generation_lag for endpoint in one.endpoints) == 0
            assert one.generation <= page.revision
        with pytest.raises(grpc.aio.AioRpcError, match="is no id of a slice"):
            await stub.ListSlices(slicer_pb2.ListSlicesRequest(page_token="x"), timeout=PATIENCE)


async def test_a_herd_that_does_not_fit_comes_back_until_all_have_their_snapshot(
    world: World, target: str
) -> None:
    for index in range(3, 13):
        await world.node(index)
    herd = [Agent(index) for index in range(1, 13)]
    first, rest = herd[:4], herd[4:]  # a MiB has four places
    postponed = metrics.POSTPONED._value.get()
    async with slicer(world, target, snapshot_memory=1), contextlib.AsyncExitStack() as stack:
        for agent in first:
            agent.may_apply.clear()
            await stack.enter_async_context(background(agent.run(target)))
        await until(lambda: all(agent.stream.received_revision for agent in first))
        for agent in rest:
            await stack.enter_async_context(background(agent.run(target)))
        await until(lambda: metrics.POSTPONED._value.get() >= postponed + len(rest))
        connected = {status.node for status in await agents(target)}
        assert connected == {agent.hello.node for agent in first}
        assert not any(agent.barriers for agent in rest)
        for agent in first:
            agent.may_apply.set()
        await until(lambda: all(agent.barriers for agent in herd))
        assert {Mode(status.mode) for status in await agents(target)} == {Mode.SNAPSHOT}
