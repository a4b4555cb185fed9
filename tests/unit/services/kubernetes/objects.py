"""Objects as an API server sends them."""

from typing import Any

import msgspec

from services.kubernetes.kinds import JsonObject, Kind, Object


def decoded(kind: Kind, value: JsonObject) -> Any:
    """An object as the bridge decodes it."""
    found: Object = msgspec.json.decode(msgspec.json.encode(value), type=kind.type)
    return found


def metadata(name: str, namespace: str = "shop", **more: Any) -> JsonObject:
    return {
        "name": name,
        **({"namespace": namespace} if namespace else {}),
        "uid": f"uid-{name}",
        "resourceVersion": "4711",
        "creationTimestamp": "2026-11-27T02:00:00Z",
        "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:metadata": {}}}],
        **more,
    }


def pod(name: str = "web", *, node: str = "node-1", **more: Any) -> JsonObject:
    """A running pod; more: labels, annotations, spec, status."""
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": metadata(
            name,
            labels=more.get("labels", {"app": name}),
            annotations=more.get("annotations", {"kubectl.kubernetes.io/last-applied": "{}"}),
        ),
        "spec": {
            "volumes": [{"name": "token", "projected": {"sources": []}}],
            "containers": [{"name": "main", "image": "web:1", "resources": {}}],
            "nodeName": node,
            **more.get("spec", {}),
        },
        "status": {"phase": "Running", **more.get("status", {})},
    }


def endpoint_slice(*endpoints: JsonObject, **more: Any) -> JsonObject:
    return {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": metadata(
            "web-abc", labels=more.pop("labels", {"kubernetes.io/service-name": "web"})
        ),
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        "endpoints": list(endpoints) or None,
        **more,
    }


def policy(kind: Kind, spec: JsonObject | None = None, **more: Any) -> JsonObject:
    namespace = "shop" if kind.resource.namespaced else ""
    name = "default" if kind is Kind.BASELINE_ADMIN else "guard"
    return {
        "kind": kind.word,
        "apiVersion": kind.resource.api_version,
        "metadata": metadata(name, namespace, **more.pop("metadata", {})),
        **({} if spec is None else {"spec": spec}),
        **more,
    }
