"""Hypothesis strategies for policies of every kind but NetworkPolicy, in their canonical form."""

from hypothesis import strategies as st

from deltaplane.model.addresses import Prefix
from deltaplane.model.identity import Reserved
from deltaplane.model.policy import IPBlock
from deltaplane.model.ports import TRANSPORTS, PortRange, Protocol, merge_ranges
from deltaplane.model.selector import LabelSelector, Operator, Requirement
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
from deltaplane.policywire import TIERS
from tests.unit.deltaplane.policy import worlds

WITH_PRIORITY = (PolicyKind.CLUSTER, PolicyKind.ADMIN)


# Few and ready-made: what a label selector may be is tested elsewhere, and drawing it is slow.
LABELS = (
    LabelSelector(),
    LabelSelector.of({"app": "a"}),
    LabelSelector.of({"app": "b", "tier": "c"}),
    LabelSelector((Requirement("app", Operator.NOT_IN, ("a", "b")),)),
    LabelSelector((Requirement("tier", Operator.EXISTS), Requirement("app", Operator.IN, ("c",)))),
)
BLOCKS = (
    IPBlock(Prefix.parse("10.0.0.0/8")),
    IPBlock(Prefix.parse("0.0.0.0/0"), (Prefix.parse("10.0.0.0/24"), Prefix.parse("10.1.0.0/16"))),
    IPBlock(Prefix.parse("::/0"), (Prefix.parse("fd00::/64"),)),
)
selectors = st.sampled_from(
    tuple(Selector(namespace=name, pods=pods) for name in worlds.NAMESPACES for pods in LABELS)
    + tuple(Selector(namespaces=each, pods=pods) for each in LABELS for pods in LABELS)
)


@st.composite
def ranges(draw: st.DrawFn) -> PortRange:
    protocol = draw(st.sampled_from(Protocol))
    limit = 65535 if protocol in TRANSPORTS else 255
    first = draw(st.integers(0, limit))
    return draw(
        st.sampled_from(
            (PortRange(protocol), PortRange(protocol, first, draw(st.integers(first, limit))))
        )
    )


@st.composite
def rules(draw: st.DrawFn, kind: PolicyKind) -> Rule:
    actions = [Action.ALLOW, Action.DENY]
    if kind in WITH_PRIORITY:
        actions.append(Action.PASS)
    rule = Rule(
        action=draw(st.sampled_from(actions)),
        outside_only=draw(st.booleans()),
        name=draw(st.sampled_from(("", "first"))),
        all_peers=draw(st.booleans()),
        any_port=True,
    )
    fields: dict[str, object] = {}
    if not rule.all_peers:
        fields["selectors"] = tuple(draw(st.lists(selectors, max_size=2)))
        fields["blocks"] = tuple(draw(st.lists(st.sampled_from(BLOCKS), max_size=2)))
        known = [entity for entity in Reserved if entity]
        fields["entities"] = tuple(sorted(draw(st.sets(st.sampled_from(known), max_size=3))))
    if draw(st.booleans()):
        name = st.tuples(st.sampled_from(worlds.PORT_NAMES), st.sampled_from(TRANSPORTS))
        fields["any_port"] = False
        fields["ranges"] = merge_ranges(draw(st.lists(ranges(), min_size=1, max_size=3)))
        fields["port_names"] = tuple(sorted(draw(st.sets(name, max_size=2))))
    return _with(rule, fields)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    kind = draw(st.sampled_from(tuple(TIERS)))
    tier = draw(st.sampled_from(TIERS[kind]))
    namespace = draw(st.sampled_from(worlds.NAMESPACES)) if kind.is_namespaced else ""
    name = draw(st.sampled_from(("p", "q", "r.s")))
    subject = draw(selectors)
    return Policy(
        kind=kind,
        namespace=namespace,
        name=BASELINE_NAME if kind is PolicyKind.BASELINE_ADMIN else name,
        subject=Selector(namespace=namespace, pods=subject.pods) if namespace else subject,
        tier=tier,
        priority=draw(st.integers(0, MAX_PRIORITY)) if kind in WITH_PRIORITY else 0,
        isolates_ingress=tier is Tier.NORMAL and draw(st.booleans()),
        isolates_egress=tier is Tier.NORMAL and draw(st.booleans()),
        audit=draw(st.booleans()),
        ingress=tuple(draw(st.lists(rules(kind), max_size=2))),
        egress=tuple(draw(st.lists(rules(kind), max_size=2))),
    )


def _with(rule: Rule, fields: dict[str, object]) -> Rule:
    given = {name: getattr(rule, name) for name in Rule.__dataclass_fields__}
    return Rule(**(given | fields))
