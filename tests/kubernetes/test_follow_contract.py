"""The reflector and the leader, at the fake and, with `make test-kubernetes`, at a real server.

A real cluster has other objects, too: only those in the test's namespace count.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from services.kubernetes.api import resource as resources
from services.kubernetes.api.client import Client
from services.kubernetes.api.kubeconfig import Connection
from services.kubernetes.api.leading import LeaseTimes
from services.kubernetes.api.lease import Leader
from services.kubernetes.api.permissions import Permission, Verb
from services.kubernetes.api.reflecting import Settings
from services.kubernetes.api.resource import Resource
from tests.kubernetes.bare import POLICIES, Api
from tests.kubernetes.following import Follower

SPEC = {"podSelector": {}, "policyTypes": ["Ingress"]}
NOBODY_HAS = Resource(
    group="deltaplane.dev",
    version="v1",
    plural="nothings",
    kind="Nothing",
    namespaced=True,
    custom=True,
)


class Policies:
    """NetworkPolicies of the test's namespace, by way of the server."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.path = f"{POLICIES}/namespaces/{api.namespace}/networkpolicies"

    async def create(self, *names: str) -> None:
        for name in names:
            await self.api.ok("POST", self.path, json={"metadata": {"name": name}, "spec": SPEC})

    async def delete(self, name: str) -> None:
        await self.api.ok("DELETE", f"{self.path}/{name}")

    def known(self, follower: Follower) -> set[str]:
        return {
            key.partition("/")[2]
            for key, value in follower.objects.items()
            if value.metadata.namespace == self.api.namespace
        }

    async def agree(self, follower: Follower, *names: str) -> None:
        await follower.until(lambda: bool(follower.lists) and self.known(follower) == set(names))


@contextlib.asynccontextmanager
async def running(follower: Follower) -> AsyncIterator[None]:
    task = asyncio.create_task(follower.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("streaming", [True, False])
async def test_what_there_is_and_what_changes(
    connection: Connection, api: Api, streaming: bool
) -> None:
    policies = Policies(api)
    await policies.create("a", "b", "c")
    async with Client(connection) as client:
        follower = Follower(client, resources.NETWORK_POLICIES, Settings(chunk=2))
        follower.reflector._core._can_stream = streaming
        async with running(follower):
            await policies.agree(follower, "a", "b", "c")
            await policies.create("d")
            await policies.delete("b")
            await policies.agree(follower, "a", "c", "d")
            spec = {"spec": SPEC | {"policyTypes": ["Egress"]}, "metadata": {"name": "a"}}
            await api.ok("PUT", f"{policies.path}/a", json=spec)
            key = f"{api.namespace}/a"
            await follower.until(lambda: follower.objects[key].spec["policyTypes"] == ["Egress"])
            assert len(follower.lists) == 1
            # A server with an etcd that is too old for streaming lists is asked twice.
            assert not follower.pauses or (streaming and not await api.has_streaming_lists())


async def test_watches_that_end_lose_nothing(connection: Connection, api: Api) -> None:
    policies = Policies(api)
    async with Client(connection) as client:
        # Each watch is asked to end after a second.
        follower = Follower(client, resources.NETWORK_POLICIES, Settings(watch=1.0))
        async with running(follower):
            await policies.agree(follower)
            names: list[str] = []
            while follower.reflector.counts.watches < 3:
                names.append(f"p{len(names)}")
                await policies.create(names[-1])
                await policies.agree(follower, *names)
            assert len(follower.lists) == 1


async def test_a_version_from_long_ago(connection: Connection, api: Api) -> None:
    """Whether the history is still there or not: the follower ends up with the truth."""
    policies = Policies(api)
    await policies.create("a")
    async with Client(connection) as client:
        follower = Follower(client, resources.NETWORK_POLICIES)
        follower.reflector._core._version = "1"
        async with running(follower):
            await follower.until(lambda: "a" in policies.known(follower))


async def test_a_kind_that_no_server_has(connection: Connection) -> None:
    verbs = frozenset({Verb.LIST, Verb.WATCH})
    permissions = (Permission(resource=NOBODY_HAS, verbs=verbs),)
    async with Client(connection, permissions=permissions) as client:
        follower = Follower(client, NOBODY_HAS, Settings(absent=0.01))
        async with running(follower):
            await follower.until(lambda: len(follower.lists) == 2)
            assert not any(it.served for it in follower.lists)


async def test_two_leaders_in_turn(connection: Connection, api: Api) -> None:
    times = LeaseTimes(lease=3, renew=2.0, retry=0.2)
    terms: list[tuple[str, int]] = []
    working = asyncio.Event()

    async def run(client: Client, name: str) -> None:
        async def work(term: int) -> None:
            terms.append((name, term))
            working.set()
            await asyncio.Event().wait()

        leader = Leader(client, namespace=api.namespace, name="bridge", identity=name, times=times)
        await leader.run(work)

    async with Client(connection) as client, asyncio.timeout(30):
        first = asyncio.create_task(run(client, "a"))
        await working.wait()
        working.clear()
        second = asyncio.create_task(run(client, "b"))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await working.wait()
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        lease = await api.ok("GET", f"{api.leases}/bridge")
    assert terms == [("a", 0), ("b", 1)]
    assert not lease["spec"].get("holderIdentity")
