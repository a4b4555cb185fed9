"""Policies of every kind but NetworkPolicy ↔ deltaplane.v1.Policy.

As in `deltaplane.wire`, what is read comes from a stranger: all of it is checked, and
`deltaplane.errors.Invalid` names the path of the first wrong field. What comes out is in one
canonical form: ranges merged, names of ports and entities ascending, each once.
"""

import json
from collections.abc import Iterable, Mapping, Sized

from deltaplane import wire
from deltaplane.errors import Invalid
from deltaplane.model import names
from deltaplane.model.identity import Reserved
from deltaplane.model.ports import MAX_PORT, TRANSPORTS, PortRange, Protocol, merge_ranges
from deltaplane.model.tiers import (
    BASELINE_NAME,
    MAX_PRIORITY,
    Action,
    Policy,
    PolicyKind,
    Rule,
    Selector,
    Tier,
)
from deltaplane.v1 import common_pb2, policy_pb2
from deltaplane.wire import join

MAX_RULES = 1000
"""Of one direction."""
MAX_ITEMS = 1000
"""Of each list of a rule: selectors, blocks, ranges, names of ports; and exceptions of a block."""
MAX_RULE_NAME = 256
"""Characters."""
MAX_MANIFEST_BYTES = 256 << 10
MAX_ICMP_TYPE = 255

TIERS: Mapping[PolicyKind, tuple[Tier, ...]] = {
    PolicyKind.CILIUM: (Tier.NORMAL,),
    PolicyKind.CILIUM_CLUSTERWIDE: (Tier.NORMAL,),
    PolicyKind.CLUSTER: (Tier.ADMIN, Tier.BASELINE),
    PolicyKind.ADMIN: (Tier.ADMIN,),
    PolicyKind.BASELINE_ADMIN: (Tier.BASELINE,),
}
"""In which tiers the rules of a kind may be. NetworkPolicy has a message of its own."""
_WITH_PRIORITY = (PolicyKind.CLUSTER, PolicyKind.ADMIN)


def policy_to_proto(policy: Policy, manifest: str = "") -> policy_pb2.Policy:
    """Message of a policy, without traceparent and meta. manifest: its spec as given, JSON."""
    return policy_pb2.Policy(
        kind=policy.kind,
        namespace=policy.namespace,
        name=policy.name,
        subject=_selector_to_proto(policy.subject),
        tier=policy_pb2.PolicyTier.ValueType(policy.tier),
        priority=policy.priority,
        isolates_ingress=policy.isolates_ingress,
        isolates_egress=policy.isolates_egress,
        audit=policy.audit,
        ingress=[_rule_to_proto(rule) for rule in policy.ingress],
        egress=[_rule_to_proto(rule) for rule in policy.egress],
        manifest=manifest,
    )


def policy_from_proto(message: policy_pb2.Policy, path: str = "") -> Policy:
    """Reads a policy; manifest, traceparent and meta are left to the caller.

    Raises:
        Invalid: a field is missing, misspelt, too long, or not one of this kind.
    """
    kind = name_from_proto(message.kind, message.namespace, message.name, path)
    tier = tier_from_proto(message, kind, path)
    if message.priority and kind not in _WITH_PRIORITY:
        raise Invalid(join(path, "priority"), f"a {kind} has none")
    if message.priority > MAX_PRIORITY:
        raise Invalid(join(path, "priority"), f"{message.priority} is outside 0..{MAX_PRIORITY}")
    for name in ("isolates_ingress", "isolates_egress"):
        if getattr(message, name) and tier is not Tier.NORMAL:
            raise Invalid(join(path, name), "only policies of the normal tier isolate")
    return Policy(
        kind=kind,
        namespace=message.namespace,
        name=message.name,
        subject=subject_from_proto(message, kind, path),
        tier=tier,
        priority=message.priority,
        isolates_ingress=message.isolates_ingress,
        isolates_egress=message.isolates_egress,
        audit=message.audit,
        ingress=_rules_from_proto(message.ingress, kind, join(path, "ingress")),
        egress=_rules_from_proto(message.egress, kind, join(path, "egress")),
    )


