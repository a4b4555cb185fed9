"""Whatever happens to lists and watches, the follower ends up with what the server has."""

import asyncio
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kubernetes.api import resource as resources
from services.kubernetes.api.reflecting import Settings
from services.kubernetes.api.reflector import Removed, Unreadable
from tests.kubernetes.apiserver import ApiServer
from tests.kubernetes.following import Follower, following
from tests.kubernetes.storing import Refusal

PODS = resources.PODS
CILIUM = resources.CILIUM_NETWORK_POLICIES


async def ready(server: ApiServer, follower: Follower, *keys: str) -> None:
    """Everything is known, and a watch that has said all is open."""
    await follower.has(*keys)
    await server.until(lambda: bool(server.watches))


@pytest.mark.parametrize("streaming", [True, False])
async def test_what_there_is_and_what_changes(server: ApiServer, streaming: bool) -> None:
    server.faults.streaming_lists = streaming
    server.create(PODS, "a")
    async with following(server, PODS) as follower:
        await ready(server, follower, "default/a")
        server.create(PODS, "b", namespace="shop", spec={"nodeName": "n1"})
        await follower.has("default/a", "shop/b")
        server.change(PODS, "b", {"spec": {"nodeName": "n2"}}, namespace="shop")
        await follower.until(lambda: follower.objects["shop/b"].spec == {"nodeName": "n2"})
        server.delete(PODS, "b", namespace="shop")
        await follower.has("default/a")
        (removed,) = (it for it in follower.events if isinstance(it, Removed))
        assert removed.last is not None
        assert removed.last.spec == {"nodeName": "n2"}
        assert len(follower.lists) == 1
        assert follower.reflector.synced
    assert len(server.asked("list")) == (0 if streaming else 1)
    assert server.most_watches == 1


async def test_a_list_in_chunks_is_one_list(server: ApiServer) -> None:
    server.faults.streaming_lists = False
    names = [f"p{number:02}" for number in range(23)]
    for name in names:
        server.create(PODS, name)
    async with following(server, PODS, Settings(chunk=5)) as follower:
        await follower.has(*(f"default/{name}" for name in names))
        assert len(follower.lists) == 1
    assert [it.get("limit") for it in server.asked("list")] == ["5"] * 5
    assert sum("continue" in it for it in server.asked("list")) == 4


async def test_a_list_that_expires_begins_again(server: ApiServer) -> None:
    server.faults.streaming_lists = False
    for name in "abc":
        server.create(PODS, name)
    server.refuse("list", None, Refusal(410, "Expired", "the continue parameter is too old"))
    async with following(server, PODS, Settings(chunk=1)) as follower:
        await follower.has("default/a", "default/b", "default/c")
        assert len(follower.lists) == 1
    assert ["continue" in it for it in server.asked("list")] == [False, True, False, True, True]


@pytest.mark.parametrize("by_status", [False, True])
async def test_history_that_is_gone_means_a_new_list(server: ApiServer, by_status: bool) -> None:
    server.faults.expired_by_status = by_status
    server.create(PODS, "a")
    server.create(PODS, "b")
    async with following(server, PODS) as follower:
        await ready(server, follower, "default/a", "default/b")
        # Nothing is said of this removal: only the list shows it.
        server.faults.silent = True
        server.delete(PODS, "a")
        server.create(PODS, "c")
        server.storage.compact()
        server.cut_watches()
        server.faults.silent = False
        await follower.has("default/b", "default/c")
        assert len(follower.lists) == 2
        assert follower.reflector.counts.expired == 1


