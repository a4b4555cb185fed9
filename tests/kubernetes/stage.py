"""A cluster with a test's objects in it, a registry, and a bridge between them as a process."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import Message

from deltaplane.model.addresses import Prefix
from deltaplane.store.memory import MemoryStore
from deltaplane.v1 import registry_pb2 as pb
from services.endpoints.ranges import DEFAULT_NODE_PORTS, Ranges
from services.kubernetes.api.kubeconfig import Connection
from tests.kubernetes import account, definitions
from tests.kubernetes.bare import Api, Object
from tests.kubernetes.bridge import shop
from tests.kubernetes.bridge.replicas import Cluster, Replica, replica
from tests.kubernetes.bridge.shop import Record
from tests.kubernetes.bridge.slicing import Slicer
from tests.kubernetes.relay import Relay
from tests.services.plane import Plane, ok, plane

DEADLINE_SECONDS = 20
MERGE = {"Content-Type": "application/merge-patch+json"}


@dataclass
class Stage:
    """A cluster, a registry, and what is between them."""

    api: Api
    plane: Plane
    relay: Relay
    cluster: Cluster
    slicer: Slicer
    socket: Path
    made: dict[tuple[str, str], Object] = field(default_factory=dict)
    paths: dict[tuple[str, str], str] = field(default_factory=dict)

    async def make(self, path: str, body: Object) -> None:
        item = await self.api.ok("POST", path, json=body)
        key = (path.rpartition("/")[2], item["metadata"]["name"])
        self.made[key], self.paths[key] = item, f"{path}/{key[1]}"

    async def install(self) -> None:
        """Everything of the little shop."""
        namespace = f"/api/v1/namespaces/{self.api.namespace}"
        # There already where controllers run; the fake has no such kind.
        await self.api.http.post(
            f"{namespace}/serviceaccounts", json={"metadata": {"name": "default"}}
        )
        labels = {"metadata": {"labels": {"team": "red"}}}
        await self.api.ok("PATCH", namespace, content=json.dumps(labels), headers=MERGE)
        for path, body in shop.objects(self.api.namespace):
            await self.make(path, body)
        ended = {"status": {"phase": "Succeeded"}}
        path = f"{self.paths['pods', 'ended']}/status"
        await self.api.ok("PATCH", path, content=json.dumps(ended), headers=MERGE)

    async def remove(self, *which: tuple[str, str]) -> None:
        for key in which:
            params = {"gracePeriodSeconds": "0"} if key[0] == "pods" else {}
            answer = await self.api.http.delete(self.paths.pop(key), params=params)
            assert answer.is_success or answer.status_code == 404, answer.text

    @contextlib.asynccontextmanager
    async def bridge(self, name: str) -> AsyncIterator[Replica]:
        slicer = f"unix:{self.socket}-slicer"
        async with (
            self.slicer.serving(slicer),
            replica(self.cluster, self.socket, name, "--slicer", slicer) as found,
        ):
            yield found

    async def records(self) -> list[Record]:
        """What the registry has of ours, without what only it knows."""
        stub, name = self.plane.registry, self.api.namespace
        pods = await ok(stub.ListPods(pb.ListPodsRequest(namespace=name)))
        services = await ok(stub.ListServices(pb.ListServicesRequest(namespace=name)))
        slices = await ok(stub.ListEndpointSlices(pb.ListEndpointSlicesRequest(namespace=name)))
        policies = await ok(stub.ListPolicies(pb.ListPoliciesRequest()))
        # Controllers of a real cluster make slices, too.
        made = {wanted for _, wanted in self.made}
        found: list[Record] = [
            *pods.pods,
            *services.services,
            *(it for it in slices.slices if it.name in made),
            *(it for it in policies.policies if it.namespace == name),
            *(it for it in policies.others if name in (it.namespace, it.name)),
        ]
        for record in found:
            _forget(record)
        return found

    async def until_has(self, wanted: list[Record]) -> None:
        """Waits until the registry has exactly these records."""
        last: list[Record] = []

        async def has() -> bool:
            last[:] = await self.records()
            return _texts(last) == _texts(wanted)

        with contextlib.suppress(TimeoutError):
            await until(has)
        assert set(_texts(last)) == set(_texts(wanted))

    async def get(self, *key: str) -> Object:
        return await self.api.ok("GET", self.paths[key[0], key[1]])


def _forget(record: Message) -> None:
    for known in ("meta", "number", "traceparent"):
        if known in record.DESCRIPTOR.fields_by_name:
            record.ClearField(known)


def _texts(records: list[Record]) -> list[str]:
    return sorted(f"{type(it).__name__} {it}" for it in records)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await condition():  # noqa: ASYNC110 - of other processes' doing
            await asyncio.sleep(0.05)


async def ranges_of(api: Api) -> Ranges:
    """What the server gives addresses from; 1.33 and later say so."""
    answer = await api.http.get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes")
    texts = ["10.96.0.0/16", "fd00:10:96::/112"]
    if answer.is_success:
        texts = answer.json()["spec"]["cidrs"]
    return Ranges(tuple(Prefix.parse(text) for text in texts), DEFAULT_NODE_PORTS)


@contextlib.asynccontextmanager
async def staged(api: Api, connection: Connection, socket: Path) -> AsyncIterator[Stage]:
    """All there is but the objects; what was made is taken away again."""
    is_real = connection.server.startswith("https:")
    try:
        token = await account.install(api) if is_real else ""
        async with (
            definitions.defined(api),
            plane(MemoryStore(), socket, ranges=await ranges_of(api)) as served,
            Relay(account.anonymous(connection), api.namespace).serving() as relay,
        ):
            cluster = Cluster(server=relay.url, namespace=api.namespace, token=token)
            found = Stage(api, served, relay, cluster, Slicer(), socket)
            try:
                yield found
            finally:
                await found.remove(*reversed(list(found.paths)))
                await _forget_events(api)
    finally:
        if is_real:
            await account.remove(api)


async def _forget_events(api: Api) -> None:
    """Those about what lives in no namespace."""
    for event in await events(api, "default"):
        path = "/apis/events.k8s.io/v1/namespaces/default/events"
        await api.http.delete(f"{path}/{event['metadata']['name']}")


async def events(api: Api, namespace: str) -> list[Object]:
    """About the test's objects."""
    path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
    items = (await api.ok("GET", path))["items"]
    return [it for it in items if api.namespace in json.dumps(it.get("regarding", {}))]


def conditions(item: Object) -> dict[str, str]:
    return {it["type"]: it["status"] for it in item.get("status", {}).get("conditions", ())}
