"""NetworkPolicies in the form that all kinds have in common."""

from deltaplane.model.policy import IPBlock, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from deltaplane.model.ports import MAX_PORT, PortRange, merge_ranges
from deltaplane.model.selector import LabelSelector
from deltaplane.model.tiers import EVERYTHING, Policy, PolicyKind, Rule, Selector


def of_network_policy(policy: NetworkPolicy) -> Policy:
    """The same policy in the common form. Rules of a direction that it leaves alone are dropped."""
    return Policy(
        kind=PolicyKind.NETWORK_POLICY,
        namespace=policy.namespace,
        name=policy.name,
        subject=Selector(namespace=policy.namespace, pods=policy.pod_selector),
        isolates_ingress=policy.applies_to_ingress,
        isolates_egress=policy.applies_to_egress,
        audit=policy.audit,
        ingress=_rules(policy.namespace, policy.ingress) if policy.applies_to_ingress else (),
        egress=_rules(policy.namespace, policy.egress) if policy.applies_to_egress else (),
    )


def _rules(namespace: str, rules: tuple[PolicyRule, ...]) -> tuple[Rule, ...]:
    return tuple(_rule(namespace, rule) for rule in rules)


def _rule(namespace: str, rule: PolicyRule) -> Rule:
    return Rule(
        all_peers=not rule.peers,
        selectors=tuple(_selector(namespace, p) for p in rule.peers if p.ip_block is None),
        blocks=tuple(_canonical(p.ip_block) for p in rule.peers if p.ip_block is not None),
        any_port=not rule.ports,
        ranges=merge_ranges(_range(port) for port in rule.ports if not isinstance(port.port, str)),
        port_names=tuple(
            sorted({(p.port, p.protocol) for p in rule.ports if isinstance(p.port, str)})
        ),
    )


def _selector(namespace: str, peer: PolicyPeer) -> Selector:
    pods: LabelSelector = peer.pod_selector or EVERYTHING
    if peer.namespace_selector is None:
        return Selector(namespace=namespace, pods=pods)
    return Selector(namespaces=peer.namespace_selector, pods=pods)


def _canonical(block: IPBlock) -> IPBlock:
    return IPBlock(block.cidr, tuple(sorted(set(block.except_))))


def _range(port: PolicyPort) -> PortRange:
    if port.port is None:
        return PortRange(port.protocol, 0, MAX_PORT)
    assert isinstance(port.port, int)
    return PortRange(port.protocol, port.port, port.end_port or port.port)
