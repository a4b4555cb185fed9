"""Policies judged packet by packet, as their documentation reads: the oracle of the compiler.

It shares no code with the product but the values, so that a mistake has to be made twice to hide.
NetworkPolicies are judged as they are written, not as they are translated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from deltaplane.model.identity import Identity, Reserved
from deltaplane.model.policy import IPBlock, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from deltaplane.model.selector import LabelSelector, Operator
from deltaplane.model.tiers import Action, Policy, Rule, Selector, Tier

AnyPolicy = NetworkPolicy | Policy
End = Identity | Reserved


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """The first packet of a connection. port: the type of an ICMP message."""

    source: End
    source_address: str
    destination: End
    destination_address: str
    protocol: int
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What a policy says of a packet: its actions, in the order of its rules."""

    order: tuple[int, str]
    tier: Tier
    isolates: bool
    actions: tuple[Action, ...]


def allowed(
    policies: Sequence[AnyPolicy], packet: Packet, *, outgoing: bool, audit: bool = False
) -> bool:
    """Whether the source (outgoing) or the destination lets the packet pass.

    audit: as if policies under audit were enforced; else as if they were not there.
    """
    subject = packet.source if outgoing else packet.destination
    if not isinstance(subject, Identity):
        return True
    if not outgoing and packet.source is Reserved.HOST:
        return True
    said = [
        _network(policy, packet, outgoing=outgoing)
        if isinstance(policy, NetworkPolicy)
        else _general(policy, packet, outgoing=outgoing)
        for policy in policies
        if (audit or not policy.audit) and _applies(policy, subject)
    ]
    return _judged(sorted(said, key=lambda item: item.order))


def _judged(said: Sequence[_Said]) -> bool:
    for item in said:
        if item.tier is Tier.ADMIN:
            for action in item.actions:
                if action is Action.PASS:
                    break
                return action is Action.ALLOW
            else:
                continue
            break
    normal = [item for item in said if item.tier is Tier.NORMAL]
    everything = {action for item in normal for action in item.actions}
    if Action.DENY in everything:
        return False
    if Action.ALLOW in everything:
        return True
    if any(item.isolates for item in normal):
        return False
    baseline = [a for item in said if item.tier is Tier.BASELINE for a in item.actions]
    return not baseline or baseline[0] is not Action.DENY


def _applies(policy: AnyPolicy, subject: Identity) -> bool:
    if isinstance(policy, Policy):
        return _selected(policy.subject, subject)
    own = policy.namespace == subject.label_set.namespace
    return own and _selects(policy.pod_selector, dict(subject.label_set.labels))


def _network(policy: NetworkPolicy, packet: Packet, *, outgoing: bool) -> _Said:
    isolates = policy.applies_to_egress if outgoing else policy.applies_to_ingress
    rules = (policy.egress if outgoing else policy.ingress) if isolates else ()
    allows = any(_rule_allows(r, policy.namespace, packet, outgoing=outgoing) for r in rules)
    return _Said(
        order=(0, policy.reference),
        tier=Tier.NORMAL,
        isolates=isolates,
        actions=(Action.ALLOW,) if allows else (),
    )


def _general(policy: Policy, packet: Packet, *, outgoing: bool) -> _Said:
    rules = policy.egress if outgoing else policy.ingress
    return _Said(
        order=(policy.priority, policy.reference),
        tier=policy.tier,
        isolates=policy.isolates_egress if outgoing else policy.isolates_ingress,
        actions=tuple(rule.action for rule in rules if _matches(rule, packet, outgoing=outgoing)),
    )


# --- the rules of NetworkPolicy -------------------------------------------------------------------


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
            if isinstance(other, Identity) and _peer_matches(peer, namespace, other):
                return True
            if other is Reserved.OTHER_POD and numbered and _is_any_pod(peer):
                return True
            continue
        remote = packet.destination_address if outgoing else packet.source_address
        # On egress the name of a port means nothing for an address.
        if _in_block(peer.ip_block, remote) and (numbered or not outgoing):
            return True
    return False


def _is_any_pod(peer: PolicyPeer) -> bool:
    """Whether it means whatever pod there is, so that nothing must be known of the pod."""
    return (
        peer.namespace_selector is not None
        and all(
            item.key == "kubernetes.io/metadata.name" and item.operator is Operator.EXISTS
            for item in peer.namespace_selector.requirements
        )
        and (peer.pod_selector is None or not peer.pod_selector.requirements)
    )


def _port_matches(port: PolicyPort, packet: Packet) -> bool:
    if port.protocol != packet.protocol:
        return False
    if port.port is None:
        return True
    if isinstance(port.port, int):
        return port.port <= packet.port <= (port.end_port or port.port)
    return _named(packet, port.port)


def _peer_matches(peer: PolicyPeer, namespace: str, identity: Identity) -> bool:
    label_set = identity.label_set
    if peer.namespace_selector is None:
        if label_set.namespace != namespace:
            return False
    elif not _selects(peer.namespace_selector, dict(label_set.namespace_labels)):
        return False
    return peer.pod_selector is None or _selects(peer.pod_selector, dict(label_set.labels))


# --- the rules of all other kinds -----------------------------------------------------------------


def _matches(rule: Rule, packet: Packet, *, outgoing: bool) -> bool:
    other = packet.destination if outgoing else packet.source
    address = packet.destination_address if outgoing else packet.source_address
    by_number = rule.any_port or any(
        item.protocol == packet.protocol and packet.port in range(item.first, item.last + 1)
        for item in rule.ranges
    )
    by_name = any(
        protocol == packet.protocol and _named(packet, name) for name, protocol in rule.port_names
    )
    if isinstance(other, Identity):
        by_label = any(_selected(selector, other) for selector in rule.selectors)
        named = by_label or Reserved.OTHER_POD in rule.entities
    else:
        named = False
    if (rule.all_peers or named) and (by_number or by_name):
        return True
    listed = other in rule.entities or (
        other is Reserved.OTHER_POD and any(map(_is_any_selector, rule.selectors))
    )
    inside = any(_in_block(block, address) for block in rule.blocks) and (
        not rule.outside_only or other is Reserved.WORLD
    )
    return (listed or inside) and (by_number or (by_name and not outgoing))


def _selected(selector: Selector, identity: Identity) -> bool:
    label_set = identity.label_set
    if selector.namespace is not None and selector.namespace != label_set.namespace:
        return False
    return _selects(selector.namespaces, dict(label_set.namespace_labels)) and _selects(
        selector.pods, dict(label_set.labels)
    )


def _is_any_selector(selector: Selector) -> bool:
    peer = PolicyPeer(namespace_selector=selector.namespaces, pod_selector=selector.pods)
    return selector.namespace is None and _is_any_pod(peer)


# --- both -----------------------------------------------------------------------------------------


def _named(packet: Packet, name: str) -> bool:
    return isinstance(packet.destination, Identity) and any(
        port.name == name and port.protocol == packet.protocol and port.number == packet.port
        for port in packet.destination.label_set.named_ports
    )


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
