"""ClusterNetworkPolicy and its predecessors that are refused: the path of the field, and why."""

import pytest

from tests.unit.deltaplane.manifest.cluster import admin, cluster, mistakes

HEAD = "tier: Admin, priority: 0, subject: {namespaces: {}}"
PEER = "{namespaces: {}}"


def rule(direction: str = "ingress", **fields: str) -> str:
    """A policy with one rule, some fields of which are replaced; "" takes one away."""
    peers = "from" if direction == "ingress" else "to"
    given = {"action": "Accept", peers: f"[{PEER}]"} | fields
    shown = ", ".join(f"{name}: {text}" for name, text in given.items() if text)
    return cluster(f"{{{HEAD}, {direction}: [{{{shown}}}]}}")


def peer(text: str, direction: str = "egress") -> str:
    field = "to" if direction == "egress" else "from"
    return rule(direction, **{field: f"[{text}]"})


def port(text: str, direction: str = "ingress") -> str:
    return rule(direction, protocols=f"[{text}]")


def repeated(text: str, count: int) -> str:
    return f"[{', '.join([text] * count)}]"


SPEC = {
    "no spec": (cluster("null"), "spec", "is required"),
    "a list": (cluster("[]"), "spec", "must be a mapping, not a list"),
    "no tier": (cluster("{priority: 0, subject: {namespaces: {}}}"), "spec.tier", "is required"),
    "another tier": (
        cluster("{tier: Normal, priority: 0, subject: {namespaces: {}}}"),
        "spec.tier",
        '"Normal" is not supported; supported are Admin, Baseline',
    ),
    "no priority": (
        cluster("{tier: Admin, subject: {namespaces: {}}}"),
        "spec.priority",
        "is required",
    ),
    "priority below": (
        cluster("{tier: Admin, priority: -1, subject: {namespaces: {}}}"),
        "spec.priority",
        "-1 is not between 0 and 1000, inclusive",
    ),
    "priority above": (
        cluster("{tier: Admin, priority: 1001, subject: {namespaces: {}}}"),
        "spec.priority",
        "1001 is not between 0 and 1000, inclusive",
    ),
    "priority of text": (
        cluster('{tier: Admin, priority: "1", subject: {namespaces: {}}}'),
        "spec.priority",
        "must be an integer, not text",
    ),
    "unknown field": (
        cluster(f"{{{HEAD}, policyTypes: [Ingress]}}"),
        "spec.policyTypes",
        "unknown field; known here are egress, ingress, priority, subject, tier",
    ),
    "no subject": (cluster("{tier: Admin, priority: 0}"), "spec.subject", "is required"),
    "empty subject": (
        cluster("{tier: Admin, priority: 0, subject: {}}"),
        "spec.subject",
        "must have exactly one of namespaces, pods",
    ),
    "two subjects": (
        cluster("{tier: Admin, priority: 0, subject: {namespaces: {}, pods: {podSelector: {}}}}"),
        "spec.subject",
        "has namespaces and pods; exactly one of namespaces, pods is possible",
    ),
    "subject without pods": (
        cluster("{tier: Admin, priority: 0, subject: {pods: {namespaceSelector: {}}}}"),
        "spec.subject.pods.podSelector",
        "is required",
    ),
    "26 rules": (
        cluster(f"{{{HEAD}, egress: {repeated(f'{{action: Deny, to: [{PEER}]}}', 26)}}}"),
        "spec.egress",
        "has 26 items; at most 25 are possible",
    ),
    "a namespace": (
        cluster(f"{{{HEAD}}}", "{name: p, namespace: shop}"),
        "metadata.namespace",
        "must be absent: this kind does not live in a namespace",
    ),
    "audit of a number": (
        cluster(f"{{{HEAD}}}", '{name: p, annotations: {deltaplane.dev/audit: "1"}}'),
        "metadata.annotations[deltaplane.dev/audit]",
        '"1" must be "true" or "false"',
    ),
}
RULE = {
    "no action": (rule(action=""), "action", "is required"),
    "the predecessors' action": (
        rule(action="Allow"),
        "action",
        '"Allow" is not supported; supported are Accept, Deny, Pass',
    ),
    "a long name": (
        rule(name="a" * 101),
        "name",
        f'"{"a" * 101}" has 101 characters; at most 100 are accepted',
    ),
    "no peers": (rule(**{"from": ""}), "from", "is required"),
    "an empty list of peers": (rule(**{"from": "[]"}), "from", "must hold at least one item"),
    "26 peers": (
        rule(**{"from": repeated(PEER, 26)}),
        "from",
        "has 26 items; at most 25 are possible",
    ),
    "the other direction": (
        rule(to=f"[{PEER}]"),
        "to",
        "unknown field; known here are action, from, name, protocols",
    ),
    "no protocol": (rule(protocols="[]"), "protocols", "must hold at least one item"),
    "26 protocols": (
        rule(protocols=repeated("{destinationNamedPort: a}", 26)),
        "protocols",
        "has 26 items; at most 25 are possible",
    ),
    "the predecessors' ports": (
        rule(ports="[]"),
        "ports",
        "unknown field; known here are action, from, name, protocols",
    ),
    "an empty peer": (
        peer("{}", "ingress"),
        "from[0]",
        "must have exactly one of namespaces, pods",
    ),
    "two peers in one": (
        peer("{namespaces: {}, pods: {podSelector: {}}}", "ingress"),
        "from[0]",
        "has namespaces and pods; exactly one of namespaces, pods is possible",
    ),
    "a network for ingress": (
        peer("{networks: [10.0.0.0/8]}", "ingress"),
        "from[0].networks",
        "unknown field; known here are namespaces, pods",
    ),
    "a bad selector": (
        peer("{namespaces: {matchLabels: {-: a}}}", "ingress"),
        "from[0].namespaces.matchLabels[-]",
        '"-" is no label key',
    ),
    "pods without a selector": (
        peer("{pods: {}}", "ingress"),
        "from[0].pods.podSelector",
        "is required",
    ),
    "an empty protocol": (
        port("{}"),
        "protocols[0]",
        "must have exactly one of tcp, udp, sctp, destinationNamedPort",
    ),
    "two protocols in one": (
        port("{tcp: {destinationPort: {number: 1}}, udp: {destinationPort: {number: 1}}}"),
        "protocols[0]",
        "has tcp and udp; exactly one of tcp, udp, sctp, destinationNamedPort is possible",
    ),
    "a protocol without port": (
        port("{tcp: {}}"),
        "protocols[0].tcp.destinationPort",
        "is required",
    ),
    "a port of nothing": (
        port("{udp: {destinationPort: {}}}"),
        "protocols[0].udp.destinationPort",
        "must have exactly one of number, range",
    ),
    "number and range": (
        port("{udp: {destinationPort: {number: 1, range: {start: 1, end: 2}}}}"),
        "protocols[0].udp.destinationPort",
        "has number and range; exactly one of number, range is possible",
    ),
    "port 0": (
        port("{udp: {destinationPort: {number: 0}}}"),
        "protocols[0].udp.destinationPort.number",
        "0 is not between 1 and 65535, inclusive",
    ),
    "port 65536": (
        port("{sctp: {destinationPort: {range: {start: 1, end: 65536}}}}"),
        "protocols[0].sctp.destinationPort.range.end",
        "65536 is not between 1 and 65535, inclusive",
    ),
    "a range of one": (
        port("{sctp: {destinationPort: {range: {start: 5, end: 5}}}}"),
        "protocols[0].sctp.destinationPort.range",
        "start 5 must be below end 5",
    ),
    "half a range": (
        port("{sctp: {destinationPort: {range: {start: 5}}}}"),
        "protocols[0].sctp.destinationPort.range.end",
        "is required",
    ),
    "no name of a port": (
        port("{destinationNamedPort: Http}"),
        "protocols[0].destinationNamedPort",
        '"Http" is no port name',
    ),
    "a protocol that is none": (
        port("{icmp: {}}"),
        "protocols[0].icmp",
        "unknown field; known here are",
    ),
}
EGRESS = {
    "nodes": (
        peer("{nodes: {}}"),
        "to[0].nodes",
        "is not supported: nodes have no labels here; write their addresses as networks",
    ),
    "domain names": (
        peer("{domainNames: [example.com]}"),
        "to[0].domainNames",
        "is not supported: nobody follows names to addresses here; write the addresses as networks",
    ),
    "an empty peer": (
        peer("{}"),
        "to[0]",
        "must have exactly one of namespaces, pods, networks, nodes, domainNames",
    ),
    "no network": (peer("{networks: []}"), "to[0].networks", "must hold at least one item"),
    "26 networks": (
        peer(f"{{networks: [{', '.join(f'10.0.{n}.0/24' for n in range(26))}]}}"),
        "to[0].networks",
        "has 26 items; at most 25 are possible",
    ),
    "a network twice": (
        peer("{networks: [10.0.0.0/8, 10.0.0.0/8]}"),
        "to[0].networks[1]",
        '"10.0.0.0/8" is given twice',
    ),
    "an address": (
        peer("{networks: [10.0.0.1]}"),
        "to[0].networks[0]",
        '"10.0.0.1" is no address prefix',
    ),
    "a long network": (
        peer(f"{{networks: ['{'0' * 40}::/0']}}"),
        "to[0].networks[0]",
        "has 44 characters; at most 43 are accepted",
    ),
    "a name of a port of a network": (
        rule("egress", to="[{networks: [10.0.0.0/8]}]", protocols="[{destinationNamedPort: a}]"),
        "",
        "networks have no named ports; write a rule of their own, with numbers",
    ),
}
ADMIN = {
    "no priority": (
        admin("{subject: {namespaces: {}}}"),
        "spec.priority",
        "is required",
    ),
    "a tier": (
        admin("{subject: {namespaces: {}}, priority: 1, tier: Admin}"),
        "spec.tier",
        "unknown field",
    ),
    "a priority of the baseline": (
        admin("{subject: {namespaces: {}}, priority: 1}", "BaselineAdminNetworkPolicy"),
        "spec.priority",
        "unknown field",
    ),
    "another baseline": (
        admin("{subject: {namespaces: {}}}", "BaselineAdminNetworkPolicy", "b"),
        "metadata.name",
        '"b" is not possible: there is one BaselineAdminNetworkPolicy, named "default"',
    ),
    "no namespaceSelector": (
        admin("{subject: {pods: {podSelector: {}}}, priority: 1}"),
        "spec.subject.pods.namespaceSelector",
        "is required",
    ),
    "the first version's subject": (
        admin("{subject: {namespaceSelector: {}}, priority: 1}"),
        "spec.subject.namespaceSelector",
        'unknown field; did you mean "namespaces"?',
    ),
    "101 rules": (
        admin(
            "{subject: {namespaces: {}}, priority: 1, ingress: "
            f"{repeated(f'{{action: Deny, from: [{PEER}]}}', 101)}}}"
        ),
        "spec.ingress",
        "has 101 items; at most 100 are possible",
    ),
}
PORTS = {
    "an empty port": ("{}", "", "must have exactly one of portNumber, portRange, namedPort"),
    "no number": ("{portNumber: {protocol: TCP}}", ".portNumber.port", "is required"),
    "port 0": (
        "{portNumber: {port: 0}}",
        ".portNumber.port",
        "0 is not between 1 and 65535, inclusive",
    ),
    "another protocol": (
        "{portNumber: {protocol: ICMP, port: 1}}",
        ".portNumber.protocol",
        '"ICMP" is not supported; supported are TCP, UDP, SCTP',
    ),
    "a range upside down": (
        "{portRange: {start: 9, end: 1}}",
        ".portRange",
        "start 9 must be below end 1",
    ),
    "no name": ("{namedPort: 80}", ".namedPort", "must be text, not a number; put it in quotes"),
    "number and name": (
        "{namedPort: web, portNumber: {port: 1}}",
        "",
        "has portNumber and namedPort; exactly one of portNumber, portRange, namedPort is possible",
    ),
}


