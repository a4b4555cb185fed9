"""A node's journal, and what the stream has told it, with its kernel.

What follows from the stream is compared only when the node has applied the revision that was read.
"""

from collections.abc import Iterator

from deltaplane.check.facts import (
    Block,
    Endpoint,
    Interface,
    Link,
    NodeView,
    Programmed,
    Route,
    State,
    Stored,
)
from deltaplane.check.findings import AskAgent, Finding, Kind
from deltaplane.check.nodes import own_endpoints, pod
from deltaplane.check.stored import shown
from deltaplane.model.addresses import Prefix, format_address


def findings(stored: Stored, view: NodeView) -> Iterator[Finding]:
    """Everything in a kernel that is not as journal and etcd want it."""
    yield from _links(view)
    yield from _routes(view)
    yield from _programs(view)
    if view.applied < stored.revision:
        yield Finding(
            kind=Kind.AGENT_BEHIND,
            node=view.name,
            subject=f"node {view.name}",
            seen=f"it has applied revision {view.applied}, etcd was at {stored.revision}",
            advice="see `deltaplane get nodes`, and check again",
        )
        return
    yield from _identities(stored, view)
    yield from _block_routes(stored, view)


def _ready(view: NodeView) -> Iterator[tuple[Interface, Link | None]]:
    links = {link.number: link for link in view.links}
    for interface in view.interfaces.values():
        if interface.state is State.READY:
            yield interface, links.get(interface.number)


def _links(view: NodeView) -> Iterator[Finding]:
    for interface, link in _ready(view):
        if link is None:
            yield Finding(
                kind=Kind.LINK_MISSING,
                node=view.name,
                subject=pod(interface),
                seen=f"the journal holds {shown(interface.addresses)}; its link is gone",
                advice="delete the pod",
                evidence=(interface.number,),
            )
    for link in view.links:
        if link.number not in view.interfaces:
            yield Finding(
                kind=Kind.LINK_UNKNOWN,
                node=view.name,
                subject=f"link {link.name}",
                seen=f"it carries our mark of interface {link.number}, which the journal lacks",
                advice="remove the link",
                repair=AskAgent(node=view.name, link=link.name),
                evidence=(link.ifindex,),
            )


def _single(route: Route) -> bool:
    return route.prefix.length == len(route.prefix.address) * 8


def _routes(view: NodeView) -> Iterator[Finding]:
    """Routes to pods: of the single address, over the pod's link."""
    there = {(route.prefix, route.ifindex) for route in view.routes if _single(route)}
    for interface, link in _ready(view):
        for address in interface.addresses:
            prefix = Prefix(address, len(address) * 8)
            if link is not None and (prefix, link.ifindex) not in there:
                yield Finding(
                    kind=Kind.ROUTE_MISSING,
                    node=view.name,
                    subject=f"route {prefix}",
                    seen=f"{pod(interface)} holds the address; no route leads to {link.name}",
                    advice="make the route",
                    repair=AskAgent(node=view.name, interface=interface.number),
                    evidence=(interface.number,),
                )
    ours = {link.ifindex: link for link in view.links}
    for prefix, ifindex in sorted(there):
        link = ours.get(ifindex)
        holder = view.interfaces.get(link.number) if link else None
        if link is None or (holder and prefix.address in holder.addresses):
            continue
        yield Finding(
            kind=Kind.ROUTE_UNKNOWN,
            node=view.name,
            subject=f"route {prefix}",
            seen=f"it leads to {link.name}; interface {link.number} does not hold the address",
            advice="remove the route",
            repair=AskAgent(node=view.name, route=prefix),
            evidence=(ifindex,),
        )


