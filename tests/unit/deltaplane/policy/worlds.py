"""Hypothesis strategies for small, dense worlds: few labels, ports and prefixes, so they meet."""

from hypothesis import strategies as st

from deltaplane.model.addresses import Prefix
from deltaplane.model.identity import NAMESPACE_NAME_LABEL, Identity, LabelSet, Reserved
from deltaplane.model.policy import IPBlock, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from deltaplane.model.ports import TRANSPORTS, NamedPort, PortRange, Protocol, merge_ranges
from deltaplane.model.selector import LabelSelector, Operator, Requirement
from deltaplane.model.tiers import Action, Policy, PolicyKind, Rule, Selector, Tier

NAMESPACES = ("red", "blue")
KEYS = ("app", "tier")
VALUES = ("a", "b", "c")
PORT_NAMES = ("http", "dns")
PORTS = (53, 80, 81, 8080)
ADDRESSES = (
    "10.0.0.1",
    "10.0.0.9",
    "10.0.1.1",
    "192.0.2.1",
    "fd00::1",
    "fd00::9",
    "fd00:1::1",
    "2001:db8::1",
)
PREFIXES = tuple(
    Prefix.parse(text)
    for text in (
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.0/24",
        "10.0.0.0/29",
        "10.0.0.1/32",
        "::/0",
        "::/1",
        "fd00::/16",
        "fd00::/64",
        "fd00::1/128",
    )
)

protocols = st.sampled_from(TRANSPORTS)
labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=2)
named_ports = st.builds(NamedPort, st.sampled_from(PORT_NAMES), protocols, st.sampled_from(PORTS))


@st.composite
def requirements(draw: st.DrawFn, keys: tuple[str, ...] = KEYS) -> Requirement:
    operator = draw(st.sampled_from(Operator))
    values: tuple[str, ...] = ()
    key = draw(st.sampled_from(keys))
    if operator in (Operator.IN, Operator.NOT_IN):
        options = NAMESPACES if key == NAMESPACE_NAME_LABEL else VALUES
        values = tuple(draw(st.lists(st.sampled_from(options), min_size=1, max_size=2)))
    return Requirement(key, operator, values)


def selectors(keys: tuple[str, ...] = KEYS) -> st.SearchStrategy[LabelSelector]:
    return st.lists(requirements(keys), max_size=2).map(lambda r: LabelSelector(tuple(r)))


@st.composite
def blocks(draw: st.DrawFn) -> IPBlock:
    cidr = draw(st.sampled_from(PREFIXES))
    inside = [p for p in PREFIXES if cidr.contains(p) and p.length > cidr.length]
    holes = draw(st.lists(st.sampled_from(inside), max_size=2)) if inside else []
    return IPBlock(cidr, tuple(holes))


@st.composite
def peers(draw: st.DrawFn) -> PolicyPeer:
    kind = draw(st.sampled_from(("pods", "namespaces", "both", "block")))
    if kind == "block":
        return PolicyPeer(ip_block=draw(blocks()))
    namespace_keys = ("tier", NAMESPACE_NAME_LABEL)
    return PolicyPeer(
        pod_selector=None if kind == "namespaces" else draw(selectors()),
        namespace_selector=None if kind == "pods" else draw(selectors(namespace_keys)),
    )


@st.composite
def ports(draw: st.DrawFn) -> PolicyPort:
    protocol = draw(protocols)
    kind = draw(st.sampled_from(("all", "number", "range", "name")))
    match kind:
        case "number":
            return PolicyPort(protocol=protocol, port=draw(st.sampled_from(PORTS)))
        case "range":
            first = draw(st.sampled_from((1, 53, 79, 80, 81)))
            last = draw(st.sampled_from((81, 100, 8080, 65535)))
            return PolicyPort(protocol=protocol, port=first, end_port=last)
        case "name":
            return PolicyPort(protocol=protocol, port=draw(st.sampled_from(PORT_NAMES)))
        case _:
            return PolicyPort(protocol=protocol)


rules = st.builds(
    PolicyRule,
    peers=st.lists(peers(), max_size=2).map(tuple),
    ports=st.lists(ports(), max_size=2).map(tuple),
)
rule_lists = st.lists(rules, max_size=2).map(tuple)


@st.composite
def policies(draw: st.DrawFn) -> NetworkPolicy:
    ingress, egress = draw(st.sampled_from(((True, False), (False, True), (True, True))))
    return NetworkPolicy(
        namespace=draw(st.sampled_from(NAMESPACES)),
        name=draw(st.sampled_from(("p", "q", "r"))),
        pod_selector=draw(selectors()),
        applies_to_ingress=ingress,
        applies_to_egress=egress,
        ingress=draw(rule_lists),
        egress=draw(rule_lists),
        audit=draw(st.sampled_from((False, False, False, True))),
    )


