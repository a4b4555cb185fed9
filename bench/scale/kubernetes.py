"""How large the same objects are in Kubernetes' JSON: a note, because here all modes send protobuf.

The fields are those that Cilium 1.16 fills in for a pod with one interface and two families.
"""

import json
from typing import Any

from bench.scale import records
from bench.scale.baselines import SLICE_LIMIT
from bench.scale.world import Pod, Shape, World

API = "cilium.io/v2"


def sizes() -> dict[str, int]:
    """Bytes of an endpoint and of a full slice, as JSON and as what is sent here."""
    world = World(Shape(2, SLICE_LIMIT))
    pods = world.fill()[:SLICE_LIMIT]
    endpoint = endpoint_json(world, pods[0])
    whole = {
        "apiVersion": f"{API}alpha1",
        "kind": "CiliumEndpointSlice",
        "metadata": _metadata("ces-9x7kqwz2m-4pv8d", None),
        "namespace": "bench-0",
        "endpoints": [_core(world, pod) for pod in pods],
    }
    return {
        "endpoint_json": _size(endpoint),
        "slice_of_100_json": _size(whole),
        "endpoint_protobuf": len(records.endpoint(world, pods[0]).SerializeToString()),
    }


def _size(value: object) -> int:
    return len(json.dumps(value, separators=(",", ":")))


def _metadata(name: str, namespace: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "generation": 1,
        "name": name,
        "resourceVersion": "1234567",
        "uid": "00000000-0000-0000-0000-000000000000",
    }
    return found | ({"namespace": namespace} if namespace else {})


def _addresses(pod: Pod) -> list[dict[str, str]]:
    del pod  # as long as any
    return [{"ipv4": "10.244.123.123", "ipv6": "fd00:10:244::7b7b"}]


def _core(world: World, pod: Pod) -> dict[str, Any]:
    return {
        "encryption": {},
        "id": world.deployments[pod.deployment].identity.id,
        "name": pod.name,
        "networking": {"addressing": _addresses(pod), "node": "198.18.123.123"},
    }


def endpoint_json(world: World, pod: Pod) -> dict[str, Any]:
    """A CiliumEndpoint."""
    one = world.deployments[pod.deployment]
    owner = {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": records.pod_uid(pod)}
    labels = [f"k8s:{key}={value}" for key, value in one.identity.label_set.labels]
    labels += [
        f"k8s:io.kubernetes.pod.namespace={one.namespace}",
        "k8s:io.cilium.k8s.policy.cluster=default",
        "k8s:io.cilium.k8s.policy.serviceaccount=default",
    ]
    return {
        "apiVersion": API,
        "kind": "CiliumEndpoint",
        "metadata": _metadata(pod.name, one.namespace)
        | {"labels": {"app": one.name}, "ownerReferences": [owner]},
        "status": {
            "encryption": {},
            "external-identifiers": {
                "cni-attachment-id": f"{pod.key:064x}:eth0",
                "container-id": f"{pod.key:064x}",
                "k8s-namespace": one.namespace,
                "k8s-pod-name": pod.name,
                "pod-name": f"{one.namespace}/{pod.name}",
            },
            "id": pod.id,
            "identity": {"id": one.identity.id, "labels": labels},
            "networking": {"addressing": _addresses(pod), "node": "198.18.123.123"},
            "state": "ready",
        },
    }
