"""Records ↔ the bytes that ledgers compare ↔ calls of the registry.

The bytes of a record are its message with maps in key order and without what only the registry
knows; equal records have equal bytes.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar, assert_never

from deltaplane import recordwire, servicewire
from deltaplane.errors import Internal
from deltaplane.manifest import GeneralPolicyManifest, ServiceManifest
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.records import NamespaceRecord, PodRecord
from deltaplane.model.service import EndpointSlice
from deltaplane.v1 import policy_pb2, registry_pb2, service_pb2
from services.kubernetes.kinds import Kind
from services.kubernetes.ledger import Key
from services.kubernetes.translating import Record

Message = (
    registry_pb2.Namespace
    | registry_pb2.Pod
    | service_pb2.Service
    | service_pb2.EndpointSlice
    | policy_pb2.NetworkPolicy
    | policy_pb2.Policy
)
M = TypeVar(
    "M",
    registry_pb2.Namespace,
    registry_pb2.Pod,
    service_pb2.Service,
    service_pb2.EndpointSlice,
    policy_pb2.NetworkPolicy,
    policy_pb2.Policy,
)


def encode(record: Record) -> bytes:
    """The bytes of a record."""
    match record:
        case PodRecord():
            return _bytes(recordwire.pod_to_proto(record))
        case NamespaceRecord():
            return _bytes(recordwire.namespace_to_proto(record))
        case EndpointSlice():
            return _bytes(servicewire.slice_to_proto(record))
        case ServiceManifest():
            message = recordwire.service_to_proto(record)
            if message.families:
                # The API server has decided already; the policy says only how it did.
                message.ClearField("family_policy")
            return _bytes(message)
        case NetworkPolicy() | GeneralPolicyManifest():
            return _bytes(recordwire.policy_to_proto(record))
        case _:
            assert_never(record)


def stored(message: Message) -> tuple[Key, bytes]:
    """Key and bytes of what the registry holds."""
    name = message.name
    if not isinstance(message, registry_pb2.Namespace) and message.namespace:
        name = f"{message.namespace}/{message.name}"
    message.ClearField("meta")
    if isinstance(message, service_pb2.Service):
        message.ClearField("number")
    if not isinstance(message, registry_pb2.Namespace | registry_pb2.Pod):
        message.ClearField("traceparent")
    return name, _bytes(message)


def same_policy(wanted: bytes, stored: bytes) -> bool:
    """Whether two policies mean the same; listings lack how policies were written."""
    if wanted == stored:
        return True
    message = policy_pb2.Policy.FromString(wanted)
    message.ClearField("manifest")
    return _bytes(message) == stored


def decode(kind: type[M], values: Iterable[tuple[Key, bytes]]) -> list[M]:
    """The messages of a batch."""
    return [kind.FromString(value) for _, value in values]


def references(keys: Sequence[Key]) -> list[tuple[str, str]]:
    """Namespaces and names of keys.

    Raises:
        Internal: a key is none of a kind that lives in namespaces.
    """
    pairs = [tuple(key.split("/")) for key in keys]
    found = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
    if len(found) != len(keys):
        raise Internal(f"keys without a namespace among {keys[:3]}")
    return found


def policy_references(kind: Kind, keys: Sequence[Key]) -> list[registry_pb2.PolicyRef]:
    """How the registry is told which policies of a kind go."""
    if not kind.resource.namespaced:
        return [registry_pb2.PolicyRef(kind=kind.word, name=key) for key in keys]
    return [
        registry_pb2.PolicyRef(kind=kind.word, namespace=namespace, name=name)
        for namespace, name in references(keys)
    ]


def _bytes(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)