@pytest.mark.parametrize(("text", "path", "reason"), SPEC.values(), ids=SPEC)
def test_a_spec_is_checked(text: str, path: str, reason: str) -> None:
    _check(text, path, reason)


@pytest.mark.parametrize(("text", "path", "reason"), RULE.values(), ids=RULE)
def test_a_rule_is_checked(text: str, path: str, reason: str) -> None:
    _check(text, f"spec.ingress[0].{path}".rstrip("."), reason)


@pytest.mark.parametrize(("text", "path", "reason"), EGRESS.values(), ids=EGRESS)
def test_a_destination_is_checked(text: str, path: str, reason: str) -> None:
    _check(text, f"spec.egress[0].{path}".rstrip("."), reason)


@pytest.mark.parametrize(("text", "path", "reason"), ADMIN.values(), ids=ADMIN)
def test_a_predecessor_is_checked(text: str, path: str, reason: str) -> None:
    _check(text, path, reason)


@pytest.mark.parametrize(("text", "path", "reason"), PORTS.values(), ids=PORTS)
def test_ports_of_a_predecessor_are_checked(text: str, path: str, reason: str) -> None:
    spec = (
        "{subject: {namespaces: {}}, ingress: "
        f"[{{action: Deny, from: [{PEER}], ports: [{text}]}}]}}"
    )
    _check(admin(spec, "BaselineAdminNetworkPolicy"), f"spec.ingress[0].ports[0]{path}", reason)


def _check(text: str, path: str, reason: str) -> None:
    """Exactly one mistake, there, of which the reason is all or the beginning."""
    found = mistakes(text)
    assert list(found) == [path], found
    assert found[path].startswith(reason)
