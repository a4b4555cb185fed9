"""Whether an endpoint may be registered: the rules, on values read at one revision.

The transaction that follows compares everything that was read here, so a verdict holds when it is
written.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from deltaplane.errors import Conflict, Refused, Unavailable
from deltaplane.model.addresses import format_address
from deltaplane.model.identity import LabelSet
from services.endpoints.blocks import PoolRange, block_of, single
from services.endpoints.identity import LabelFilter
from services.endpoints.joining import join
from services.endpoints.records import Endpoint, Node, Pod, Request
from services.endpoints.wishing import Wish, check, satisfied, wish_of

MOST_SEPARATE = 64
"""Endpoints of one transaction in which each is a part of its own: `port.MAX_PARTS`."""

MAX_TOGETHER = 25
"""Endpoints of one transaction without parts: four writes each, of 100."""
MAX_COMPARES = 100


class NoBlock(Refused):
    """An address lies in no block of its node, as far as the pools that are remembered tell."""


@dataclass(frozen=True, slots=True)
class BlockOwner:
    """Who owns the block of an address.

    Attributes:
        node_index: number of the node.
        node: its name.
        pool: name of the block's pool.
        is_single: it is a block of this one address.
    """

    node_index: int
    node: str = ""
    pool: str = ""
    is_single: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is stored about some requests.

    Attributes:
        nodes: by name.
        block_owners: who owns the block of an address; no entry: nobody does.
        holders: what holds an address, in words; no entry: nothing does.
        names: what has the (node, id), in words, where that is not the endpoint of the same pod.
        endpoints: by (node, id), of the same pod.
        released: (node, id) of endpoints that the node has released.
        pods: by (namespace, name).
        namespace_labels: by namespace.
        namespace_annotations: by namespace.
        pools: those that are remembered.
    """

    nodes: Mapping[str, Node]
    block_owners: Mapping[bytes, BlockOwner]
    holders: Mapping[bytes, str]
    names: Mapping[tuple[str, int], str]
    endpoints: Mapping[tuple[str, int], Endpoint]
    released: Collection[tuple[str, int]]
    pods: Mapping[tuple[str, str], Pod]
    namespace_labels: Mapping[str, Mapping[str, str]]
    namespace_annotations: Mapping[str, Mapping[str, str]]
    pools: Sequence[PoolRange]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A new endpoint. label_set None: it waits for its pod record."""

    node_index: int
    label_set: LabelSet | None


def separate(requests: Iterable[Request]) -> int:
    """How many of the first requests do not touch each other's (node, id) or addresses; 64 or less.

    Each of them can be judged by what is stored, and fail without the others.
    """
    owned: set[object] = set()
    count = 0
    for request in requests:
        own = {(request.node, request.id), *request.addresses}
        if count == MOST_SEPARATE or own & owned:
            break
        owned |= own
        count += 1
    return count


def leading(requests: Iterable[Request], pools: Sequence[PoolRange]) -> int:
    """How many of the first requests fit into one transaction without parts; 1 or more, if any.

    They do not touch each other's (node, id) or addresses, so that each can be judged by what is
    stored.
    """
    owned: set[object] = set()
    shared: set[object] = set()
    count = 0
    for request in requests:
        own = {
            (request.node, request.id),
            (request.node, request.id, "released"),
            *request.addresses,
            *map(single, request.addresses),
        }
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


def judge(request: Request, known: Known, labels: LabelFilter) -> Accepted | Endpoint | Wish:
    """What becomes of a request.

    A pod without a record has no wish yet: its endpoint waits, and `following` looks at it again.

    Returns:
        The endpoint that is to be written, the stored one that this request asked for before, or
        the addresses that the pod asks for when these are others.

    Raises:
        Refused: the node is not registered so, an address is in no block of it, or the pod record
            is not that of this pod.
        Invalid: the pod asks for what there is not.
        Conflict: the number or an address is taken, or the endpoint has been released meanwhile.
        Unavailable: endpoints of the node's former registration are still being removed.
    """
    node = registered(known.nodes, request.node, request.node_uid)
    name = (request.node, request.id)
    if name in known.released:
        raise Conflict(f"endpoint {request.id} of node {request.node} has been released")
    if other := known.names.get(name):
        raise Conflict(f"endpoint {request.id} of node {request.node} is {other}")
    stored = known.endpoints.get(name)
    if stored is not None:
        _check_same(request, stored, node)
        return stored
    for address in request.addresses:
        if holder := known.holders.get(address):
            raise Conflict(f"address {format_address(address)} is held by {holder}")
        _check_owner(address, known.block_owners.get(address), node)
    pod = known.pods.get((request.namespace, request.pod))
    namespace_labels = known.namespace_labels.get(request.namespace, {})
    label_set = join(request, pod, namespace_labels, labels)
    if pod is not None and (wish := _unfulfilled(request, pod, known)):
        check(wish, known.pools)
        return wish
    return Accepted(node.index, label_set)


def _check_owner(address: bytes, owner: BlockOwner | None, node: Node) -> None:
    if owner is not None and owner.node_index == node.index:
        return
    if owner is not None and owner.is_single:
        raise Refused(f"address {format_address(address)} is claimed by node {owner.node} alone")
    raise NoBlock(f"address {format_address(address)} lies in no block of node {node.name}")


def _unfulfilled(request: Request, pod: Pod, known: Known) -> Wish | None:
    """What the pod asks for, unless it is what it gets."""
    annotations = known.namespace_annotations.get(request.namespace, {})
    if not pod.annotations and not annotations:
        return None
    wish = wish_of(dict(pod.annotations), annotations)
    pools = {address: known.block_owners[address].pool for address in request.addresses}
    return None if satisfied(wish, pools) else wish


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
