"""Lab objects as the registry's records. Pure."""

from deltaplane import recordwire
from deltaplane.manifest.objects import NamespaceManifest
from deltaplane.model.ports import NamedPort, Protocol
from deltaplane.model.records import NamespaceRecord, PodRecord, ordered, own
from deltaplane.v1 import registry_pb2
from lab.pods import Pod


def namespace_record(namespace: NamespaceManifest) -> registry_pb2.Namespace:
    """The record of a namespace."""
    record = NamespaceRecord(
        name=namespace.name, labels=dict(namespace.labels), annotations=own(namespace.annotations)
    )
    return recordwire.namespace_to_proto(record)


def pod_record(pod: Pod) -> registry_pb2.Pod:
    """The record of a pod."""
    named = (
        NamedPort(port.name, Protocol[port.protocol], port.number)
        for port in pod.ports
        if port.name
    )
    record = PodRecord(
        namespace=pod.namespace,
        name=pod.name,
        uid=pod.uid,
        node=pod.node,
        labels=pod.labels,
        annotations=own(pod.annotations.items()),
        named_ports=ordered(named),
    )
    return recordwire.pod_to_proto(record)


def pod_reference(pod: Pod) -> registry_pb2.PodRef:
    """The name of a pod."""
    return registry_pb2.PodRef(namespace=pod.namespace, name=pod.name)