async def test_a_watch_that_ends_goes_on_where_it_was(server: ApiServer) -> None:
    server.create(PODS, "a")
    async with following(server, PODS) as follower:
        await ready(server, follower, "default/a")
        made = server.create(PODS, "b")
        await follower.has("default/a", "default/b")
        server.end_watches()
        await server.until(lambda: len(server.asked("watch")) == 2)
        server.create(PODS, "c")
        await follower.has("default/a", "default/b", "default/c")
        assert len(follower.lists) == 1
    # The bookmark at the end of the watch is of the same revision as the last event.
    assert server.asked("watch")[1]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_a_bookmark_saves_a_list(server: ApiServer) -> None:
    server.create(PODS, "a")
    async with following(server, PODS) as follower:
        await ready(server, follower, "default/a")
        # The history of the others goes on and is compacted; we have heard how far.
        for name in ("n1", "n2"):
            server.create(resources.NODES, name)
        server.bookmark()
        server.create(PODS, "b")
        await follower.has("default/a", "default/b")
        server.storage.compact()
        server.cut_watches()
        await server.until(lambda: len(server.asked("watch")) == 2)
        server.create(PODS, "c")
        await follower.has("default/a", "default/b", "default/c")
        assert len(follower.lists) == 1


async def test_a_watch_that_breaks_off_in_a_line_loses_nothing(server: ApiServer) -> None:
    async with following(server, PODS) as follower:
        await ready(server, follower)
        server.faults.cut_after_bytes = 30
        server.create(PODS, "a")
        server.create(PODS, "b")
        await follower.has("default/a", "default/b")
        assert len(follower.lists) == 1


async def test_lines_come_in_any_pieces(server: ApiServer) -> None:
    server.faults.piece_bytes = 7
    server.create(PODS, "a", spec={"text": "é" * 50})
    async with following(server, PODS) as follower:
        await ready(server, follower, "default/a")
        server.create(PODS, "b")
        await follower.has("default/a", "default/b")
        assert follower.objects["default/a"].spec == {"text": "é" * 50}
        assert not follower.pauses


async def test_a_watch_that_stays_silent_is_dropped(server: ApiServer) -> None:
    async with following(server, PODS, Settings(silence=0.05)) as follower:
        await ready(server, follower)
        server.faults.silent = True
        server.create(PODS, "a")
        await server.until(lambda: len(server.asked("watch")) >= 3)
        server.faults.silent = False
        await follower.has("default/a")
        assert not follower.pauses
    assert server.most_watches <= 2, "the one that is dropped may still be open for a moment"


async def test_a_server_that_never_ends_a_list_is_asked_for_chunks(server: ApiServer) -> None:
    server.faults.ignores_streaming = True
    server.create(PODS, "a")
    async with following(server, PODS, Settings(silence=0.05)) as follower:
        await ready(server, follower, "default/a")
        assert len(follower.lists) == 1
    assert len(server.asked("list")) == 1


async def test_a_server_whose_streaming_lists_fail_is_asked_for_chunks(server: ApiServer) -> None:
    server.faults.unfit_store = True
    server.create(PODS, "a")
    async with following(server, PODS) as follower:
        await ready(server, follower, "default/a")
        assert len(follower.lists) == 1
    assert len(server.asked("list")) == 1
    assert sum("sendInitialEvents" in it for it in server.asked("watch")) == 2


async def test_a_kind_that_is_not_there_counts_as_empty(server: ApiServer) -> None:
    async with following(server, CILIUM, Settings(absent=0.01)) as follower:
        await follower.until(lambda: len(follower.lists) >= 2)
        assert not follower.lists[0].served
        assert set(follower.pauses) == {0.01}
        server.serve(CILIUM)
        server.create(CILIUM, "a")
        await follower.has("default/a")
        assert follower.lists[-1].served
        server.storage.withdraw(CILIUM)
        await follower.until(lambda: not follower.lists[-1].served)
        assert not follower.objects


async def test_a_kind_does_not_vanish_by_one_odd_answer(server: ApiServer) -> None:
    server.serve(CILIUM)
    server.create(CILIUM, "a")
    async with following(server, CILIUM) as follower:
        await ready(server, follower, "default/a")
        odd = Refusal(404, "NotFound", "the page was not found")
        server.refuse("watch", odd, odd)
        server.cut_watches()
        await server.until(lambda: len(server.asked("watch")) == 4)
        server.create(CILIUM, "b")
        await follower.has("default/a", "default/b")
        assert len(follower.lists) == 1


async def test_a_built_in_kind_is_never_absent(server: ApiServer) -> None:
    server.create(PODS, "a")
    async with following(server, PODS) as follower:
        await ready(server, follower, "default/a")
        server.refuse("watch", *[Refusal(404, "NotFound", "")] * 5)
        server.cut_watches()
        server.create(PODS, "b")
        await follower.has("default/a", "default/b")
        assert all(it.served for it in follower.lists)