def name_from_proto(kind_text: str, namespace: str, name: str, path: str = "") -> PolicyKind:
    """Checks what names a policy; returns its kind.

    Raises:
        Invalid: there is no such kind, or none of its policies can be named so.
    """
    kind = next((kind for kind in TIERS if kind == kind_text), None)
    if kind is None:
        raise Invalid(join(path, "kind"), f'"{kind_text[:64]}" is none of {", ".join(TIERS)}')
    if kind.is_namespaced:
        wire.check_name(namespace, join(path, "namespace"), names.dns_label_mistake)
    elif namespace:
        raise Invalid(join(path, "namespace"), f"must be empty: a {kind} lives in none")
    wire.check_name(name, join(path, "name"), names.dns_subdomain_mistake)
    if kind is PolicyKind.BASELINE_ADMIN and name != BASELINE_NAME:
        raise Invalid(join(path, "name"), f'there is one {kind}, and its name is "{BASELINE_NAME}"')
    return kind


def tier_from_proto(message: policy_pb2.Policy, kind: PolicyKind, path: str = "") -> Tier:
    """The tier of a policy.

    Raises:
        Invalid: its kind is not of that tier.
    """
    tier = next((tier for tier in TIERS[kind] if tier == int(message.tier)), None)
    if tier is None:
        known = ", ".join(f"POLICY_TIER_{tier.name}" for tier in TIERS[kind])
        raise Invalid(join(path, "tier"), f"{message.tier} is none of {known}, those of a {kind}")
    return tier


def subject_from_proto(message: policy_pb2.Policy, kind: PolicyKind, path: str = "") -> Selector:
    """Whom a policy applies to.

    Raises:
        Invalid: it is absent, misspelt, or of another namespace than a policy of one.
    """
    at = join(path, "subject")
    if not message.HasField("subject"):
        raise Invalid(at, "is required; an empty one means every pod")
    subject = _selector_from_proto(message.subject, at)
    if kind.is_namespaced and subject.namespace != message.namespace:
        reason = f'must be "{message.namespace}", the namespace that the policy lives in'
        raise Invalid(join(at, "namespace"), reason)
    return subject


def rule_from_proto(message: policy_pb2.TierRule, kind: PolicyKind, path: str = "") -> Rule:
    """One rule of a policy of a kind.

    Raises:
        Invalid: a field is missing, misspelt or too long, or contradicts another.
    """
    _check_peers(message, path)
    _check_ports(message, path)
    if len(message.name) > MAX_RULE_NAME:
        raise Invalid(join(path, "name"), f"is longer than {MAX_RULE_NAME} characters")
    return Rule(
        action=_action_from_proto(message.action, kind, join(path, "action")),
        all_peers=message.all_peers,
        selectors=tuple(
            _selector_from_proto(item, f"{join(path, 'selectors')}[{index}]")
            for index, item in enumerate(message.selectors)
        ),
        blocks=tuple(
            wire.ip_block_from_proto(item, f"{join(path, 'blocks')}[{index}]")
            for index, item in enumerate(message.blocks)
        ),
        outside_only=message.outside_only,
        entities=_entities_from_proto(message.entities, join(path, "entities")),
        any_port=message.any_port,
        ranges=merge_ranges(
            _range_from_proto(item, f"{join(path, 'ranges')}[{index}]")
            for index, item in enumerate(message.ranges)
        ),
        port_names=_port_names_from_proto(message.port_names, join(path, "port_names")),
        name=message.name,
    )


def check_manifest(text: str, path: str = "manifest") -> None:
    """Checks the spec that people are shown.

    Raises:
        Invalid: it is too long or not JSON.
    """
    size = len(text.encode())
    if size > MAX_MANIFEST_BYTES:
        raise Invalid(path, f"has {size} bytes; at most {MAX_MANIFEST_BYTES} are kept")
    try:
        if text:
            json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(path, f"is no JSON: {error}") from error


# --- selectors -----------------------------------------------------------------------------------


def _selector_to_proto(selector: Selector) -> policy_pb2.PolicySelector:
    return policy_pb2.PolicySelector(
        namespace=selector.namespace or "",
        namespaces=wire.label_selector_to_proto(selector.namespaces),
        pods=wire.label_selector_to_proto(selector.pods),
    )


def _selector_from_proto(message: policy_pb2.PolicySelector, path: str) -> Selector:
    at = join(path, "namespaces")
    namespaces = wire.label_selector_from_proto(message.namespaces, at)
    if message.namespace:
        wire.check_name(message.namespace, join(path, "namespace"), names.dns_label_mistake)
        if namespaces.requirements:
            raise Invalid(at, "excludes namespace")
    return Selector(
        namespace=message.namespace or None,
        namespaces=namespaces,
        pods=wire.label_selector_from_proto(message.pods, join(path, "pods")),
    )


# --- rules ---------------------------------------------------------------------------------------


