"""Lab objects as the registry's records. Pure."""

from collections.abc import Iterable

from deltaplane.manifest.objects import NamespaceManifest, Pairs
from deltaplane.v1 import common_pb2, registry_pb2
from lab.pods import Pod

OWN_ANNOTATIONS = "deltaplane.dev/"
"""The registry keeps only these."""


def namespace_record(namespace: NamespaceManifest) -> registry_pb2.Namespace:
    """The record of a namespace."""
    return registry_pb2.Namespace(
        name=namespace.name,
        labels=dict(namespace.labels),
        annotations=_own(namespace.annotations),
    )


def pod_record(pod: Pod) -> registry_pb2.Pod:
    """The record of a pod."""
    return registry_pb2.Pod(
        namespace=pod.namespace,
        name=pod.name,
        uid=pod.uid,
        node=pod.node,
        labels=dict(pod.labels),
        annotations=_own(pod.annotations.items()),
        named_ports=[
            common_pb2.NamedPort(
                name=port.name,
                protocol=common_pb2.Protocol.Value(f"PROTOCOL_{port.protocol}"),
                number=port.number,
            )
            for port in sorted(set(pod.ports))
            if port.name
        ],
    )


def _own(annotations: Iterable[tuple[str, str]] | Pairs) -> dict[str, str]:
    return {key: value for key, value in annotations if key.startswith(OWN_ANNOTATIONS)}


def pod_reference(pod: Pod) -> registry_pb2.PodRef:
    """The name of a pod."""
    return registry_pb2.PodRef(namespace=pod.namespace, name=pod.name)
