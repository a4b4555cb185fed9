"""A node's journal with etcd and with itself."""

from collections.abc import Iterator

from deltaplane.check.facts import Endpoint, Interface, Node, NodeView, State, Stored
from deltaplane.check.findings import AskAgent, Finding, Kind, ReleaseEndpoint
from deltaplane.check.stored import name, shown
from deltaplane.model.addresses import format_address


def findings(stored: Stored, view: NodeView) -> Iterator[Finding]:
    """Everything in a journal that does not agree with etcd, or with the rest of the journal."""
    node = stored.nodes.get(view.name)
    if node is None or node.uid != view.uid:
        now = f"etcd has UID {node.uid}" if node else "etcd has no node of that name"
        yield Finding(
            kind=Kind.NODE_UNKNOWN,
            node=view.name,
            subject=f"node {view.name}",
            seen=f"its agent has UID {view.uid}; {now}",
            advice="restart the agent; if the UID is another, `deltaplane node delete` first",
            evidence=(view.uid, node.uid if node else ""),
        )
    else:
        yield from _registrations(stored, view, node)
        yield from _blocks(stored, view, node)
    yield from _places(view)


def unreachable(node: str, target: str, reason: str) -> Finding:
    """An agent that did not answer."""
    return Finding(
        kind=Kind.AGENT_UNREACHABLE,
        node=node,
        subject=f"node {node}" if node else f"agent {target}",
        seen=f"{target}: {reason}",
        advice="start the agent, and check again",
    )


def not_asked(node: str) -> Finding:
    """A registered node whose agent nobody named."""
    return Finding(
        kind=Kind.AGENT_NOT_ASKED,
        node=node,
        subject=f"node {node}",
        seen="no target was given for its agent",
        advice="name it with --agent",
    )


def pod(interface: Interface) -> str:
    """An interface, for people."""
    return f"interface {interface.number}, pod {interface.namespace}/{interface.pod}"


def own_endpoints(stored: Stored, view: NodeView) -> dict[int, Endpoint]:
    """The endpoints of a node's present registration, by number."""
    node = stored.nodes.get(view.name)
    if node is None or node.uid != view.uid:
        return {}
    return {
        endpoint.number: endpoint
        for endpoint in stored.endpoints.values()
        if endpoint.node == view.name and endpoint.node_index == node.index
    }


def _registrations(stored: Stored, view: NodeView, node: Node) -> Iterator[Finding]:
    registered = own_endpoints(stored, view)
    for interface in view.interfaces.values():
        if interface.state is not State.READY:
            continue  # on its way in or out, or for good without its addresses
        endpoint = registered.get(interface.number)
        if endpoint is None:
            yield Finding(
                kind=Kind.NOT_REGISTERED,
                node=view.name,
                subject=pod(interface),
                seen=f"the journal holds {shown(interface.addresses)}; etcd has no endpoint",
                advice="register it again",
                repair=AskAgent(node=view.name, interface=interface.number),
                evidence=(interface.owner,),
            )
        elif (endpoint.owner, endpoint.addresses) != (interface.owner, interface.addresses):
            yield _differs(view, interface, endpoint)
    for endpoint in registered.values():
        if endpoint.number not in view.interfaces:
            yield Finding(
                kind=Kind.NOT_IN_JOURNAL,
                node=view.name,
                subject=name(endpoint),
                seen=f"etcd has {shown(endpoint.addresses)}; the journal has no such interface",
                advice="release the endpoint",
                repair=ReleaseEndpoint(
                    namespace=endpoint.namespace,
                    pod=endpoint.pod,
                    node=endpoint.node,
                    node_uid=node.uid,
                    number=endpoint.number,
                    incarnation=endpoint.incarnation,
                ),
                evidence=(endpoint.incarnation,),
            )


def _differs(view: NodeView, interface: Interface, endpoint: Endpoint) -> Finding:
    if endpoint.owner != interface.owner:
        sides = f"container {interface.owner[1]}; etcd has it for container {endpoint.owner[1]}"
    else:
        sides = f"{shown(interface.addresses)}; etcd has {shown(endpoint.addresses)}"
    return Finding(
        kind=Kind.ENDPOINT_DIFFERS,
        node=view.name,
        subject=pod(interface),
        seen=f"the journal has {sides}",
        advice="delete the pod",
        evidence=(interface.owner, endpoint.incarnation),
    )


def _blocks(stored: Stored, view: NodeView, node: Node) -> Iterator[Finding]:
    owned = {
        block.prefix: block
        for block in stored.blocks.values()
        if (block.node_index, block.node_uid) == (node.index, view.uid)
    }
    owners = {block.prefix: block.node for block in stored.blocks.values()}
    ask = AskAgent(node=view.name, blocks=True)
    for mine in view.blocks:
        if mine.prefix not in owned and not mine.releasing:
            owner = owners.get(mine.prefix, "")
            yield Finding(
                kind=Kind.BLOCK_LOST,
                node=view.name,
                subject=f"block {mine.prefix}",
                seen="the journal has it; in etcd "
                + (f"node {owner} owns it" if owner else "nobody owns it"),
                advice="let the agent drop it, and close the interfaces in it for good",
                repair=ask,
            )
    known = {block.prefix for block in view.blocks}
    for prefix, block in owned.items():
        if prefix not in known:
            yield Finding(
                kind=Kind.BLOCK_UNKNOWN,
                node=view.name,
                subject=f"block {prefix}",
                seen=f"etcd says that node {view.name} owns it; its journal does not have it",
                advice="let the agent take it in",
                repair=ask,
                evidence=(block.revision,),
            )


def _places(view: NodeView) -> Iterator[Finding]:
    """Addresses that are in no place of the journal, or in two."""
    for interface in view.interfaces.values():
        for address in interface.addresses:
            if address in view.released:
                yield Finding(
                    kind=Kind.HELD_RELEASED,
                    node=view.name,
                    subject=f"address {format_address(address)}",
                    seen=f"{pod(interface)} holds it; the journal also says that it was released "
                    f"at revision {view.released[address]}",
                    advice="delete the pod; its address then waits once",
                    evidence=(interface.number, view.released[address]),
                )
            if interface.state not in (State.READY, State.ALLOCATING):
                continue
            if not any(block.prefix.contains(address) for block in view.blocks):
                yield Finding(
                    kind=Kind.HELD_OUTSIDE,
                    node=view.name,
                    subject=f"address {format_address(address)}",
                    seen=f"{pod(interface)} holds it; no block of the journal does",
                    advice="delete the pod",
                    evidence=(interface.number,),
                )
