"""Objects of all built-in kinds, at the fake and, with `make test-kubernetes`, at a real server.

A real cluster has other objects, too: only those in the test's namespace count. Nothing but these
is written to it.
"""

import asyncio
import contextlib
from pathlib import Path

from deltaplane.model.addresses import Prefix
from deltaplane.runtime import rpc
from deltaplane.runtime.clock import SystemClock
from deltaplane.store.memory import MemoryStore
from deltaplane.v1 import registry_pb2 as pb
from services.endpoints.ranges import DEFAULT_NODE_PORTS, Ranges
from services.kubernetes.api.client import Client
from services.kubernetes.api.kubeconfig import Connection
from services.kubernetes.bridge import Bridge, Options
from tests.kubernetes.bare import Api, Object
from tests.services.plane import Plane, ok, plane

DEADLINE_SECONDS = 60
ANY_RANGE = Ranges((Prefix.parse("10.0.0.0/8"), Prefix.parse("fd00::/8")), DEFAULT_NODE_PORTS)
"""A real API server takes its addresses from a range that we do not know."""

POD = {
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {
        "nodeName": "nowhere",
        "automountServiceAccountToken": False,
        "containers": [
            {"name": "main", "image": "web", "ports": [{"name": "http", "containerPort": 80}]}
        ],
    },
}
SERVICE = {
    "metadata": {"name": "web"},
    "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
}
SLICE = {
    "metadata": {"name": "web-by-hand", "labels": {"kubernetes.io/service-name": "web"}},
    "addressType": "IPv4",
    "endpoints": [{"addresses": ["10.9.8.7"], "conditions": {"ready": True}}],
    "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
}
POLICY = {
    "metadata": {"name": "closed"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
}


def paths(api: Api) -> dict[str, Object]:
    """What is made, by where; pods are refused before their service account is there."""
    core = f"/api/v1/namespaces/{api.namespace}"
    return {
        f"{core}/pods": POD,
        f"{core}/services": SERVICE,
        f"/apis/discovery.k8s.io/v1/namespaces/{api.namespace}/endpointslices": SLICE,
        f"/apis/networking.k8s.io/v1/namespaces/{api.namespace}/networkpolicies": POLICY,
    }


async def found(served: Plane, namespace: str) -> set[str]:
    """Kinds and names of what the registry has in a namespace."""
    stub = served.registry
    namespaces = (await ok(stub.ListNamespaces(pb.ListNamespacesRequest()))).namespaces
    pods = (await ok(stub.ListPods(pb.ListPodsRequest(namespace=namespace)))).pods
    services = await ok(stub.ListServices(pb.ListServicesRequest(namespace=namespace)))
    slices = await ok(stub.ListEndpointSlices(pb.ListEndpointSlicesRequest(namespace=namespace)))
    policies = await ok(stub.ListPolicies(pb.ListPoliciesRequest(namespace=namespace)))
    return {
        *(f"namespace {it.name}" for it in namespaces if it.name == namespace),
        *(f"pod {it.name} {it.uid}" for it in pods),
        *(f"service {it.name}" for it in services.services),
        # Controllers of a real cluster make some, too.
        *(f"slice {it.name}" for it in slices.slices if it.name == "web-by-hand"),
        *(f"policy {it.name}" for it in policies.policies),
    }


async def until(served: Plane, namespace: str, wanted: set[str]) -> None:
    last: set[str] = set()
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (last := await found(served, namespace)) != wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"has {last}, not {wanted}") from None


async def test_the_registry_follows_what_is_made_and_deleted(
    api: Api, connection: Connection, socket: Path
) -> None:
    account = f"/api/v1/namespaces/{api.namespace}/serviceaccounts"
    # There already where controllers run; the fake has no such kind.
    await api.http.post(account, json={"metadata": {"name": "default"}})
    made = {path: await api.ok("POST", path, json=body) for path, body in paths(api).items()}
    (pod, *_) = made.values()
    everything = {
        f"namespace {api.namespace}",
        f"pod web {pod['metadata']['uid']}",
        "service web",
        "slice web-by-hand",
        "policy closed",
    }
    async with (
        plane(MemoryStore(), socket, ranges=ANY_RANGE) as served,
        rpc.channel(f"unix:{socket}") as channel,
        Client(connection) as client,
    ):
        options = Options(clears_nodes=False, tells=False)
        bridge = Bridge(client, channel, SystemClock(), options=options)
        tasks = [asyncio.create_task(it) for it in (bridge.follow(), bridge.lead(lambda: True))]
        try:
            await until(served, api.namespace, everything)
            for path, item in made.items():
                name = item["metadata"]["name"]
                await api.ok("DELETE", f"{path}/{name}", params={"gracePeriodSeconds": "0"})
            await until(served, api.namespace, {f"namespace {api.namespace}"})
        finally:
            for task in tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks)
