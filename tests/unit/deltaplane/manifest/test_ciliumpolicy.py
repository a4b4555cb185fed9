"""What Cilium's policies mean here, and which are refused, with the path and the reason."""

import json

import pytest

from deltaplane.manifest.ciliumports import ICMP_TYPES, MAX_PORTS
from deltaplane.model.addresses import Prefix
from deltaplane.model.identity import NAMESPACE_NAME_LABEL, Reserved
from deltaplane.model.policy import IPBlock
from deltaplane.model.ports import TRANSPORTS, PortRange, Protocol
from deltaplane.model.selector import LabelSelector, Operator, Requirement
from deltaplane.model.tiers import Action, Policy, PolicyKind, Rule, Selector, Tier
from tests.unit.deltaplane.manifest.cilium import CCNP, CNP, mistakes, policy, read

WEB = LabelSelector.of({"app": "web"})
TCP_80 = PortRange(Protocol.TCP, 80, 80)


def labelled(key: str, operator: Operator, *values: str) -> LabelSelector:
    return LabelSelector((Requirement(key, operator, values),))


def block(cidr: str, *holes: str) -> IPBlock:
    return IPBlock(Prefix.parse(cidr), tuple(Prefix.parse(hole) for hole in holes))


def rule_of(rule: str, kind: str = CNP) -> Rule:
    """The only rule of a policy with one ingress rule."""
    (found,) = policy(f"{{endpointSelector: {{}}, ingress: [{rule}]}}", kind).ingress
    return found


def test_a_whole_policy() -> None:
    body = """\
spec:
  description: what the web may do
  labels: [{key: team, value: red}]
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchLabels: {k8s:app: front}}]
    toPorts: [{ports: [{port: "80", protocol: TCP}, {port: http, protocol: TCP}]}]
  ingressDeny:
  - fromEntities: [world]
  egressDeny:
  - toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}, {cidr: fd00::/8}]
    icmps: [{fields: [{type: 8}, {family: IPv6, type: EchoRequest}]}]
status: {nodes: {}}
"""
    assert read(body, annotations='{deltaplane.dev/audit: "true"}').policy == Policy(
        kind=PolicyKind.CILIUM,
        namespace="shop",
        name="p",
        subject=Selector(namespace="shop", pods=WEB),
        tier=Tier.NORMAL,
        isolates_ingress=True,
        isolates_egress=True,
        audit=True,
        ingress=(
            Rule(
                selectors=(Selector(namespace="shop", pods=LabelSelector.of({"app": "front"})),),
                ranges=(TCP_80,),
                port_names=(("http", Protocol.TCP),),
                name="ingress[0]",
            ),
            Rule(
                action=Action.DENY,
                entities=(Reserved.WORLD,),
                any_port=True,
                name="ingressDeny[0]",
            ),
        ),
        egress=(
            Rule(
                action=Action.DENY,
                blocks=(block("10.0.0.0/8", "10.1.0.0/16"), block("fd00::/8")),
                outside_only=True,
                ranges=(
                    PortRange(Protocol.ICMP, 8, 8),
                    PortRange(Protocol.ICMPV6, 128, 128),
                ),
                name="egressDeny[0]",
            ),
        ),
    )


@pytest.mark.parametrize(
    ("selector", "kind", "subject"),
    [
        ("{}", CNP, Selector(namespace="shop")),
        ("{}", CCNP, Selector()),
        ("{matchLabels: {app: web}}", CNP, Selector(namespace="shop", pods=WEB)),
        ("{matchLabels: {any:app: web}}", CCNP, Selector(pods=WEB)),
        ("{matchLabels: {k8s:app: web}}", CCNP, Selector(pods=WEB)),
        (
            "{matchLabels: {app: web, k8s:io.kubernetes.pod.namespace: shop}}",
            CNP,
            Selector(namespace="shop", pods=WEB),
        ),
        (
            "{matchLabels: {io.kubernetes.pod.namespace: shop}}",
            CCNP,
            Selector(namespace="shop"),
        ),
        (
            (
                "{matchExpressions: [{key: io.kubernetes.pod.namespace, operator: NotIn, "
                "values: [kube-system]}]}"
            ),
            CCNP,
            Selector(namespaces=labelled(NAMESPACE_NAME_LABEL, Operator.NOT_IN, "kube-system")),
        ),
        (
            "{matchLabels: {io.cilium.k8s.namespace.labels.a.b/c: d}}",
            CCNP,
            Selector(namespaces=LabelSelector.of({"a.b/c": "d"})),
        ),
    ],
)
def test_whom_a_policy_applies_to(selector: str, kind: str, subject: Selector) -> None:
    assert policy(f"{{endpointSelector: {selector}, ingress: [{{}}]}}", kind).subject == subject


