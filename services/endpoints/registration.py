"""Whether an endpoint may be registered: the rules, on values read at one revision.

The transaction that follows compares everything that was read here, so a verdict holds when it is
written.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from deltaplane.errors import Conflict, Refused, Unavailable
from deltaplane.model.addresses import Prefix, format_address
from deltaplane.model.identity import LabelSet
from services.endpoints.identity import LabelFilter
from services.endpoints.joining import join
from services.endpoints.records import Endpoint, Node, Pod, Request

MAX_TOGETHER = 25
"""Endpoints of one transaction: four writes each, of 100."""
MAX_COMPARES = 100


@dataclass(frozen=True, slots=True)
class PoolRange:
    """A pool, as far as it says in which block an address lies."""

    prefix: Prefix
    block_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is stored about some requests.

    Attributes:
        nodes: by name.
        block_owners: index of the node that owns the block of an address; no entry: nobody does.
        holders: what holds an address, in words; no entry: nothing does.
        names: what has the (node, id), in words, where that is not the endpoint of the same pod.
        endpoints: by (node, id), of the same pod.
        pods: by (namespace, name).
        namespace_labels: by namespace.
    """

    nodes: Mapping[str, Node]
    block_owners: Mapping[bytes, int]
    holders: Mapping[bytes, str]
    names: Mapping[tuple[str, int], str]
    endpoints: Mapping[tuple[str, int], Endpoint]
    pods: Mapping[tuple[str, str], Pod]
    namespace_labels: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A new endpoint. label_set None: it waits for its pod record."""

    node_index: int
    label_set: LabelSet | None


def block_of(address: bytes, pools: Iterable[PoolRange]) -> Prefix | None:
    """The block in which an address lies; None when it is in no pool."""
    for pool in pools:
        if pool.prefix.contains(address):
            size = 1 << (len(address) * 8 - pool.block_length)
            start = int.from_bytes(address) // size * size
            return Prefix(start.to_bytes(len(address)), pool.block_length)
    return None


def leading(requests: Iterable[Request], pools: Sequence[PoolRange]) -> int:
    """How many of the first requests fit into one transaction; 1 or more, if there is a request.

    They do not touch each other's (node, id) or addresses, so that each can be judged by what is
    stored.
    """
    owned: set[object] = set()
    shared: set[object] = set()
    count = 0
    for request in requests:
        own = {(request.node, request.id), *request.addresses}
        # An address of a pool that is not known yet may lie in a block of its own.
        blocks = (block_of(address, pools) or address for address in request.addresses)
        needed = shared | {
            request.node,
            (request.namespace,),
            (request.namespace, request.pod),
            *blocks,
        }
        # One compare for each thing that is read, and one for the label set of each endpoint.
        compares = len(owned) + len(own) + len(needed) + count + 1
        if count and (count == MAX_TOGETHER or compares > MAX_COMPARES or own & owned):
            break
        owned |= own
        shared = needed
        count += 1
    return count


def registered(nodes: Mapping[str, Node], name: str, uid: str) -> Node:
    """The node with this name and UID.

    Raises:
        Refused: it is not registered, or with another UID.
    """
    node = nodes.get(name)
    if node is None:
        raise Refused(f"node {name} is not registered")
    if node.uid != uid:
        raise Refused(f"node {name} is registered with UID {node.uid}, not {uid}")
    return node


def judge(request: Request, known: Known, labels: LabelFilter) -> Accepted | Endpoint:
    """The endpoint that is to be written, or the stored one that this request asked for before.

    Raises:
        Refused: the node is not registered so, an address is in no block of it, or the pod record
            is not that of this pod.
        Conflict: the number or an address is taken.
        Unavailable: endpoints of the node's former registration are still being removed.
    """
    node = registered(known.nodes, request.node, request.node_uid)
    name = (request.node, request.id)
    if other := known.names.get(name):
        raise Conflict(f"endpoint {request.id} of node {request.node} is {other}")
    stored = known.endpoints.get(name)
    if stored is not None:
        _check_same(request, stored, node)
        return stored
    for address in request.addresses:
        if holder := known.holders.get(address):
            raise Conflict(f"address {format_address(address)} is held by {holder}")
        if known.block_owners.get(address) != node.index:
            raise Refused(
                f"address {format_address(address)} lies in no block of node {request.node}"
            )
    pod = known.pods.get((request.namespace, request.pod))
    namespace_labels = known.namespace_labels.get(request.namespace, {})
    return Accepted(node.index, join(request, pod, namespace_labels, labels))


def _check_same(request: Request, stored: Endpoint, node: Node) -> None:
    name = f"endpoint {request.id} of node {request.node}"
    if stored.node_index != node.index:
        raise Unavailable(f"{name} of the node's former registration is being removed; try again")
    if stored.request.owner != request.owner:
        raise Conflict(f"{name} is owned by container {stored.request.owner.container_id}")
    if stored.request.addresses != request.addresses:
        raise Conflict(f"{name} is registered with addresses {stored.request.addresses}")
    if stored.request.pod_uid != request.pod_uid:
        raise Conflict(f"{name} is registered with pod UID {stored.request.pod_uid or '(none)'}")
