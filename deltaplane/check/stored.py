"""etcd with itself: pointers, owners, ranges."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from deltaplane.check.facts import Block, Endpoint, Pointer, Service, Stored
from deltaplane.check.findings import Finding, FixPointer, Kind, RemoveLeftovers
from deltaplane.model.addresses import Prefix, format_address

_POINTER_KINDS = {
    "addresses": Kind.ADDRESS_KEY,
    "node-endpoints": Kind.NUMBER_KEY,
    "block-requests": Kind.REQUEST_KEY,
    "fixed-addresses": Kind.FIXED_KEY,
    "cluster-ips": Kind.CLUSTER_IP_KEY,
    "node-ports": Kind.NODE_PORT_KEY,
}
"""By the folder below registry/ that a pointer lies in."""


_ADVICE = {
    Kind.ADDRESS_KEY: "delete one of the pods",
    Kind.CLUSTER_IP_KEY: "delete one of the services",
    Kind.NODE_PORT_KEY: "delete one of the services",
}
"""Where two have what one can have."""


def findings(stored: Stored) -> Iterator[Finding]:
    """Everything in etcd that does not agree with the rest of it."""
    yield from _pointers(stored)
    yield from _freed(stored)
    yield from _endpoints(stored)
    yield from _blocks(stored)
    yield from _overlaps(stored)
    yield from _counts(stored)


def name(endpoint: Endpoint) -> str:
    """An endpoint, for people."""
    return (
        f"endpoint {endpoint.number} of node {endpoint.node}, "
        f"pod {endpoint.namespace}/{endpoint.pod}"
    )


def shown(addresses: tuple[bytes, ...]) -> str:
    """Addresses, for people."""
    return ", ".join(map(format_address, addresses)) or "none"


# --- pointers ------------------------------------------------------------------------------------


def _pointers(stored: Stored) -> Iterator[Finding]:
    wanted: dict[str, list[str]] = {}
    records: tuple[Endpoint | Block | Service, ...] = (
        *stored.endpoints.values(),
        *stored.blocks.values(),
        *stored.services.values(),
    )
    for record in records:
        for key in record.pointers:
            wanted.setdefault(key, []).append(record.key)
    for key, pointer in stored.pointers.items():
        if key not in wanted:
            yield _dangling(pointer)
    for key, owners in wanted.items():
        if len(owners) > 1:
            yield _twice(key, owners)
        elif (found := stored.pointers.get(key)) is None or found.target != owners[0]:
            yield _absent(key, found, owners[0])


def _dangling(pointer: Pointer) -> Finding:
    return Finding(
        kind=_kind(pointer.key),
        subject=_short(pointer.key),
        seen=f"names {_short(pointer.target) or 'nothing'}, which does not have it",
        advice="delete the key",
        repair=FixPointer(key=pointer.key, revision=pointer.revision),
        evidence=(pointer.revision,),
    )


def _absent(key: str, found: Pointer | None, target: str) -> Finding:
    other = f"names {_short(found.target)}" if found else "is absent"
    revision = found.revision if found else 0
    return Finding(
        kind=_kind(key),
        subject=_short(key),
        seen=f"{other}, but belongs to {_short(target)}",
        advice="write the key",
        repair=FixPointer(key=key, revision=revision, target=target),
        evidence=(revision, target),
    )


def _twice(key: str, records: list[str]) -> Finding:
    both = " and ".join(sorted(map(_short, records)))
    kind = _kind(key)
    return Finding(
        kind=Kind.ADDRESS_TWICE if kind is Kind.ADDRESS_KEY else kind,
        subject=_short(key),
        seen=f"belongs to {both}",
        advice=_ADVICE.get(kind, "delete one of the two nodes"),
        evidence=tuple(sorted(records)),
    )


def _freed(stored: Stored) -> Iterator[Finding]:
    """Marks that name no range: a claim looks at those of its block, of parts and of wholes.

    One outside every pool is fine: it waits for a pool that may come back. So is one of an owned
    block: an address that had been claimed out of it was given back.
    """
    for mark in stored.freed:
        if mark.prefix is None:
            yield Finding(
                kind=Kind.FREED_KEY,
                subject=_short(mark.key),
                seen="names no block",
                advice="delete the key",
                repair=FixPointer(key=mark.key, revision=mark.revision),
                evidence=(mark.revision,),
            )


# --- owners and ranges ---------------------------------------------------------------------------


def _endpoints(stored: Stored) -> Iterator[Finding]:
    owned = _ranges(stored)
    alone = {b.prefix.address: b.node_index for b in stored.blocks.values() if b.fixed}
    for endpoint in stored.endpoints.values():
        node = stored.nodes.get(endpoint.node)
        if node is None or node.index != endpoint.node_index:
            yield Finding(
                kind=Kind.ENDPOINT_NODE,
                node=endpoint.node,
                subject=name(endpoint),
                seen=f"has {shown(endpoint.addresses)}; {_registration(stored, endpoint)}",
                advice="remove what the former registration has left",
                repair=RemoveLeftovers(endpoint.node),
                evidence=(endpoint.incarnation,),
            )
            continue
        for address in endpoint.addresses:
            owner = alone.get(address, endpoint.node_index)
            blocks = owned.get(endpoint.node_index, ())
            if owner != endpoint.node_index or not any(b.contains(address) for b in blocks):
                yield Finding(
                    kind=Kind.ENDPOINT_OUTSIDE,
                    node=endpoint.node,
                    subject=f"address {format_address(address)}",
                    seen=f"{name(endpoint)} has it, but no block of that node holds it",
                    advice="delete the pod",
                    evidence=(endpoint.incarnation,),
                )


def _ranges(stored: Stored) -> dict[int, list[Prefix]]:
    found: dict[int, list[Prefix]] = {}
    for block in stored.blocks.values():
        found.setdefault(block.node_index, []).append(block.prefix)
    return found


def _blocks(stored: Stored) -> Iterator[Finding]:
    for block in stored.blocks.values():
        node = stored.nodes.get(block.node)
        if node is None or (node.index, node.uid) != (block.node_index, block.node_uid):
            yield Finding(
                kind=Kind.BLOCK_NODE,
                node=block.node,
                subject=f"block {block.prefix}",
                seen=f"is owned by {_registration(stored, block)}",
                advice="remove what the former registration has left",
                repair=RemoveLeftovers(block.node),
                evidence=(block.revision,),
            )
        pool = stored.pools.get(block.pool)
        if pool is None:
            reason = f"names pool {block.pool}, which does not exist"
        elif not pool.prefix.contains(block.prefix):
            reason = f"lies outside its pool {pool.name}, {pool.prefix}"
        else:
            continue
        yield Finding(
            kind=Kind.BLOCK_POOL,
            node=block.node,
            subject=f"block {block.prefix}",
            seen=reason,
            advice="drain the node and delete it; its pods get addresses of a pool elsewhere",
            evidence=(block.revision, block.pool),
        )


def _registration(stored: Stored, record: Endpoint | Block) -> str:
    node = stored.nodes.get(record.node)
    now = f"now its number is {node.index}" if node else "it is not registered"
    return f"node {record.node}, number {record.node_index}; {now}"


def _overlaps(stored: Stored) -> Iterator[Finding]:
    """Blocks that share addresses, but for a single address that was claimed out of another."""
    ordinary = sorted(
        (block for block in stored.blocks.values() if not block.fixed),
        key=lambda block: (len(block.prefix.address), block.prefix),
    )
    widest: Block | None = None
    for one, other in pairwise(ordinary):
        # In this order, what overlaps a block follows the widest one before it.
        widest = one if widest is None or not widest.prefix.contains(one.prefix) else widest
        if widest.prefix.overlaps(other.prefix):
            yield Finding(
                kind=Kind.BLOCK_OVERLAP,
                node=other.node,
                subject=f"blocks {widest.prefix} and {other.prefix}",
                seen=f"are owned by nodes {widest.node} and {other.node}",
                advice="drain one of the nodes and delete it",
                evidence=(widest.revision, other.revision),
            )


def _counts(stored: Stored) -> Iterator[Finding]:
    found = Counter(block.pool for block in stored.blocks.values() if not block.fixed)
    for pool, count in stored.counted.items():
        if pool in stored.pools and count != found[pool]:
            yield Finding(
                kind=Kind.POOL_COUNT,
                subject=f"pool {pool}",
                seen=f"ipam counts {count} claimed blocks, there are {found[pool]}",
                advice="restart ipam; report it",
                evidence=(count, found[pool]),
            )


def _kind(key: str) -> Kind:
    return _POINTER_KINDS[key.partition("/registry/")[2].partition("/")[0]]


def _short(key: str) -> str:
    """A key without what all have in common."""
    return key.partition("/deltaplane/v1/")[2] or key
