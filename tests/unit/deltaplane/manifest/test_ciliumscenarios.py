"""The policies of Cilium's connectivity tests, in our words: what they let pass, or why not here.

"client > echo tcp/8080 +" reads: the connection passes; "-": it does not. Both families are tried,
but for ICMP.
"""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from deltaplane.model.identity import Reserved
from deltaplane.model.ports import Protocol
from tests.unit.deltaplane.manifest.cilium import CCNP, CNP, mistakes, read
from tests.unit.deltaplane.manifest.judging import Packet, Party, passes

SCENARIOS = (
    Path(__file__).resolve().parents[5] / "shared/oracles/cilium/connectivity_scenarios.json"
)

PARTIES = {
    "client": Party(
        ipv4="10.244.0.1",
        ipv6="fd00:244::1",
        namespace="shop",
        labels={"kind": "client", "name": "client"},
    ),
    "client2": Party(
        ipv4="10.244.0.2",
        ipv6="fd00:244::2",
        namespace="shop",
        labels={"kind": "client", "name": "client2", "other": "client"},
    ),
    "echo": Party(
        ipv4="10.244.0.3",
        ipv6="fd00:244::3",
        namespace="shop",
        labels={"kind": "echo", "name": "echo"},
        ports={"http-8080": 8080},
    ),
    # The same labels in another namespace.
    "stranger": Party(
        ipv4="10.244.0.4",
        ipv6="fd00:244::4",
        namespace="other",
        namespace_labels={"team": "red"},
        labels={"kind": "client", "name": "client"},
    ),
    "host": Party(ipv4="192.0.2.1", ipv6="2001:db8::1", reserved=Reserved.HOST),
    "node": Party(ipv4="192.0.2.2", ipv6="2001:db8::2", reserved=Reserved.REMOTE_NODE),
    "api": Party(ipv4="192.0.2.3", ipv6="2001:db8::3", reserved=Reserved.KUBE_APISERVER),
    "one": Party(ipv4="198.51.100.1", ipv6="2001:db8:1::1", reserved=Reserved.WORLD),
    "two": Party(ipv4="198.51.100.2", ipv6="2001:db8:1::2", reserved=Reserved.WORLD),
}

CLIENT = "{matchLabels: {kind: client}}"
ECHO = "{matchLabels: {kind: echo}}"
PORT = "ports: [{port: '8080', protocol: TCP}]"
TCP = f"toPorts: [{{{PORT}}}]"
RANGE = "toPorts: [{ports: [{port: '4096', endPort: 8080, protocol: TCP}]}]"
PING = "icmps: [{fields: [{type: 8}, {type: EchoRequest, family: IPv6}]}]"
ALL = "egress: [{toEntities: [all]}], ingress: [{fromEntities: [all]}]"
OUTSIDE = "[198.51.100.0/24, '2001:db8:1::/48']"
HOLE = (
    "[{cidr: 198.51.100.0/24, except: [198.51.100.2/32]}, "
    "{cidr: '2001:db8:1::/48', except: ['2001:db8:1::2/128']}]"
)
NODES = "[192.0.2.0/24, '2001:db8::/64']"