def _rule_to_proto(rule: Rule) -> policy_pb2.TierRule:
    return policy_pb2.TierRule(
        action=policy_pb2.RuleAction.ValueType(rule.action),
        all_peers=rule.all_peers,
        selectors=[_selector_to_proto(selector) for selector in rule.selectors],
        blocks=[wire.ip_block_to_proto(block) for block in rule.blocks],
        outside_only=rule.outside_only,
        entities=rule.entities,
        any_port=rule.any_port,
        ranges=[
            policy_pb2.TierPort(
                protocol=common_pb2.Protocol.ValueType(item.protocol),
                first=item.first,
                last=item.last,
            )
            for item in rule.ranges
        ],
        port_names=[
            policy_pb2.TierPortName(name=name, protocol=wire.protocol_to_proto(protocol))
            for name, protocol in rule.port_names
        ],
        name=rule.name,
    )


def _rules_from_proto(
    messages: Iterable[policy_pb2.TierRule], kind: PolicyKind, path: str
) -> tuple[Rule, ...]:
    rules = tuple(messages)
    _check_count(rules, path, MAX_RULES)
    return tuple(
        rule_from_proto(message, kind, f"{path}[{index}]") for index, message in enumerate(rules)
    )


def _check_peers(message: policy_pb2.TierRule, path: str) -> None:
    for name in ("selectors", "blocks", "entities"):
        given: Sized = getattr(message, name)
        _check_count(given, join(path, name), MAX_ITEMS)
        if given and message.all_peers:
            raise Invalid(join(path, name), "excluded by all_peers, which is every peer")
    for index, block in enumerate(message.blocks):
        holes: Sized = getattr(block, "except")
        _check_count(holes, f"{join(path, 'blocks')}[{index}].except", MAX_ITEMS)


def _check_ports(message: policy_pb2.TierRule, path: str) -> None:
    for name in ("ranges", "port_names"):
        given: Sized = getattr(message, name)
        _check_count(given, join(path, name), MAX_ITEMS)
        if given and message.any_port:
            raise Invalid(join(path, name), "excluded by any_port, which is every port")
    # It would match nothing: of a rule that denies, nobody means that.
    if not (message.any_port or message.ranges or message.port_names):
        raise Invalid(join(path, "any_port"), "ranges, port_names or any_port is required")


def _action_from_proto(number: int, kind: PolicyKind, path: str) -> Action:
    known = [Action.ALLOW, Action.DENY]
    if kind in _WITH_PRIORITY:
        known.append(Action.PASS)
    action = next((action for action in known if action == number), None)
    if action is None:
        words = ", ".join(f"RULE_ACTION_{action.name}" for action in known)
        raise Invalid(path, f"{number} is none of {words}, those of a {kind}")
    return action


def _entities_from_proto(numbers: Iterable[int], path: str) -> tuple[Reserved, ...]:
    found = set()
    for index, number in enumerate(numbers):
        entity = next((known for known in Reserved if known and known == number), None)
        if entity is None:
            last = max(Reserved)
            raise Invalid(f"{path}[{index}]", f"{number} is no reserved identity, 1..{last:d}")
        found.add(entity)
    return tuple(sorted(found))


def _range_from_proto(message: policy_pb2.TierPort, path: str) -> PortRange:
    protocol = next((known for known in Protocol if known == int(message.protocol)), None)
    if protocol is None:
        known = ", ".join(f"PROTOCOL_{protocol.name}" for protocol in Protocol)
        raise Invalid(join(path, "protocol"), f"{message.protocol} is none of {known}")
    every = (message.first, message.last) == (0, MAX_PORT)
    if protocol not in TRANSPORTS and message.last > MAX_ICMP_TYPE and not every:
        raise Invalid(join(path, "last"), f"{message.last} is no ICMP type, 0..{MAX_ICMP_TYPE}")
    try:
        return PortRange(protocol, message.first, message.last)
    except ValueError as error:
        raise Invalid(path, str(error)) from error


def _port_names_from_proto(
    messages: Iterable[policy_pb2.TierPortName], path: str
) -> tuple[tuple[str, Protocol], ...]:
    found = set()
    for index, message in enumerate(messages):
        at = f"{path}[{index}]"
        wire.check_name(message.name, join(at, "name"), names.port_name_mistake)
        found.add((message.name, wire.protocol_from_proto(message.protocol, join(at, "protocol"))))
    return tuple(sorted(found))


def _check_count(items: Sized, path: str, limit: int) -> None:
    if len(items) > limit:
        raise Invalid(path, f"has {len(items)} entries; at most {limit} are kept")
