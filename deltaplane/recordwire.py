"""What an object of Kubernetes becomes in the registry: values → messages of deltaplane.v1.

Used by everybody who writes the registry from such objects: the bridge, `lab apply` and
`deltaplane policy apply`. The registry checks what it is sent; these only convert.
"""

from deltaplane import policywire, servicewire, wire
from deltaplane.manifest.objects import FamilyPolicy, GeneralPolicyManifest, ServiceManifest
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.records import NamespaceRecord, PodRecord
from deltaplane.v1 import policy_pb2, registry_pb2, service_pb2

_FAMILIES = {
    FamilyPolicy.ABSENT: service_pb2.FAMILY_POLICY_UNSPECIFIED,
    FamilyPolicy.SINGLE_STACK: service_pb2.FAMILY_POLICY_SINGLE_STACK,
    FamilyPolicy.PREFER_DUAL_STACK: service_pb2.FAMILY_POLICY_PREFER_DUAL_STACK,
    FamilyPolicy.REQUIRE_DUAL_STACK: service_pb2.FAMILY_POLICY_REQUIRE_DUAL_STACK,
}


def namespace_to_proto(record: NamespaceRecord) -> registry_pb2.Namespace:
    """Message of a namespace, without meta."""
    return registry_pb2.Namespace(
        name=record.name, labels=record.labels, annotations=record.annotations
    )


def pod_to_proto(record: PodRecord) -> registry_pb2.Pod:
    """Message of a pod, without meta."""
    return registry_pb2.Pod(
        namespace=record.namespace,
        name=record.name,
        uid=record.uid,
        node=record.node,
        labels=record.labels,
        annotations=record.annotations,
        named_ports=map(wire.named_port_to_proto, record.named_ports),
    )


def service_to_proto(item: ServiceManifest) -> service_pb2.Service:
    """Message of a service as it is asked for: what is to be chosen is left open."""
    message = servicewire.service_to_proto(item.service)
    message.headless = item.headless
    message.families.extend(item.families)
    message.family_policy = _FAMILIES[item.family_policy]
    return message


def policy_to_proto(
    item: NetworkPolicy | GeneralPolicyManifest,
) -> policy_pb2.NetworkPolicy | policy_pb2.Policy:
    """Message of a policy of any kind, without traceparent and meta."""
    if isinstance(item, GeneralPolicyManifest):
        return policywire.policy_to_proto(item.policy, item.spec)
    return wire.network_policy_to_proto(item)