STORIES: dict[str, tuple[str, str]] = {
    "all-egress-deny": (
        "{endpointSelector: {}, egress: [{}]}",
        "client > echo tcp/8080 -, client > one tcp/443 -, stranger > echo tcp/8080 +",
    ),
    "all-ingress-deny": (
        "{endpointSelector: {}, ingress: [{}]}",
        "client > echo tcp/8080 -, client > one tcp/443 +, stranger > one tcp/443 +",
    ),
    "all-ingress-deny-from-outside": (
        "{endpointSelector: {}, ingress: [{}]}",
        "one > echo tcp/8080 -, host > echo tcp/8080 -",
    ),
    "all-entities-deny": (
        (
            f"{{endpointSelector: {{}}, {ALL}, egressDeny: [{{toEntities: [all]}}], "
            "ingressDeny: [{fromEntities: [all]}]}"
        ),
        "client > echo tcp/8080 -, client > one tcp/443 -, one > client icmp/8 -",
    ),
    "allow-all-except-world": (
        (
            "{endpointSelector: {}, ingress: [{fromEntities: [cluster]}], "
            "egress: [{toEntities: [cluster]}]}"
        ),
        (
            "client > echo tcp/8080 +, client > host tcp/80 +, node > client tcp/1 +, "
            "client > api tcp/6443 +, client > stranger udp/5 +, client > one tcp/443 -, "
            "one > client tcp/1 -"
        ),
    ),
    "client-ingress": (
        (
            f"{{endpointSelector: {CLIENT}, "
            "ingress: [{fromEndpoints: [{matchLabels: {other: client}}]}]}"
        ),
        (
            "client2 > client tcp/1 +, client2 > client icmp/8 +, client > client2 tcp/1 -, "
            "stranger > client tcp/1 -, client > echo tcp/8080 +"
        ),
    ),
    "client-ingress-icmp": (
        (
            f"{{endpointSelector: {CLIENT}, "
            f"ingress: [{{fromEndpoints: [{{matchLabels: {{other: client}}}}], {PING}}}]}}"
        ),
        (
            "client2 > client icmp/8 +, client2 > client icmpv6/128 +, client2 > client icmp/13 -, "
            "client2 > client tcp/8 -, client > client2 icmp/8 -"
        ),
    ),
    "client-ingress-from-other-client-icmp-deny": (
        (
            f"{{endpointSelector: {CLIENT}, {ALL}, "
            f"ingressDeny: [{{fromEndpoints: [{{matchLabels: {{other: client}}}}], {PING}}}]}}"
        ),
        (
            "client2 > client icmp/8 -, client2 > client icmpv6/128 -, client2 > client tcp/1 +, "
            "client > client2 icmp/8 +"
        ),
    ),
    "echo-ingress": (
        f"{{endpointSelector: {ECHO}, ingress: [{{fromEndpoints: [{CLIENT}], {TCP}}}]}}",
        (
            "client > echo tcp/8080 +, client > echo tcp/8081 -, client > echo udp/8080 -, "
            "client > echo icmp/8 -, stranger > echo tcp/8080 -"
        ),
    ),
    "echo-ingress-from-other-client-deny": (
        (
            f"{{endpointSelector: {ECHO}, ingress: [{{fromEndpoints: [{CLIENT}]}}], "
            "ingressDeny: [{fromEndpoints: [{matchLabels: {other: client}}]}]}"
        ),
        "client > echo tcp/8080 +, client2 > echo tcp/8080 -",
    ),
    "echo-ingress-from-outside": (
        f"{{endpointSelector: {ECHO}, ingress: [{{fromCIDRSet: {HOLE}}}]}}",
        "one > echo tcp/8080 +, two > echo tcp/8080 -, client > echo tcp/8080 -",
    ),
    "client-ingress-to-echo-named-port-deny": (
        (
            f"{{endpointSelector: {ECHO}, {ALL}, ingressDeny: [{{fromEndpoints: [{CLIENT}], "
            "toPorts: [{ports: [{port: http-8080, protocol: TCP}]}]}]}"
        ),
        "client > echo tcp/8080 -, client > echo tcp/8081 +, stranger > echo tcp/8080 +",
    ),
    "client-egress": (
        f"{{endpointSelector: {CLIENT}, egress: [{{toEndpoints: [{ECHO}], {TCP}}}]}}",
        (
            "client > echo tcp/8080 +, client > echo tcp/8081 -, client > client2 tcp/8080 -, "
            "stranger > echo tcp/1 +"
        ),
    ),
    "client-egress-expression": (
        (
            f"{{endpointSelector: {CLIENT}, egress: [{{toEndpoints: [{{matchExpressions: "
            f"[{{key: kind, operator: In, values: [echo]}}]}}], {TCP}}}]}}"
        ),
        "client > echo tcp/8080 +, client > client2 tcp/8080 -",
    ),
    "client-egress-expression-port-range": (
        (
            f"{{endpointSelector: {CLIENT}, egress: [{{toEndpoints: [{{matchExpressions: "
            f"[{{key: kind, operator: In, values: [echo]}}]}}], {RANGE}}}]}}"
        ),
        "client > echo tcp/8080 +, client > echo tcp/4096 +, client > echo tcp/4095 -",
    ),
    "client-egress-to-echo-deny": (
        f"{{endpointSelector: {CLIENT}, {ALL}, egressDeny: [{{toEndpoints: [{ECHO}], {TCP}}}]}}",
        "client > echo tcp/8080 -, client > echo tcp/8081 +, client > client2 tcp/8080 +",
    ),
    "client-egress-to-echo-deny-port-range": (
        f"{{endpointSelector: {CLIENT}, {ALL}, egressDeny: [{{toEndpoints: [{ECHO}], {RANGE}}}]}}",
        "client > echo tcp/8080 -, client > echo tcp/4096 -, client > echo tcp/8081 +",
    ),
    "client-egress-to-echo-expression-deny": (
        (
            f"{{endpointSelector: {CLIENT}, {ALL}, egressDeny: [{{toEndpoints: "
            f"[{{matchExpressions: [{{key: any:kind, operator: In, values: [echo]}}]}}], {TCP}}}]}}"
        ),
        "client > echo tcp/8080 -, client > one tcp/8080 +",
    ),
    "client-egress-to-echo-expression-deny-port-range": (
        (
            f"{{endpointSelector: {CLIENT}, {ALL}, egressDeny: [{{toEndpoints: "
            "[{matchExpressions: [{key: k8s:kind, operator: NotIn, values: [client]}]}], "
            f"{RANGE}}}]}}"
        ),
        "client > echo tcp/5000 -, client > client2 tcp/5000 +",
    ),
    "client-egress-to-cidr-deny": (
        f"{{endpointSelector: {CLIENT}, {ALL}, egressDeny: [{{toCIDRSet: {HOLE}}}]}}",
        "client > one tcp/443 -, client > two tcp/443 +, client > echo tcp/8080 +",
    ),
    # A rule that denies isolates, too: what nobody allows is denied.
    "client-egress-to-cidr-deny-default": (
        f"{{endpointSelector: {CLIENT}, egressDeny: [{{toCIDRSet: {HOLE}}}]}}",
        "client > one tcp/443 -, client > two tcp/443 -, client > echo tcp/8080 -",
    ),
    "to-cidr-external": (
        f"{{endpointSelector: {CLIENT}, egress: [{{toCIDRSet: {HOLE}}}]}}",
        "client > one tcp/443 +, client > two tcp/443 -, client > echo tcp/8080 -",
    ),
    "from-cidr-host-netns": (
        f"{{endpointSelector: {ECHO}, ingress: [{{fromCIDR: {OUTSIDE}, {TCP}}}]}}",
        "one > echo tcp/8080 +, two > echo tcp/8080 +, one > echo tcp/1 -, host > echo tcp/8080 -",
    ),
    # CIDRs are of no node and no pod, whatever their addresses.
    "pod-to-node-cidrpolicy": (
        f"{{endpointSelector: {CLIENT}, egress: [{{toCIDR: {NODES}}}]}}",
        "client > node tcp/1 -, client > host tcp/1 -, client > one tcp/1 -",
    ),
    "pod-to-controlplane-host": (
        f"{{endpointSelector: {CLIENT}, egress: [{{toEntities: [remote-node, host]}}]}}",
        "client > node tcp/1 +, client > host tcp/1 +, client > one tcp/1 -",
    ),
    "pod-to-controlplane-host-cidr": (
        f"{{endpointSelector: {CLIENT}, egress: [{{toCIDR: {NODES}}}]}}",
        "client > node tcp/1 -, client > api tcp/6443 -",
    ),
    "pod-to-k8s-on-controlplane": (
        f"{{endpointSelector: {CLIENT}, egress: [{{toEntities: [kube-apiserver]}}]}}",
        "client > api tcp/6443 +, client > node tcp/6443 -, client > one tcp/6443 -",
    ),
    "pod-to-k8s-on-controlplane-cidr": (
        f"{{endpointSelector: {CLIENT}, egress: [{{toCIDR: {NODES}}}]}}",
        "client > api tcp/6443 -",
    ),
    "host-entity-egress": (
        f"{{endpointSelector: {CLIENT}, egress: [{{toEntities: [host]}}]}}",
        "client > host tcp/1 +, client > node tcp/1 -, client > echo tcp/1 -",
    ),
    "host-entity-ingress": (
        f"{{endpointSelector: {CLIENT}, ingress: [{{fromEntities: [host]}}]}}",
        "host > client tcp/1 +, node > client tcp/1 -, echo > client tcp/1 -",
    ),
    "cluster-entity": (
        f"{{endpointSelector: {CLIENT}, egress: [{{toEntities: [cluster]}}]}}",
        "client > echo tcp/1 +, client > stranger tcp/1 +, client > one tcp/1 -",
    ),
    "to-entities-world": (
        (
            f"{{endpointSelector: {CLIENT}, egress: [{{toEntities: [world], toPorts: "
            "[{ports: [{port: '80', protocol: TCP}]}]}]}"
        ),
        "client > one tcp/80 +, client > one tcp/443 -, client > echo tcp/80 -",
    ),
    "to-entities-world-port-range": (
        (
            f"{{endpointSelector: {CLIENT}, egress: [{{toEntities: [world], toPorts: "
            "[{ports: [{port: '1', endPort: 1024, protocol: TCP}]}]}]}"
        ),
        "client > one tcp/443 +, client > one tcp/1025 -, client > one udp/53 -",
    ),
    "egress-to-specific-namespace-ccnp": (
        (
            "{endpointSelector: {matchLabels: {k8s:io.kubernetes.pod.namespace: shop}}, "
            "egress: [{toEndpoints: [{matchLabels: {k8s:io.kubernetes.pod.namespace: other}}]}]}"
        ),
        "client > stranger tcp/1 +, client > echo tcp/1 -, stranger > client tcp/1 +",
    ),
    "ingress-from-specific-namespace-ccnp": (
        (
            "{endpointSelector: {matchLabels: {io.cilium.k8s.namespace.labels.team: red}}, "
            "ingress: [{fromEndpoints: [{matchLabels: {io.kubernetes.pod.namespace: shop}}]}]}"
        ),
        "client > stranger tcp/1 +, one > stranger tcp/1 -, one > client tcp/1 +",
    ),
}