@pytest.mark.parametrize(
    ("item", "kind", "peer"),
    [
        ("{}", CNP, Selector(namespace="shop")),
        ("{matchLabels: {}}", CNP, Selector(namespace="shop")),
        ("{}", CCNP, Selector()),
        ("{matchLabels: {app: web}}", CNP, Selector(namespace="shop", pods=WEB)),
        ("{matchLabels: {app: web}}", CCNP, Selector(pods=WEB)),
        (
            "{matchLabels: {app: web, k8s:io.kubernetes.pod.namespace: other}}",
            CNP,
            Selector(namespace="other", pods=WEB),
        ),
        (
            "{matchExpressions: [{key: k8s:io.kubernetes.pod.namespace, operator: Exists}]}",
            CNP,
            Selector(),
        ),
        (
            (
                "{matchExpressions: [{key: any:io.kubernetes.pod.namespace, operator: In, "
                "values: [b, a]}]}"
            ),
            CNP,
            Selector(namespaces=labelled(NAMESPACE_NAME_LABEL, Operator.IN, "a", "b")),
        ),
        (
            "{matchLabels: {k8s:io.cilium.k8s.namespace.labels.team: red, app: web}}",
            CNP,
            Selector(namespaces=LabelSelector.of({"team": "red"}), pods=WEB),
        ),
        (
            (
                "{matchLabels: {k8s:io.cilium.k8s.namespace.labels.team: red, "
                "k8s:io.kubernetes.pod.namespace: a}}"
            ),
            CCNP,
            Selector(namespaces=LabelSelector.of({"team": "red", NAMESPACE_NAME_LABEL: "a"})),
        ),
        (
            "{matchLabels: {io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name: a}}",
            CNP,
            Selector(namespace="a"),
        ),
        (
            (
                "{matchExpressions: [{key: io.cilium.k8s.namespace.labels.team, "
                "operator: DoesNotExist}]}"
            ),
            CNP,
            Selector(namespaces=labelled("team", Operator.DOES_NOT_EXIST)),
        ),
        (
            "{matchExpressions: [{key: app, operator: NotIn, values: [web, db]}]}",
            CNP,
            Selector(namespace="shop", pods=labelled("app", Operator.NOT_IN, "web", "db")),
        ),
    ],
)
def test_peers_by_label(item: str, kind: str, peer: Selector) -> None:
    expected = Rule(selectors=(peer,), any_port=True, name="ingress[0]")
    assert rule_of(f"{{fromEndpoints: [{item}]}}", kind) == expected


CLUSTER = (
    Reserved.HOST,
    Reserved.OTHER_POD,
    Reserved.UNKNOWN,
    Reserved.INIT,
    Reserved.HEALTH,
    Reserved.REMOTE_NODE,
    Reserved.KUBE_APISERVER,
)


@pytest.mark.parametrize(
    ("words", "entities"),
    [
        ("host", (Reserved.HOST,)),
        ("remote-node", (Reserved.REMOTE_NODE,)),
        ("world", (Reserved.WORLD,)),
        ("kube-apiserver", (Reserved.KUBE_APISERVER,)),
        ("init", (Reserved.INIT,)),
        ("health", (Reserved.HEALTH,)),
        ("unmanaged", (Reserved.UNKNOWN,)),
        ("cluster", CLUSTER),
        ("none", ()),
        ("none, world, world", (Reserved.WORLD,)),
        ("cluster, world", tuple(sorted((*CLUSTER, Reserved.WORLD)))),
    ],
)
def test_peers_by_entity(words: str, entities: tuple[Reserved, ...]) -> None:
    expected = Rule(entities=entities, any_port=True, name="ingress[0]")
    assert rule_of(f"{{fromEntities: [{words}]}}") == expected


