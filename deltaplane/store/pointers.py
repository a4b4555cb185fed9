"""Which keys point to a record: the indexes beside it, written and deleted with it.

A pointer is right while the record that it names exists and is one that it should point to.
"""

from deltaplane.model.addresses import Prefix
from deltaplane.store import keys
from deltaplane.v1 import ipam_pb2, registry_pb2, service_pb2

PREFIXES = (
    keys.NODE_ENDPOINTS,
    keys.ADDRESSES,
    keys.BLOCK_REQUESTS,
    keys.FIXED_ADDRESSES,
    keys.CLUSTER_IPS,
    keys.NODE_PORTS,
)
"""Where pointers lie. Their values are keys of records."""


def pointers(key: str, value: bytes) -> frozenset[str]:
    """The keys that have to name a record; none for records that nothing points to."""
    if key.startswith(keys.ENDPOINTS):
        endpoint = registry_pb2.Endpoint.FromString(value)
        found = {keys.node_endpoint(endpoint.node, endpoint.id)}
        for address in (endpoint.addresses.ipv4, endpoint.addresses.ipv6):
            if address:
                found.add(keys.address(address))
        return frozenset(found)
    if key.startswith(keys.BLOCKS):
        block = ipam_pb2.Block.FromString(value)
        found = set()
        if block.request_id:
            found.add(keys.block_request(block.node_uid, block.request_id))
        if block.fixed:
            found.add(keys.fixed_address(block.prefix.address))
        return frozenset(found)
    if key.startswith(keys.SERVICES):
        service = service_pb2.Service.FromString(value)
        ports = {port.node_port for port in service.ports} | {service.health_check_node_port}
        found = {keys.node_port(number) for number in ports if number}
        return frozenset(found.union(map(keys.cluster_ip, service.cluster_ips)))
    return frozenset()


def freed_prefix(key: str) -> Prefix | None:
    """The block that a key below FREED_BLOCKS is about; None when it names none."""
    try:
        return Prefix.parse("/".join(key.removeprefix(keys.FREED_BLOCKS).rsplit("-", 1)))
    except ValueError:
        return None