REFUSED = {
    # Pattern → a rule of egress that only this needs, and the field that is refused.
    "*-l7*": (f"{{toPorts: [{{{PORT}, rules: {{http: [{{}}]}}}}]}}", "toPorts[0].rules"),
    "l7-lb": (f"{{toPorts: [{{{PORT}, rules: {{http: [{{}}]}}}}]}}", "toPorts[0].rules"),
    "client-egress-tls-sni": (
        f"{{toPorts: [{{{PORT}, serverNames: [a]}}]}}",
        "toPorts[0].serverNames",
    ),
    "dns-only": (f"{{toPorts: [{{{PORT}, rules: {{dns: [{{}}]}}}}]}}", "toPorts[0].rules"),
    "to-fqdns*": ("{toFQDNs: [{matchName: a}]}", "toFQDNs"),
    "*-auth-*": ("{authentication: {mode: required}}", "authentication"),
    "client-egress-to-cidrgroup-deny": (
        "{toCIDRSet: [{cidrGroupRef: a}]}",
        "toCIDRSet[0].cidrGroupRef",
    ),
    "client-egress-to-cidrgroup-deny-by-label": (
        "{toCIDRSet: [{cidrGroupSelector: {matchLabels: {a: b}}}]}",
        "toCIDRSet[0].cidrGroupSelector",
    ),
    "*service-account*": (
        "{toEndpoints: [{matchLabels: {io.cilium.k8s.policy.serviceaccount: a}}]}",
        "toEndpoints[0].matchLabels[io.cilium.k8s.policy.serviceaccount]",
    ),
    "policy-local-cluster-egress": (
        "{toEndpoints: [{matchLabels: {io.cilium.k8s.policy.cluster: a}}]}",
        "toEndpoints[0].matchLabels[io.cilium.k8s.policy.cluster]",
    ),
    "cluster-entity-multi-cluster": (
        "{toEndpoints: [{matchLabels: {io.cilium.k8s.policy.cluster: a}}]}",
        "toEndpoints[0].matchLabels[io.cilium.k8s.policy.cluster]",
    ),
    "*-to-ingress-service*": ("{toEntities: [ingress]}", "toEntities[0]"),
}