def test_everybody_is_every_peer_and_nothing_beside_it() -> None:
    expected = Rule(all_peers=True, any_port=True, name="ingress[0]")
    assert rule_of("{fromEntities: [all]}") == expected
    assert rule_of("{fromEntities: [host, all, world]}") == expected


@pytest.mark.parametrize(
    "item",
    [
        '{matchLabels: {"reserved:host": ""}}',
        "{matchExpressions: [{key: reserved:host, operator: Exists}]}",
        '{matchLabels: {reserved.host: ""}}',
    ],
)
def test_a_reserved_label_is_an_entity(item: str) -> None:
    expected = Rule(
        selectors=(Selector(namespace="shop", pods=WEB),),
        entities=(Reserved.HOST,),
        any_port=True,
        name="ingress[0]",
    )
    assert rule_of(f"{{fromEndpoints: [{item}, {{matchLabels: {{app: web}}}}]}}") == expected


@pytest.mark.parametrize("field", ["CIDR", "CIDRSet"])
def test_peers_by_address_are_outside_and_lose_their_host_bits(field: str) -> None:
    cidrs = ("10.1.2.3/8", "2001:db8::1/32", "0.0.0.0/0", "::/0", "10.0.0.0/8")
    listed = ", ".join(f"'{cidr}'" if field == "CIDR" else f"{{cidr: '{cidr}'}}" for cidr in cidrs)
    found = policy(f"{{endpointSelector: {{}}, egress: [{{to{field}: [{listed}]}}]}}").egress
    assert found == (
        Rule(
            blocks=tuple(map(block, ("10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0", "::/0"))),
            outside_only=True,
            any_port=True,
            name="egress[0]",
        ),
    )


def every(*protocols: Protocol, first: int, last: int) -> tuple[PortRange, ...]:
    return tuple(PortRange(protocol, first, last) for protocol in protocols)


@pytest.mark.parametrize(
    ("ports", "ranges", "names"),
    [
        ("{port: '80', protocol: TCP}", (TCP_80,), ()),
        ("{port: '53', protocol: UDP}", (PortRange(Protocol.UDP, 53, 53),), ()),
        ("{port: '9', protocol: SCTP}", (PortRange(Protocol.SCTP, 9, 9),), ()),
        ("{port: '80'}", every(*TRANSPORTS, first=80, last=80), ()),
        ("{port: '80', protocol: ANY}", every(*TRANSPORTS, first=80, last=80), ()),
        ("{port: '0', protocol: TCP}", every(Protocol.TCP, first=0, last=65535), ()),
        # Every port of every transport, but no ICMP.
        ("{port: '0'}", every(*TRANSPORTS, first=0, last=65535), ()),
        ("{port: '65535', protocol: TCP}", every(Protocol.TCP, first=65535, last=65535), ()),
        ("{port: '80', endPort: 90, protocol: TCP}", every(Protocol.TCP, first=80, last=90), ()),
        ("{port: '80', endPort: 80, protocol: TCP}", (TCP_80,), ()),
        ("{port: '80', endPort: 0, protocol: TCP}", (TCP_80,), ()),
        ("{port: HTTP, protocol: TCP}", (), (("http", Protocol.TCP),)),
        ("{port: http}", (), tuple(("http", protocol) for protocol in TRANSPORTS)),
        # Not hexadecimal.
        ("{port: '0x50', protocol: UDP}", (), (("0x50", Protocol.UDP),)),
        (
            (
                "{port: '80', endPort: 90, protocol: TCP}, {port: '91', protocol: TCP}, "
                "{port: b, protocol: TCP}, {port: '85', protocol: TCP}, {port: a, protocol: UDP}"
            ),
            every(Protocol.TCP, first=80, last=91),
            (("a", Protocol.UDP), ("b", Protocol.TCP)),
        ),
    ],
)
def test_ports(
    ports: str, ranges: tuple[PortRange, ...], names: tuple[tuple[str, Protocol], ...]
) -> None:
    expected = Rule(all_peers=True, ranges=ranges, port_names=names, name="ingress[0]")
    assert rule_of(f"{{toPorts: [{{ports: [{ports}]}}]}}") == expected


