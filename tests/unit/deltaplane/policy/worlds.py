"""Hypothesis strategies for small, dense worlds: few labels, ports and prefixes, so they meet."""

from hypothesis import strategies as st

from deltaplane.model.addresses import Prefix
from deltaplane.model.identity import NAMESPACE_NAME_LABEL, Identity, LabelSet
from deltaplane.model.policy import IPBlock, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from deltaplane.model.ports import TRANSPORTS, NamedPort
from deltaplane.model.selector import LabelSelector, Operator, Requirement

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