def _programs(view: NodeView) -> Iterator[Finding]:
    by_link = {entry.ifindex: entry for entry in view.programmed}
    ask = AskAgent(node=view.name, data_path=True)
    for interface, link in _ready(view):
        entry = by_link.get(link.ifindex) if link else None
        if link is not None and entry is None:
            yield Finding(
                kind=Kind.PROGRAM_MISSING,
                node=view.name,
                subject=pod(interface),
                seen=f"its link is {link.name}; the data path has no entry for it",
                advice="write the data path again",
                repair=ask,
                evidence=(interface.number, link.ifindex),
            )
        elif entry is not None and not _same(interface, entry):
            yield Finding(
                kind=Kind.PROGRAM_DIFFERS,
                node=view.name,
                subject=pod(interface),
                seen=f"it holds {shown(interface.addresses)}; the data path has interface "
                f"{entry.number} with {shown(entry.addresses)} there",
                advice="write the data path again",
                repair=ask,
                evidence=(interface.number, entry),
            )
    for entry in view.programmed:
        if entry.number not in view.interfaces:
            yield Finding(
                kind=Kind.PROGRAM_UNKNOWN,
                node=view.name,
                subject=f"interface {entry.number}",
                seen=f"the data path serves {shown(entry.addresses)}; the journal lacks it",
                advice="write the data path again",
                repair=ask,
                evidence=(entry.ifindex,),
            )


def _same(interface: Interface, entry: Programmed) -> bool:
    return (entry.number, entry.addresses) == (interface.number, interface.addresses)


def _identities(stored: Stored, view: NodeView) -> Iterator[Finding]:
    registered = own_endpoints(stored, view)
    by_link = {entry.ifindex: entry for entry in view.programmed}
    for interface, link in _ready(view):
        endpoint = registered.get(interface.number)
        if endpoint is None or endpoint.addresses != interface.addresses:
            continue
        entry = by_link.get(link.ifindex) if link else None
        wanted = 0 if endpoint.waiting else endpoint.identity
        if entry is not None and _same(interface, entry) and entry.identity != wanted:
            yield Finding(
                kind=Kind.PROGRAM_DIFFERS,
                node=view.name,
                subject=pod(interface),
                seen=f"etcd gives it {_identity(wanted)}; the data path has "
                f"{_identity(entry.identity)}",
                advice="write the data path again",
                repair=AskAgent(node=view.name, data_path=True),
                evidence=(interface.number, entry.identity, endpoint.revision),
            )
        for address in endpoint.addresses:
            yield from _mapping(view, endpoint, address)


def _mapping(view: NodeView, endpoint: Endpoint, address: bytes) -> Iterator[Finding]:
    found = view.mappings.get(address)
    if found == (endpoint.identity, endpoint.node_index):
        return
    seen = f"identity {found[0]} on node number {found[1]}" if found else "nothing"
    yield Finding(
        kind=Kind.MAPPING_WRONG,
        node=view.name,
        subject=f"address {format_address(address)}",
        seen=f"etcd gives it identity {endpoint.identity}; the data path maps it to {seen}",
        advice="write the data path again",
        repair=AskAgent(node=view.name, data_path=True),
        evidence=(endpoint.revision, found),
    )


def _identity(number: int) -> str:
    return f"identity {number}" if number else "it closed"


def _block_routes(stored: Stored, view: NodeView) -> Iterator[Finding]:
    own = {link.ifindex for link in view.links}
    there = {route.prefix for route in view.routes if route.ifindex not in own}
    for block in stored.blocks.values():
        if block.prefix not in there and _needs_route(stored, view, block):
            yield Finding(
                kind=Kind.BLOCK_ROUTE,
                node=view.name,
                subject=f"block {block.prefix}",
                seen=f"node {block.node} owns it; there is no route to it",
                advice="write the data path again",
                repair=AskAgent(node=view.name, data_path=True),
                evidence=(block.revision,),
            )


def _needs_route(stored: Stored, view: NodeView, block: Block) -> bool:
    """Every block but single addresses of our own, whose routes are those of pods."""
    if block.node_index == view.index:
        return not block.fixed
    owner = stored.nodes.get(block.node)
    family = 4 if block.prefix.is_ipv4 else 6
    return owner is not None and owner.index == block.node_index and family in owner.families