async def test_an_object_that_cannot_be_read_costs_no_other(server: ApiServer) -> None:
    server.create(PODS, "bad", spec=["no", "mapping"])
    server.create(PODS, "good")
    async with following(server, PODS) as follower:
        await ready(server, follower, "default/good")
        assert "Expected `object`" in follower.unreadable["default/bad"]
        server.create(PODS, "worse", spec=1)
        await follower.until(lambda: "default/worse" in follower.unreadable)
        assert isinstance(follower.events[-1], Unreadable)
        server.delete(PODS, "bad")
        await follower.until(lambda: "default/bad" not in follower.unreadable)
        assert [it.last for it in follower.events if isinstance(it, Removed)] == [None]
        assert len(follower.lists) == 1


async def test_errors_in_a_watch_are_waited_out(server: ApiServer) -> None:
    async with following(server, PODS) as follower:
        await server.until(lambda: server.opened == 1)
        server.say(b'{"type":"ERROR","object":{"code":500,"reason":"InternalError"}}')
        await server.until(lambda: server.opened == 2)
        server.say(b"no JSON")
        await server.until(lambda: server.opened == 3)
        server.refuse("watch", Refusal(429, "TooManyRequests", "", 7), Refusal(403, "Forbidden"))
        server.cut_watches()
        await server.until(lambda: server.opened == 4)
        server.create(PODS, "a")
        await follower.has("default/a")
        assert 7.0 in follower.pauses
        assert len(follower.lists) == 1


async def test_a_server_that_restarts(server: ApiServer) -> None:
    """Its address answers nothing for a while; nobody lists again because of that."""
    server.create(PODS, "a")
    async with following(server, PODS) as follower:
        await ready(server, follower, "default/a")
        server.refuse("watch", *[Refusal(503, "ServiceUnavailable")] * 12)
        server.cut_watches()
        await server.until(lambda: len(server.asked("watch")) == 14)
        server.create(PODS, "b")
        await follower.has("default/a", "default/b")
        assert len(follower.lists) == 1
        assert max(follower.pauses) == 30.0


@given(seed=st.integers(0, 2**32))
@settings(max_examples=3)
async def test_any_weather(seed: int) -> None:
    """Random changes with random faults; at the end both sides agree."""
    with ApiServer() as server:
        await weathered(server, random.Random(seed))


async def weathered(server: ApiServer, chance: random.Random) -> None:
    weather: list[Callable[[], object]] = [
        server.cut_watches,
        server.end_watches,
        server.bookmark,
        server.storage.compact,
        lambda: setattr(server.faults, "cut_after_bytes", chance.randrange(400)),
        lambda: setattr(server.faults, "piece_bytes", chance.choice([None, 11, 200])),
        lambda: setattr(server.faults, "streaming_lists", chance.random() < 0.5),
        lambda: server.refuse("list", Refusal(410, "Expired")),
        lambda: server.refuse("watch", Refusal(429, "TooManyRequests", "", 1)),
        lambda: server.say(b'{"type":"ERROR","object":{"code":410,"reason":"Expired"}}'),
    ]
    names = [f"p{number}" for number in range(8)]
    async with following(server, PODS, Settings(chunk=3)) as follower:
        for _ in range(150):
            name = chance.choice(names)
            there = set(server.storage.keys(PODS))
            if f"default/{name}" not in there:
                server.create(PODS, name)
            elif chance.random() < 0.5:
                server.change(PODS, name, {"spec": {"turn": chance.random()}})
            else:
                server.delete(PODS, name)
            if chance.random() < 0.3:
                chance.choice(weather)()
            await asyncio.sleep(0)

        def agree() -> bool:
            state = {it: server.storage.get(PODS, it) for it in server.storage.keys(PODS)}
            return follower.reflector.synced and {
                key: value.metadata.resource_version for key, value in follower.objects.items()
            } == {key: value["metadata"]["resourceVersion"] for key, value in state.items()}

        await follower.until(agree)
    assert server.most_watches <= 3