@st.composite
def label_sets(draw: st.DrawFn) -> LabelSet:
    namespace = draw(st.sampled_from(NAMESPACES))
    # Namespace labels are a function of the namespace, as in a cluster at one moment.
    tier = {"red": {"tier": "a"}, "blue": {}}[namespace]
    found = tuple(draw(st.lists(named_ports, max_size=2)))
    return LabelSet.of(namespace, tier, draw(labels), found)


@st.composite
def identities(draw: st.DrawFn) -> tuple[Identity, ...]:
    sets = draw(st.lists(label_sets(), min_size=1, max_size=4, unique=True))
    return tuple(Identity(256 + index, label_set) for index, label_set in enumerate(sets))


@st.composite
def policy_lists(draw: st.DrawFn) -> tuple[NetworkPolicy, ...]:
    return tuple(draw(st.lists(policies(), max_size=4, unique_by=lambda policy: policy.reference)))


# --- policies of all kinds ------------------------------------------------------------------------

ICMP_TYPES = (0, 3, 8, 128)
ENTITIES = tuple(entity for entity in Reserved if entity is not Reserved.NONE)
TIERS = {
    PolicyKind.CILIUM: (Tier.NORMAL,),
    PolicyKind.CILIUM_CLUSTERWIDE: (Tier.NORMAL,),
    PolicyKind.CLUSTER: (Tier.ADMIN, Tier.BASELINE),
    PolicyKind.ADMIN: (Tier.ADMIN,),
    PolicyKind.BASELINE_ADMIN: (Tier.BASELINE,),
}

general_selectors = st.builds(
    Selector,
    namespace=st.sampled_from((*NAMESPACES, None)),
    namespaces=selectors(("tier", NAMESPACE_NAME_LABEL)),
    pods=selectors(),
)


port_ranges = st.one_of(
    st.builds(
        PortRange,
        protocols,
        st.sampled_from((0, 53, 79, 80, 81)),
        st.sampled_from((81, 100, 8080, 65535)),
    ),
    st.builds(
        lambda protocol, number: PortRange(protocol, number, number),
        st.sampled_from((Protocol.ICMP, Protocol.ICMPV6)),
        st.sampled_from(ICMP_TYPES),
    ),
)
_ways = st.fixed_dictionaries(
    {
        "selectors": st.lists(general_selectors, max_size=2).map(tuple),
        "blocks": st.lists(blocks(), max_size=2).map(tuple),
        "entities": st.lists(st.sampled_from(ENTITIES), max_size=2).map(tuple),
        "outside_only": st.booleans(),
    }
)
_ports = st.fixed_dictionaries(
    {
        "ranges": st.lists(port_ranges, max_size=2).map(merge_ranges),
        "port_names": st.sets(st.tuples(st.sampled_from(PORT_NAMES), protocols), max_size=2).map(
            lambda names: tuple(sorted(names))
        ),
    }
)


def general_rules(actions: tuple[Action, ...]) -> st.SearchStrategy[Rule]:
    return st.builds(
        lambda action, name, ways, ports: Rule(action=action, name=name, **ways, **ports),
        st.sampled_from(actions),
        st.sampled_from(("", "r")),
        st.one_of(st.just({"all_peers": True}), _ways, _ways),
        st.one_of(st.just({"any_port": True}), _ports),
    )


_normal_rules = st.lists(general_rules((Action.ALLOW, Action.DENY)), max_size=3).map(tuple)
_tiered_rules = st.lists(general_rules(tuple(Action)), max_size=3).map(tuple)


@st.composite
def general_policies(draw: st.DrawFn) -> Policy:
    kind = draw(st.sampled_from(tuple(TIERS)))
    tier = draw(st.sampled_from(TIERS[kind]))
    is_normal = tier is Tier.NORMAL
    rules = _normal_rules if is_normal else _tiered_rules
    return Policy(
        kind=kind,
        namespace=draw(st.sampled_from(NAMESPACES)) if kind.is_namespaced else "",
        name=draw(st.sampled_from(("p", "q", "r"))),
        subject=draw(general_selectors),
        tier=tier,
        priority=0 if is_normal else draw(st.sampled_from((0, 1, 1000))),
        isolates_ingress=is_normal and draw(st.booleans()),
        isolates_egress=is_normal and draw(st.booleans()),
        audit=draw(st.sampled_from((False, False, False, True))),
        ingress=draw(rules),
        egress=draw(rules),
    )


any_policies = st.one_of(policies(), general_policies())


@st.composite
def any_policy_lists(draw: st.DrawFn) -> tuple[NetworkPolicy | Policy, ...]:
    listed = st.lists(any_policies, max_size=6, unique_by=lambda policy: policy.reference)
    return tuple(draw(listed))
