"""Records in etcd: the messages of the API, without meta, which etcd knows better.

Records are written by this service after checks, so reading them checks nothing again but what the
values do.
"""

from typing import TypeVar

from deltaplane.model.addresses import AddressPair, Prefix
from deltaplane.model.ports import NamedPort, Protocol
from deltaplane.store.port import KeyValue
from deltaplane.v1 import common_pb2, ipam_pb2, policy_pb2, registry_pb2, service_pb2
from deltaplane.wire import address_pair_to_proto
from services.endpoints.blocks import PoolRange
from services.endpoints.records import Endpoint, Node, Owner, Pod, Request, State
from services.endpoints.registration import BlockOwner

Record = TypeVar(
    "Record",
    registry_pb2.Node,
    registry_pb2.Fence,
    registry_pb2.Namespace,
    registry_pb2.Pod,
    registry_pb2.Endpoint,
    registry_pb2.Identity,
    policy_pb2.NetworkPolicy,
    policy_pb2.Policy,
    service_pb2.Service,
    service_pb2.EndpointSlice,
)


def encode(
    message: registry_pb2.Node
    | registry_pb2.Fence
    | registry_pb2.Namespace
    | registry_pb2.Pod
    | registry_pb2.Endpoint
    | registry_pb2.Identity
    | policy_pb2.NetworkPolicy
    | policy_pb2.Policy
    | service_pb2.Service
    | service_pb2.EndpointSlice,
) -> bytes:
    """Equal records have equal bytes: maps are written in key order."""
    return message.SerializeToString(deterministic=True)


def with_meta(kind: type[Record], stored: KeyValue) -> Record:
    """Reads a record as clients see it."""
    message = kind.FromString(stored.value)
    message.meta.CopyFrom(
        common_pb2.ObjectMeta(
            create_revision=stored.create_revision, mod_revision=stored.mod_revision
        )
    )
    return message


def written(key: str, value: bytes, revision: int, before: KeyValue | None = None) -> KeyValue:
    """What a key is after the transaction of this revision wrote it."""
    created = revision if before is None else before.create_revision
    return KeyValue(key=key, value=value, create_revision=created, mod_revision=revision)


def node_from_record(stored: KeyValue) -> Node:
    """Reads a node."""
    message = registry_pb2.Node.FromString(stored.value)
    return Node(
        name=message.name,
        uid=message.uid,
        addresses=_addresses(message.addresses),
        boot_id=message.boot_id,
        index=message.index,
    )


def node_to_record(node: Node) -> bytes:
    """Writes a node."""
    return encode(
        registry_pb2.Node(
            name=node.name,
            uid=node.uid,
            index=node.index,
            addresses=address_pair_to_proto(node.addresses),
            boot_id=node.boot_id,
        )
    )


def joining_fence(node: Node) -> bytes:
    """The fence that a node's first registration comes with."""
    return encode(
        registry_pb2.Fence(
            node=node.name,
            node_index=node.index,
            node_uid=node.uid,
            reason=registry_pb2.Fence.REASON_JOINING,
        )
    )


def fence_from_record(stored: KeyValue) -> registry_pb2.Fence:
    """Reads a fence."""
    return registry_pb2.Fence.FromString(stored.value)


def pod_from_record(stored: KeyValue) -> Pod:
    """Reads a pod."""
    message = registry_pb2.Pod.FromString(stored.value)
    return Pod(
        namespace=message.namespace,
        name=message.name,
        uid=message.uid,
        node=message.node,
        labels=tuple(sorted(message.labels.items())),
        annotations=tuple(sorted(message.annotations.items())),
        named_ports=tuple(
            NamedPort(port.name, Protocol(port.protocol), port.number)
            for port in message.named_ports
        ),
    )


def namespace_labels(stored: KeyValue | None) -> dict[str, str]:
    """The labels of a namespace; none when it has no record."""
    if stored is None:
        return {}
    return dict(registry_pb2.Namespace.FromString(stored.value).labels)


def namespace_annotations(stored: KeyValue | None) -> dict[str, str]:
    """The annotations of a namespace; none when it has no record."""
    if stored is None:
        return {}
    return dict(registry_pb2.Namespace.FromString(stored.value).annotations)


def endpoint_from_record(stored: KeyValue) -> Endpoint:
    """Reads an endpoint; the node's UID is not part of the record."""
    message = registry_pb2.Endpoint.FromString(stored.value)
    owner = message.owner
    return Endpoint(
        request=Request(
            node=message.node,
            node_uid="",
            id=message.id,
            namespace=message.namespace,
            pod=message.pod,
            pod_uid=message.pod_uid,
            owner=Owner(
                network=owner.network,
                container_id=owner.container_id,
                interface=owner.interface,
                attempt=owner.attempt,
            ),
            addresses=_addresses(message.addresses),
            traceparent=message.traceparent,
        ),
        node_index=message.node_index,
        identity=message.identity,
        state=State(message.state),
    )


def node_of_endpoint(stored: KeyValue) -> tuple[str, int]:
    """Reads of an endpoint only the name and the index of its node."""
    message = registry_pb2.Endpoint.FromString(stored.value)
    return message.node, message.node_index


def endpoint_to_record(endpoint: Endpoint) -> bytes:
    """Writes an endpoint."""
    request = endpoint.request
    owner = request.owner
    return encode(
        registry_pb2.Endpoint(
            node=request.node,
            node_index=endpoint.node_index,
            id=request.id,
            namespace=request.namespace,
            pod=request.pod,
            pod_uid=request.pod_uid,
            owner=registry_pb2.OwnerToken(
                network=owner.network,
                container_id=owner.container_id,
                interface=owner.interface,
                attempt=owner.attempt,
            ),
            addresses=address_pair_to_proto(request.addresses),
            identity=endpoint.identity,
            state=registry_pb2.Endpoint.State.ValueType(endpoint.state),
            traceparent=request.traceparent,
        )
    )


def pool_range(stored: KeyValue) -> PoolRange:
    """Reads a pool of ipam, as far as it says in which block an address lies."""
    message = ipam_pb2.Pool.FromString(stored.value)
    prefix = Prefix(message.prefix.address, message.prefix.length)
    return PoolRange(prefix, message.block_length, message.name)


def block_owner(stored: KeyValue) -> BlockOwner:
    """Reads of a block whose it is."""
    block = block_from_record(stored)
    return BlockOwner(
        node_index=block.node_index,
        node=block.node,
        pool=block.pool,
        is_single=block.prefix.length == len(block.prefix.address) * 8,
    )


def block_from_record(stored: KeyValue) -> ipam_pb2.Block:
    """Reads a block of ipam."""
    return ipam_pb2.Block.FromString(stored.value)


def _addresses(message: common_pb2.AddressPair) -> AddressPair:
    return AddressPair(ipv4=message.ipv4 or None, ipv6=message.ipv6 or None)
