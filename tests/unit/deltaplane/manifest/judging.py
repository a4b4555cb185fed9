"""Judges connections by Cilium's policies as they were read, rule by rule.

Shares nothing with the product but the values.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from deltaplane.model.identity import NAMESPACE_NAME_LABEL, Reserved
from deltaplane.model.policy import IPBlock
from deltaplane.model.ports import Protocol
from deltaplane.model.tiers import Action, Policy, Rule, Selector


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A pod if it has a namespace, else the reserved identity."""

    ipv4: str
    ipv6: str
    reserved: Reserved = Reserved.OTHER_POD
    namespace: str = ""
    namespace_labels: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """The first of a connection. port: or type of the ICMP message."""

    source: Party
    destination: Party
    protocol: Protocol
    port: int
    is_ipv4: bool


def passes(policies: Sequence[Policy], packet: Packet) -> bool:
    """Whether both sides let it pass."""
    return _side(policies, packet, outgoing=True) and _side(policies, packet, outgoing=False)


def selects(selector: Selector, party: Party) -> bool:
    """Whether a selector matches a pod."""
    labels = {**party.namespace_labels, NAMESPACE_NAME_LABEL: party.namespace}
    return (
        party.namespace != ""
        and selector.namespace in (None, party.namespace)
        and selector.namespaces.matches(labels)
        and selector.pods.matches(party.labels)
    )


def _side(policies: Sequence[Policy], packet: Packet, *, outgoing: bool) -> bool:
    subject = packet.source if outgoing else packet.destination
    applying = [policy for policy in policies if selects(policy.subject, subject)]
    actions = {
        rule.action
        for policy in applying
        for rule in (policy.egress if outgoing else policy.ingress)
        if _matches(rule, packet, outgoing=outgoing)
    }
    if actions:
        return Action.DENY not in actions
    isolates = ((p.isolates_egress if outgoing else p.isolates_ingress) for p in applying)
    return not any(isolates)


def _matches(rule: Rule, packet: Packet, *, outgoing: bool) -> bool:
    peer = packet.destination if outgoing else packet.source
    return _has_peer(rule, peer, is_ipv4=packet.is_ipv4) and _has_port(rule, packet)


def _has_peer(rule: Rule, peer: Party, *, is_ipv4: bool) -> bool:
    outside = peer.reserved is Reserved.WORLD or not rule.outside_only
    return (
        rule.all_peers
        or peer.reserved in rule.entities
        or any(selects(selector, peer) for selector in rule.selectors)
        or any(outside and _inside(b, peer.ipv4 if is_ipv4 else peer.ipv6) for b in rule.blocks)
    )


def _has_port(rule: Rule, packet: Packet) -> bool:
    named = {
        (number, protocol)
        for name, protocol in rule.port_names
        if (number := packet.destination.ports.get(name))
    }
    return (
        rule.any_port
        or (packet.port, packet.protocol) in named
        or any(
            r.protocol is packet.protocol and r.first <= packet.port <= r.last for r in rule.ranges
        )
    )


def _inside(block: IPBlock, text: str) -> bool:
    address = ip_address(text)
    holes = (ip_network(str(hole)) for hole in block.except_)
    return address in ip_network(str(block.cidr)) and not any(address in hole for hole in holes)