def test_entries_of_ports_add_up_and_each_may_have_forty() -> None:
    entries = []
    for first in (1, 1 + MAX_PORTS):
        numbers = range(first, first + MAX_PORTS)
        ports = ", ".join(f"{{port: '{number}', protocol: TCP}}" for number in numbers)
        entries.append(f"{{ports: [{ports}]}}")
    assert rule_of(f"{{toPorts: [{', '.join(entries)}]}}").ranges == every(
        Protocol.TCP, first=1, last=2 * MAX_PORTS
    )


@pytest.mark.parametrize(
    ("fields", "ranges"),
    [
        ("{type: 0}", every(Protocol.ICMP, first=0, last=0)),
        ("{type: 255, family: IPv4}", every(Protocol.ICMP, first=255, last=255)),
        ("{type: '8'}", every(Protocol.ICMP, first=8, last=8)),
        (
            "{type: Echo}, {type: EchoReply}",
            (PortRange(Protocol.ICMP, 0, 0), PortRange(Protocol.ICMP, 8, 8)),
        ),
        ("{type: EchoRequest, family: IPv6}", every(Protocol.ICMPV6, first=128, last=128)),
        (
            "{type: DestinationUnreachable}, {type: DestinationUnreachable, family: IPv6}",
            (PortRange(Protocol.ICMP, 3, 3), PortRange(Protocol.ICMPV6, 1, 1)),
        ),
    ],
)
def test_icmp_types(fields: str, ranges: tuple[PortRange, ...]) -> None:
    expected = Rule(all_peers=True, ranges=ranges, name="ingress[0]")
    assert rule_of(f"{{icmps: [{{fields: [{fields}]}}]}}") == expected


def icmp_rule(name: str, family: str) -> str:
    return f"{{icmps: [{{fields: [{{type: {name}, family: {family}}}]}}]}}"


def test_every_name_of_an_icmp_type_is_read_in_its_family_only() -> None:
    for family, protocol, other in (
        ("IPv4", Protocol.ICMP, Protocol.ICMPV6),
        ("IPv6", Protocol.ICMPV6, Protocol.ICMP),
    ):
        for name, number in ICMP_TYPES[protocol].items():
            expected = every(protocol, first=number, last=number)
            assert rule_of(icmp_rule(name, family)).ranges == expected
        for name in ICMP_TYPES[other].keys() - ICMP_TYPES[protocol].keys():
            body = f"spec: {{endpointSelector: {{}}, ingress: [{icmp_rule(name, family)}]}}"
            assert mistakes(body).keys() == {"spec.ingress[0].icmps[0].fields[0].type"}


NOTHING = Rule(any_port=True, name="ingress[0]")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # Nobody and nothing said: the rule isolates, and that is all.
        ("{}", NOTHING),
        ("{toPorts: []}", NOTHING),
        ("{icmps: []}", NOTHING),
        ("{fromEndpoints: null}", NOTHING),
        ("{fromEndpoints: []}", NOTHING),
        ("{fromEntities: []}", NOTHING),
        ("{fromCIDR: []}", NOTHING),
        ("{fromCIDRSet: []}", NOTHING),
        # An empty list beside another one still is nobody.
        ("{fromEndpoints: [], fromEntities: [all]}", NOTHING),
        ("{fromCIDR: [], fromCIDRSet: [{cidr: 10.0.0.0/8}]}", NOTHING),
        (
            "{fromEndpoints: [], toPorts: [{ports: [{port: '80', protocol: TCP}]}]}",
            Rule(ranges=(TCP_80,), name="ingress[0]"),
        ),
        (
            "{toPorts: [{ports: [{port: '80', protocol: TCP}]}]}",
            Rule(all_peers=True, ranges=(TCP_80,), name="ingress[0]"),
        ),
        (
            "{toPorts: [{ports: [{port: '80', protocol: TCP}]}], icmps: []}",
            Rule(all_peers=True, ranges=(TCP_80,), name="ingress[0]"),
        ),
    ],
)
def test_what_is_absent_and_what_is_empty(rule: str, expected: Rule) -> None:
    assert rule_of(rule) == expected


