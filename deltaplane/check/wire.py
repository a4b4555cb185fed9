"""Records of etcd and answers of agents as facts."""

from collections.abc import Iterable, Mapping

from deltaplane.check.facts import (
    Block,
    Endpoint,
    Freed,
    Interface,
    Link,
    Node,
    NodeView,
    OwnBlock,
    Owner,
    Pointer,
    Pool,
    Programmed,
    Route,
    Service,
    State,
    Stored,
)
from deltaplane.model.addresses import Prefix
from deltaplane.store import keys
from deltaplane.store.pointers import PREFIXES, freed_prefix, pointers
from deltaplane.v1 import audit_pb2, common_pb2, ipam_pb2, registry_pb2


def stored_from_records(
    records: Iterable[audit_pb2.StoredRecord], revision: int, counted: Mapping[str, int]
) -> Stored:
    """Everything about addresses in etcd, of all pages of one listing."""
    nodes: dict[str, Node] = {}
    pools: dict[str, Pool] = {}
    blocks: dict[str, Block] = {}
    endpoints: dict[str, Endpoint] = {}
    services: dict[str, Service] = {}
    pointing: dict[str, Pointer] = {}
    freed: list[Freed] = []
    for record in records:
        key = record.key
        if key.startswith(keys.NODES):
            node = _node(registry_pb2.Node.FromString(record.value))
            nodes[node.name] = node
        elif key.startswith(keys.POOLS):
            pool = ipam_pb2.Pool.FromString(record.value)
            pools[pool.name] = Pool(
                name=pool.name, prefix=_prefix(pool.prefix), block_length=pool.block_length
            )
        elif key.startswith(keys.BLOCKS):
            blocks[key] = _block(record)
        elif key.startswith(keys.ENDPOINTS):
            endpoints[key] = _endpoint(record)
        elif key.startswith(keys.SERVICES):
            services[key] = Service(key=key, pointers=pointers(key, record.value))
        elif key.startswith(PREFIXES):
            target = record.value.decode("utf-8", "replace")
            pointing[key] = Pointer(key=key, target=target, revision=record.meta.mod_revision)
        elif key.startswith(keys.FREED_BLOCKS):
            freed.append(
                Freed(key=key, prefix=freed_prefix(key), revision=record.meta.mod_revision)
            )
    return Stored(
        revision=revision,
        nodes=nodes,
        pools=pools,
        blocks=blocks,
        endpoints=endpoints,
        services=services,
        pointers=pointing,
        freed=tuple(freed),
        counted=counted,
    )


def view_from_proto(answer: audit_pb2.ListAddressesResponse) -> NodeView:
    """What a node's agent says."""
    return NodeView(
        name=answer.node,
        uid=answer.node_uid,
        index=answer.node_index,
        applied=answer.applied_revision,
        blocks=tuple(
            OwnBlock(prefix=_prefix(item.prefix), fixed=item.fixed, releasing=item.releasing)
            for item in answer.blocks
        ),
        interfaces={item.id: _interface(item) for item in answer.interfaces},
        released={item.address: item.revision for item in answer.released},
        links=tuple(
            Link(name=item.name, ifindex=item.ifindex, number=item.id) for item in answer.links
        ),
        routes=tuple(
            Route(prefix=_prefix(item.prefix), ifindex=item.ifindex, unreachable=item.unreachable)
            for item in answer.routes
        ),
        programmed=tuple(
            Programmed(
                ifindex=item.ifindex,
                number=item.id,
                identity=item.identity,
                addresses=_addresses(item.addresses),
            )
            for item in answer.endpoints
        ),
        mappings={item.address: (item.identity, item.node_index) for item in answer.mappings},
    )


def _node(message: registry_pb2.Node) -> Node:
    families = {
        family
        for family, address in ((4, message.addresses.ipv4), (6, message.addresses.ipv6))
        if address
    }
    return Node(
        name=message.name, uid=message.uid, index=message.index, families=frozenset(families)
    )


def _block(record: audit_pb2.StoredRecord) -> Block:
    message = ipam_pb2.Block.FromString(record.value)
    return Block(
        key=record.key,
        prefix=_prefix(message.prefix),
        pool=message.pool,
        node=message.node,
        node_uid=message.node_uid,
        node_index=message.node_index,
        pointers=pointers(record.key, record.value),
        fixed=message.fixed,
        revision=record.meta.mod_revision,
    )


def _endpoint(record: audit_pb2.StoredRecord) -> Endpoint:
    message = registry_pb2.Endpoint.FromString(record.value)
    return Endpoint(
        key=record.key,
        namespace=message.namespace,
        pod=message.pod,
        node=message.node,
        node_index=message.node_index,
        number=message.id,
        owner=_owner(message.owner),
        addresses=_addresses(message.addresses),
        identity=message.identity,
        waiting=message.state == registry_pb2.Endpoint.STATE_WAITING_FOR_POD,
        pointers=pointers(record.key, record.value),
        incarnation=record.meta.create_revision,
        revision=record.meta.mod_revision,
    )


def _interface(message: audit_pb2.JournalInterface) -> Interface:
    return Interface(
        number=message.id,
        state=State(message.state),
        owner=_owner(message.owner),
        namespace=message.namespace,
        pod=message.pod,
        addresses=_addresses(message.addresses),
    )


def _owner(message: registry_pb2.OwnerToken) -> Owner:
    return message.network, message.container_id, message.interface, message.attempt


def _addresses(message: common_pb2.AddressPair) -> tuple[bytes, ...]:
    return tuple(address for address in (message.ipv4, message.ipv6) if address)


def _prefix(message: common_pb2.Prefix) -> Prefix:
    return Prefix(message.address, message.length)
