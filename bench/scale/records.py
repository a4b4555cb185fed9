"""The simulated cluster as it is stored: the operations by which the services would write it."""

from collections.abc import Iterable, Iterator

from google.protobuf.message import Message

from bench.scale.world import BLOCK_LENGTH, Deployment, Pod, World, policies
from deltaplane.model.addresses import Prefix
from deltaplane.store import keys
from deltaplane.store.port import Delete, Operation, Put
from deltaplane.v1 import common_pb2, ipam_pb2, registry_pb2
from deltaplane.wire import identity_to_proto, network_policy_to_proto, prefix_to_proto
from services.endpoints.identity import digest

IPV4 = Prefix(bytes((10, 0, 0, 0)), 8)
IPV6 = Prefix(bytes.fromhex("fd000010") + bytes(12), 64)
NODES_IPV4 = int.from_bytes(bytes((198, 18, 0, 0)))
NODES_IPV6 = int.from_bytes(bytes.fromhex("fd000020") + bytes(12))

OPERATIONS = 4
"""Of one endpoint: the record, the node's number for it, and a key for each address."""


def node_name(index: int) -> str:
    """Name of a node."""
    return f"node-{index}"


def node_uid(index: int) -> str:
    """UID of a node."""
    return f"uid-node-{index}"


def addresses(node: int, slot: int) -> common_pb2.AddressPair:
    """The addresses of a slot of a node's blocks."""
    size = 32 - BLOCK_LENGTH
    offset = (node << size) + slot
    return common_pb2.AddressPair(
        ipv4=(int.from_bytes(IPV4.address) + offset).to_bytes(4),
        ipv6=(int.from_bytes(IPV6.address) + offset).to_bytes(16),
    )


def endpoint(world: World, pod: Pod) -> registry_pb2.Endpoint:
    """The record of a pod's endpoint, as the registry writes it."""
    one = world.deployments[pod.deployment]
    # Sizes as of the real ones: a container id has 64 digits, a UID 36 characters.
    digits = f"{pod.key:064x}"
    return registry_pb2.Endpoint(
        node=node_name(pod.node),
        node_index=pod.node,
        id=pod.id,
        namespace=one.namespace,
        pod=pod.name,
        pod_uid=pod_uid(pod),
        owner=registry_pb2.OwnerToken(
            network="deltaplane", container_id=digits, interface="eth0", attempt=digits[-16:]
        ),
        addresses=addresses(pod.node, pod.slot),
        identity=one.identity.id,
        state=registry_pb2.Endpoint.STATE_READY,
    )


def pod_uid(pod: Pod) -> str:
    """UID of a pod."""
    digits = f"{pod.key:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def pod_record(world: World, pod: Pod) -> registry_pb2.Pod:
    """What Kubernetes says of a pod before its CNI ADD."""
    one = world.deployments[pod.deployment]
    return registry_pb2.Pod(
        namespace=one.namespace,
        name=pod.name,
        uid=pod_uid(pod),
        node=node_name(pod.node),
        labels={"app": one.name, "pod-template-hash": "7d4f9c6b58"},
    )


def pod_operation(world: World, pod: Pod) -> Put:
    """Writes a pod record."""
    record = pod_record(world, pod)
    return _put(keys.pod(record.namespace, record.name), record)


def endpoint_keys(world: World, pod: Pod) -> tuple[str, str, str, str]:
    """The keys of an endpoint; the first is that of its record."""
    one = world.deployments[pod.deployment]
    node = node_name(pod.node)
    pair = addresses(pod.node, pod.slot)
    return (
        keys.endpoint(one.namespace, pod.name, node, pod.id),
        keys.node_endpoint(node, pod.id),
        keys.address(pair.ipv4),
        keys.address(pair.ipv6),
    )


def create(world: World, pod: Pod) -> list[Operation]:
    """Writes an endpoint."""
    record, *others = endpoint_keys(world, pod)
    value = endpoint(world, pod).SerializeToString(deterministic=True)
    return [Put(record, value), *(Put(other, record.encode()) for other in others)]


def delete(world: World, pod: Pod) -> list[Operation]:
    """Deletes an endpoint."""
    return [Delete(key) for key in endpoint_keys(world, pod)]


def foundation(world: World) -> Iterator[Operation]:
    """Everything but the endpoints: pools, nodes, blocks, namespaces, identities, policies."""
    lengths = {"ipv4": BLOCK_LENGTH, "ipv6": BLOCK_LENGTH + 96}
    for name, prefix in (("ipv4", IPV4), ("ipv6", IPV6)):
        yield _put(
            keys.pool(name),
            ipam_pb2.Pool(name=name, prefix=prefix_to_proto(prefix), block_length=lengths[name]),
        )
    for index in range(1, world.shape.nodes + 1):
        yield from _node(index, lengths)
    for namespace in sorted({one.namespace for one in world.deployments}):
        yield _put(keys.namespace(namespace), registry_pb2.Namespace(name=namespace))
    yield from _identities(world.deployments)
    for policy in policies(world.deployments):
        record = network_policy_to_proto(policy)
        yield _put(keys.policy(policy.namespace, policy.name), record)


def _node(index: int, lengths: dict[str, int]) -> Iterator[Operation]:
    node = registry_pb2.Node(
        name=node_name(index),
        uid=node_uid(index),
        index=index,
        addresses=common_pb2.AddressPair(
            ipv4=(NODES_IPV4 + index).to_bytes(4), ipv6=(NODES_IPV6 + index).to_bytes(16)
        ),
    )
    yield _put(keys.node(node.name), node)
    first = addresses(index, 0)
    for pool, address in (("ipv4", first.ipv4), ("ipv6", first.ipv6)):
        prefix = Prefix(address, lengths[pool])
        block = ipam_pb2.Block(
            prefix=prefix_to_proto(prefix),
            pool=pool,
            node=node.name,
            node_uid=node.uid,
            node_index=index,
            request_id=f"block-{index}",
        )
        yield _put(keys.block(prefix), block)


def _identities(all_deployments: Iterable[Deployment]) -> Iterator[Operation]:
    highest = 0
    for one in all_deployments:
        identity = one.identity
        highest = max(highest, identity.id)
        yield _put(keys.identity(identity.id), identity_to_proto(identity))
        yield Put(keys.label_set(digest(identity.label_set)), str(identity.id).encode())
    yield Put(keys.IDENTITY_COUNTER, str(highest).encode())


def _put(key: str, message: Message) -> Put:
    return Put(key, message.SerializeToString(deterministic=True))