@pytest.mark.parametrize(
    ("sections", "isolates"),
    [
        ("ingress: [{}]", (True, False)),
        ("ingressDeny: [{}]", (True, False)),
        ("egress: [{}]", (False, True)),
        ("egressDeny: [{}]", (False, True)),
        ("ingress: [{}], egressDeny: [{}]", (True, True)),
        # Without rules a section counts for nothing, as in Cilium.
        ("ingress: [{}], egress: []", (True, False)),
        ("ingress: [{}], enableDefaultDeny: {}", (True, False)),
        ("ingress: [{}], enableDefaultDeny: {ingress: true}", (True, False)),
        ("ingress: [{}], enableDefaultDeny: {ingress: false}", (False, False)),
        ("ingress: [{}], enableDefaultDeny: {egress: false}", (True, False)),
        ("ingress: [{}], egress: [{}], enableDefaultDeny: {ingress: false}", (False, True)),
        ("ingressDeny: [{}], enableDefaultDeny: {ingress: false, egress: false}", (False, False)),
    ],
)
def test_who_is_isolated(sections: str, isolates: tuple[bool, bool]) -> None:
    found = policy(f"{{endpointSelector: {{}}, {sections}}}")
    assert (found.isolates_ingress, found.isolates_egress) == isolates


def test_specs_with_one_subject_become_one_policy() -> None:
    body = """\
spec: {endpointSelector: {matchLabels: {app: web}}, ingress: [{fromEntities: [host]}]}
specs:
- endpointSelector: {matchLabels: {k8s:app: web}}
  ingress: [{fromEntities: [world]}]
  enableDefaultDeny: {ingress: false}
- endpointSelector: {matchExpressions: [{key: app, operator: In, values: [web]}]}
  egressDeny: [{toEntities: [all]}]
"""
    manifest = read(body)
    assert manifest.policy.subject == Selector(namespace="shop", pods=WEB)
    assert manifest.policy.isolates_ingress
    assert manifest.policy.isolates_egress
    assert [(rule.name, rule.entities) for rule in manifest.policy.ingress] == [
        ("ingress[0]", (Reserved.HOST,)),
        ("specs[0].ingress[0]", (Reserved.WORLD,)),
    ]
    assert [rule.name for rule in manifest.policy.egress] == ["specs[1].egressDeny[0]"]
    assert [spec["endpointSelector"] for spec in json.loads(manifest.spec)] == [
        {"matchLabels": {"app": "web"}},
        {"matchLabels": {"k8s:app": "web"}},
        {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]},
    ]


def test_specs_with_several_subjects_are_refused() -> None:
    body = "specs: [{endpointSelector: {}, ingress: [{}]}, %s]"
    found = mistakes(body % "{endpointSelector: {matchLabels: {app: web}}, ingress: [{}]}")
    assert found.keys() == {"specs[1].endpointSelector"}
    assert "a policy of its own" in found["specs[1].endpointSelector"]


def test_the_spec_is_kept_as_it_was_written() -> None:
    spec = '{"endpointSelector": {}, "description": "\u00fc", "ingress": [{"toPorts": null}]}'
    assert json.loads(read(f"spec: {spec}").spec) == json.loads(spec)


@pytest.mark.parametrize(
    ("annotations", "audit"),
    [
        ("{}", False),
        ('{deltaplane.dev/audit: "false"}', False),
        ('{deltaplane.dev/audit: "true"}', True),
    ],
)
def test_audit_is_asked_for_by_annotation(annotations: str, *, audit: bool) -> None:
    body = "spec: {endpointSelector: {}, ingress: [{}]}"
    assert read(body, annotations=annotations).policy.audit is audit
    assert read(body, CCNP, annotations).policy.audit is audit


def test_a_clusterwide_policy_lives_in_no_namespace() -> None:
    manifest = read("spec: {endpointSelector: {}, ingress: [{}]}", CCNP)
    assert (manifest.namespace, manifest.name) == ("", "p")
    assert manifest.policy.kind is PolicyKind.CILIUM_CLUSTERWIDE
    assert manifest.policy.reference == "CiliumClusterwideNetworkPolicy:p"
