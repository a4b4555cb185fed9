"""Pods → pod records. Pure."""

from deltaplane.model.ports import NamedPort, Protocol
from deltaplane.model.records import PodRecord, ordered, own
from services.kubernetes import kinds
from services.kubernetes.translating import NOTHING, Mode, Translation, annotation_problem

MIRROR = "kubernetes.io/config.mirror"
"""Annotation of a pod that only shows what a kubelet runs from a file."""
STATIC_UID = "kubernetes.io/config.hash"
"""Annotation with the UID that this kubelet knows the pod by, and the CNI is given."""

GATE = "deltaplane.dev/network-ready"
"""Condition type of the readiness gate: the pod's endpoint is known wherever it must be."""

_ENDED = ("Succeeded", "Failed")
_PROTOCOLS = {"TCP": Protocol.TCP, "UDP": Protocol.UDP, "SCTP": Protocol.SCTP}


def translate_pod(pod: kinds.Pod) -> Translation:
    """A pod that has, or will have, an address of ours."""
    spec, metadata = pod.spec, pod.metadata
    # A pod that has ended lost its address and never gets one again, though the object stays.
    if not spec.node_name or spec.host_network or (pod.status and pod.status.phase in _ENDED):
        return NOTHING
    annotations = own(metadata.annotations.items())
    problem = annotation_problem(annotations)
    return Translation(
        # Its labels go on; but who asks for an address that is none does not start with another.
        mode=Mode.IF_PRESENT if problem else Mode.ALWAYS,
        problem=problem,
        record=PodRecord(
            namespace=metadata.namespace,
            name=metadata.name,
            uid=_uid(metadata),
            node=spec.node_name,
            labels=metadata.labels,
            annotations={} if problem else annotations,
            named_ports=_named_ports(spec),
        ),
    )


def is_gated(pod: kinds.Pod) -> bool:
    """Whether the pod waits for our condition before it counts as ready."""
    gates = pod.spec.readiness_gates
    return bool(gates) and any(gate.condition_type == GATE for gate in gates or ())


def _uid(metadata: kinds.Metadata) -> str:
    annotations = metadata.annotations
    if MIRROR in annotations:
        return annotations.get(STATIC_UID) or metadata.uid
    return metadata.uid


def _named_ports(spec: kinds.PodSpec) -> tuple[NamedPort, ...]:
    containers = spec.containers or []
    if spec.init_containers:
        # An init container serves only if it stays, as a sidecar.
        stays = (item for item in spec.init_containers if item.restart_policy == "Always")
        containers = [*containers, *stays]
    named = [
        NamedPort(port.name, _PROTOCOLS.get(port.protocol, Protocol.TCP), port.container_port)
        for container in containers
        for port in container.ports or ()
        if port.name
    ]
    return ordered(named) if named else ()