# Host policies: refused, see test_ciliumrefusals.
HOST = "host-firewall-*"
# No policy of Cilium's kinds in them.
OTHERS = (
    "*-knp",
    "*-knp-port-range",
    "no-*",
    "allow-all-with-metrics-check",
    "bgp-*",
    "check-log-errors",
    "clustermesh-*",
    "egress-gateway*",
    "health",
    "*ipsec-*",
    "local-redirect-policy*",
    "multicast",
    "network-*",
    "*-encryption*",
    "north-south-*",
    "pod-to-itself-via-service",
    "pod-to-pod-no-frag",
)


def packets(line: str) -> Iterator[tuple[Packet, bool]]:
    """What "client > echo tcp/8080 +" asks for, and whether it passes."""
    source, _, destination, what, sign = line.split()
    word, port = what.split("/")
    protocol = Protocol[word.upper()]
    families = {Protocol.ICMP: (True,), Protocol.ICMPV6: (False,)}.get(protocol, (True, False))
    for is_ipv4 in families:
        yield (
            Packet(
                source=PARTIES[source],
                destination=PARTIES[destination],
                protocol=protocol,
                port=int(port),
                is_ipv4=is_ipv4,
            ),
            {"+": True, "-": False}[sign],
        )


@pytest.mark.parametrize("name", STORIES)
def test_what_the_policy_lets_pass(name: str) -> None:
    spec, lines = STORIES[name]
    policy = read(f"spec: {spec}", CCNP if name.endswith("-ccnp") else CNP).policy
    for line in lines.split(","):
        for packet, passing in packets(line):
            assert passes([policy], packet) is passing, line


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused(name: str) -> None:
    rule, path = REFUSED[name]
    found = mistakes(f"spec: {{endpointSelector: {CLIENT}, egress: [{rule}]}}")
    assert found.keys() == {f"spec.egress[0].{path}"}


def test_every_scenario_of_the_list_has_its_place() -> None:
    if not SCENARIOS.exists():
        pytest.skip("shared/oracles/cilium is not beside this tree")
    names = json.loads(SCENARIOS.read_text())["test_names"]
    patterns = (*STORIES, *REFUSED, HOST, *OTHERS)
    assert [name for name in names if not any(fnmatchcase(name, p) for p in patterns)] == []
    unused = [p for p in patterns if not any(fnmatchcase(name, p) for name in names)]
    assert unused == []
