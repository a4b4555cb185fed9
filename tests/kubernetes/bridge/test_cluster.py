"""The bridge as a process, as in a cluster: with its service account, on objects of every kind.

At the fake and, with `make test-kubernetes`, at a real server. Between the two stands a relay that
sees what is asked; a real cluster has other objects, too: only those of the test count.
"""

import asyncio
from collections.abc import Callable

from deltaplane.store import keys
from deltaplane.store.port import Delete
from services.kubernetes.kinds import Kind
from tests.kubernetes.bridge import shop
from tests.kubernetes.relay import Asked, Relay
from tests.kubernetes.stage import Stage, conditions, events, until
from tests.services.plane import endpoint


async def test_everything_becomes_what_it_should(stage: Stage) -> None:
    await stage.install()
    node, api = shop.node_name(stage.api.namespace), stage.api
    await stage.plane.ready_node(node)
    await stage.plane.store.transact([], [Delete(keys.fence(node))])
    async with stage.bridge("one"):
        await stage.until_has(shop.records(api.namespace, stage.made))
        if await api.has_streaming_lists():
            check_lists(stage.relay)

        async def is_told() -> bool:
            told = [*await events(api, api.namespace), *await events(api, "default")]
            names = {it["regarding"]["name"] for it in told if it["reason"] == "NotProgrammed"}
            return names == {"wrong", api.namespace}

        await until(is_told)

        async def is_up() -> bool:
            found = conditions(await stage.get("nodes", node))
            return found.get("NetworkUnavailable") == "False"

        await until(is_up)
        uid = stage.made["pods", "gated"]["metadata"]["uid"]
        known = stage.slicer.complete[f"{api.namespace}/gated"] = asyncio.Event()
        await stage.plane.register(
            endpoint(7, pod="gated", pod_uid=uid, namespace=api.namespace, node=node)
        )
        known.set()

        async def is_open() -> bool:
            return conditions(await stage.get("pods", "gated")).get(shop.GATE) == "True"

        await until(is_open)
        await stage.remove(*(key for key in stage.paths if key[0] != "nodes"))
        await stage.until_has([])
    assert not [it for it in stage.relay.asked if it.code in (401, 403)], "the roles suffice"
    assert not stage.relay.foreign


def check_lists(relay: Relay) -> None:
    """One streaming list of each kind, nothing else."""
    for kind in Kind:
        plural = kind.resource.plural
        asked = [it for it in relay.asked if it.kind == plural and it.method == "GET"]
        assert [it.is_streaming for it in asked] == [True], plural
        assert asked[0].bookmarks >= 1, plural


async def test_nothing_is_lost_while_the_server_is_away(stage: Stage) -> None:
    await stage.install()
    wanted = shop.records(stage.api.namespace, stage.made)
    async with stage.bridge("one"):
        await stage.until_has(wanted)
        gone = ("services", "web"), ("pods", "gated")
        again = await _meanwhile(stage, *gone)
        wanted = shop.without(wanted, *gone)
        await stage.until_has(wanted)
        asked = again()
        assert all(it.is_watch and not it.is_streaming for it in asked), "it goes on, no new list"
        # And once more, from a version that the server has no history of any more.
        gone = ("networkpolicies", "web"), ("endpointslices", "web-6")
        stage.relay.age(*(plural for plural, _ in gone))
        again = await _meanwhile(stage, *gone)
        await stage.until_has(shop.without(wanted, *gone))
        # A server whose store is new may have it all.
        expired = {it.kind for it in again() if it.expired}
        assert {it.kind for it in again() if it.is_streaming or not it.is_watch} == expired


async def _meanwhile(stage: Stage, *gone: tuple[str, str]) -> Callable[[], list[Asked]]:
    """Removes objects while nobody is answered; gives what is then asked for their kinds."""
    before = len(stage.relay.asked)
    with stage.relay.away():
        await stage.remove(*gone)
    plurals = {plural for plural, _ in gone}
    return lambda: [it for it in stage.relay.since(before) if it.kind in plurals]
