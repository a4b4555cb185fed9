"""Objects of a Kubernetes cluster, as large as real ones: most of a pod is none of our business."""

from typing import Any

PODS_PER_NAMESPACE = 400
ENDPOINTS_PER_SLICE = 100

Object = dict[str, Any]


def node(number: int) -> Object:
    """The fields of a Node besides its name."""
    addresses = [{"type": "InternalIP", "address": f"192.168.{number // 250}.{number % 250 + 1}"}]
    conditions = [
        {
            "type": kind,
            "status": "True" if kind == "Ready" else "False",
            "reason": f"Kubelet{kind}",
            "message": "kubelet is posting what it has found",
            "lastHeartbeatTime": "2026-11-27T02:00:00Z",
            "lastTransitionTime": "2026-11-20T02:00:00Z",
        }
        for kind in ("MemoryPressure", "DiskPressure", "PIDPressure", "Ready")
    ]
    images = [
        {"names": [f"registry/image-{it}@sha256:{it:064x}"], "sizeBytes": 1} for it in range(20)
    ]
    return {"status": {"addresses": addresses, "conditions": conditions, "images": images}}


def pod(number: int, nodes: int, *, version: int = 0) -> Object:
    """The fields of a Pod besides its name and namespace. version: another one, other labels."""
    app = f"app-{number % 500}"
    labels = {
        "app.kubernetes.io/name": app,
        "app.kubernetes.io/part-of": f"product-{number % 25}",
        "pod-template-hash": f"{number % 500:010x}",
        "deltaplane-bench/version": str(version),
    }
    return {
        "metadata": {
            "labels": labels,
            "annotations": {"prometheus.io/scrape": "true", "checksum/config": f"{number:064x}"},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": app,
                    "uid": f"{number:036x}",
                }
            ],
            "managedFields": _managed_fields(labels),
        },
        "spec": _pod_spec(app, f"node-{number % nodes}"),
        "status": _pod_status(number),
    }


def _managed_fields(labels: Object) -> list[Object]:
    fields: Object = {f"f:{name}": {".": {}} for name in labels}
    containers: Object = {
        f"f:{name}": {} for name in ("image", "name", "resources", "ports", "env")
    }
    return [
        {
            "manager": manager,
            "operation": "Update",
            "apiVersion": "v1",
            "time": "2026-11-27T02:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": fields}, "f:spec": {"k:main": containers}},
        }
        for manager in ("kube-controller-manager", "kubelet")
    ]


def _pod_spec(app: str, node_name: str) -> Object:
    probe = {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10}
    mount = {
        "name": "kube-api-access",
        "mountPath": "/var/run/secrets/kubernetes.io",
        "readOnly": True,
    }
    containers = [
        {
            "name": name,
            "image": f"registry.example.com/{app}/{name}@sha256:{0:064x}",
            "ports": [{"name": port, "containerPort": number, "protocol": "TCP"}],
            "env": [{"name": f"SETTING_{it}", "value": f"value-{it}"} for it in range(8)],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}},
            "livenessProbe": probe,
            "readinessProbe": probe,
            "volumeMounts": [mount],
            "terminationMessagePath": "/dev/termination-log",
        }
        for name, port, number in (("main", "http", 8080), ("sidecar", "metrics", 9090))
    ]
    return {
        "nodeName": node_name,
        "containers": containers,
        "serviceAccountName": app,
        "tolerations": [
            {"key": f"node.kubernetes.io/{it}", "operator": "Exists", "effect": "NoExecute"}
            for it in ("not-ready", "unreachable")
        ],
        "volumes": [
            {"name": "kube-api-access", "projected": {"sources": [{"serviceAccountToken": {}}]}}
        ],
    }


def _pod_status(number: int) -> Object:
    address = f"10.{64 + number // 65536}.{number // 256 % 256}.{number % 256}"
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [
            {"type": it, "status": "True", "lastTransitionTime": "2026-11-27T02:00:00Z"}
            for it in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ],
        "containerStatuses": [
            {"name": it, "ready": True, "containerID": f"containerd://{number:064x}"}
            for it in ("main", "sidecar")
        ],
    }


def endpoint_slice(number: int, nodes: int, *, ready: bool = True) -> Object:
    """The fields of an EndpointSlice besides its name and namespace. ready: of its first one."""
    endpoints = [
        {
            "addresses": [f"10.64.{number % 256}.{it + 1}"],
            "conditions": {"ready": ready or it > 0, "serving": True, "terminating": False},
            "nodeName": f"node-{it % nodes}",
            "targetRef": {
                "kind": "Pod",
                "namespace": "team-0",
                "name": f"pod-{it}",
                "uid": f"{it:036x}",
            },
            "zone": "zone-a",
        }
        for it in range(ENDPOINTS_PER_SLICE)
    ]
    return {
        "metadata": {"labels": {"kubernetes.io/service-name": f"service-{number}"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    }


def namespace_of(number: int) -> str:
    """Of a pod."""
    return f"team-{number // PODS_PER_NAMESPACE}"
