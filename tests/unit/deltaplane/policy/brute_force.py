"""Policies judged packet by packet, as their documentation reads: the oracle of the compiler.

It shares no code with the product but the values, so that a mistake has to be made twice to hide.
"""

from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from deltaplane.model.identity import Identity
from deltaplane.model.policy import IPBlock, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from deltaplane.model.selector import LabelSelector, Operator


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """The first packet of a connection; identities None: not a pod."""

    source: Identity | None
    source_address: str
    destination: Identity | None
    destination_address: str
    protocol: int
    port: int


def allowed(policies: list[NetworkPolicy], packet: Packet, *, outgoing: bool) -> bool:
    """Whether the source (outgoing) or the destination lets the packet pass."""
    subject = packet.source if outgoing else packet.destination
    if subject is None:
        return True
    isolating = [
        policy
        for policy in policies
        if policy.namespace == subject.label_set.namespace
        and _selects(policy.pod_selector, dict(subject.label_set.labels))
        and (policy.applies_to_egress if outgoing else policy.applies_to_ingress)
    ]
    if not isolating:
        return True
    return any(
        _rule_allows(rule, policy.namespace, packet, outgoing=outgoing)
        for policy in isolating
        for rule in (policy.egress if outgoing else policy.ingress)
    )


def _rule_allows(rule: PolicyRule, namespace: str, packet: Packet, *, outgoing: bool) -> bool:
    ports = [port for port in rule.ports if _port_matches(port, packet)]
    if rule.ports and not ports:
        return False
    if not rule.peers:
        return True
    numbered = not rule.ports or any(not isinstance(port.port, str) for port in ports)
    for peer in rule.peers:
        if peer.ip_block is None:
            other = packet.destination if outgoing else packet.source
            if other is not None and _peer_matches(peer, namespace, other):
                return True
            continue
        remote = packet.destination_address if outgoing else packet.source_address
        # On egress the name of a port means nothing for an address.
        if _in_block(peer.ip_block, remote) and (numbered or not outgoing):
            return True
    return False


def _port_matches(port: PolicyPort, packet: Packet) -> bool:
    if port.protocol != packet.protocol:
        return False
    if port.port is None:
        return True
    if isinstance(port.port, int):
        return port.port <= packet.port <= (port.end_port or port.port)
    return packet.destination is not None and any(
        named.name == port.port
        and named.protocol == packet.protocol
        and named.number == packet.port
        for named in packet.destination.label_set.named_ports
    )


def _peer_matches(peer: PolicyPeer, namespace: str, identity: Identity) -> bool:
    label_set = identity.label_set
    if peer.namespace_selector is None:
        if label_set.namespace != namespace:
            return False
    elif not _selects(peer.namespace_selector, dict(label_set.namespace_labels)):
        return False
    return peer.pod_selector is None or _selects(peer.pod_selector, dict(label_set.labels))


def _selects(selector: LabelSelector, labels: dict[str, str]) -> bool:
    for requirement in selector.requirements:
        present = requirement.key in labels
        listed = present and labels[requirement.key] in requirement.values
        holds = {
            Operator.IN: listed,
            Operator.NOT_IN: not listed,
            Operator.EXISTS: present,
            Operator.DOES_NOT_EXIST: not present,
        }
        if not holds[requirement.operator]:
            return False
    return True


def _in_block(block: IPBlock, address: str) -> bool:
    value = ip_address(address)
    return value in ip_network(str(block.cidr)) and not any(
        value in ip_network(str(hole)) for hole in block.except_
    )
