"""Cilium's policies that are refused: the path of the field, and why."""

import pytest

from deltaplane.manifest import ManifestError, parse
from tests.unit.deltaplane.manifest.cilium import CCNP, CNP, mistakes, text

PORTS = "toPorts: [{ports: [{port: '80'}]}]"


def spec(sections: str, selector: str = "{}") -> str:
    return f"spec: {{endpointSelector: {selector}, {sections}}}"


def ingress(rule: str) -> str:
    return spec(f"ingress: [{rule}]")


def egress(rule: str) -> str:
    return spec(f"egress: [{rule}]")


def peer(item: str) -> str:
    return ingress(f"{{fromEndpoints: [{item}]}}")


def port(item: str) -> str:
    return ingress(f"{{toPorts: [{{ports: [{item}]}}]}}")


def icmp(item: str) -> str:
    return ingress(f"{{icmps: [{{fields: [{item}]}}]}}")


IN, OUT = "spec.ingress[0]", "spec.egress[0]"
PEER, PORT = f"{IN}.fromEndpoints[0]", f"{IN}.toPorts[0].ports[0]"
SUBJECT = "spec.endpointSelector"
NAMESPACE = "io.kubernetes.pod.namespace"
OWN = f"{SUBJECT}.matchLabels[k8s:{NAMESPACE}]"
MANY = ", ".join(["{port: '80'}"] * 41)
TYPES = ", ".join(["{type: 8}"] * 41)


@pytest.mark.parametrize(
    ("body", "path", "reason"),
    [
        # The object.
        ("status: {}", "spec", "is required"),
        ("specs: []", "specs", "at least one"),
        ("specs: {}", "specs", "must be a list"),
        ("spec: []", "spec", "must be a mapping"),
        ("spec: {ingress: [{}]}", SUBJECT, "{} selects every pod"),
        ("spec: {endpointSelector: null, ingress: [{}]}", SUBJECT, "is required"),
        (spec("ingres: [{}], egress: [{}]"), "spec.ingres", 'did you mean "ingress"?'),
        (spec("description: [a], ingress: [{}]"), "spec.description", "must be text"),
        (spec("labels: a, ingress: [{}]"), "spec.labels", "must be a list"),
        (spec("log: {value: a}, ingress: [{}]"), "spec.log", "use description"),
        ("spec: {nodeSelector: {}, ingress: [{}]}", "spec.nodeSelector", "traffic of nodes"),
        (spec("nodeSelector: {}, ingress: [{}]"), "spec.nodeSelector", "traffic of nodes"),
        ("spec: {endpointSelector: {}}", "spec", "the rule {} isolates"),
        (spec("ingress: []"), "spec", "must have a rule in one of ingress, ingressDeny, egress"),
        (spec("ingress: [], egressDeny: []"), "spec", "must have a rule"),
        (spec("ingress: [null]"), IN, "write {}"),
        (
            spec("ingress: [{}], enableDefaultDeny: {egress: true}"),
            "spec.enableDefaultDeny.egress",
            "add egress: [{}]",
        ),
        (
            spec("ingress: [{}], enableDefaultDeny: {ingress: 'no'}"),
            "spec.enableDefaultDeny.ingress",
            "true or false",
        ),
        (
            spec("ingress: [{}], enableDefaultDeny: {in: true}"),
            "spec.enableDefaultDeny.in",
            "unknown field",
        ),
        # Whom it applies to.
        (
            spec("ingress: [{}]", f"{{matchLabels: {{k8s:{NAMESPACE}: other}}}}"),
            OWN,
            "CiliumClusterwideNetworkPolicy can select others",
        ),
        (
            spec(
                "ingress: [{}]",
                f"{{matchExpressions: [{{key: {NAMESPACE}, operator: Exists}}]}}",
            ),
            f"{SUBJECT}.matchExpressions[0].key",
            'its own namespace, "shop"',
        ),
        (
            spec("ingress: [{}]", "{matchLabels: {io.cilium.k8s.namespace.labels.a: b}}"),
            f"{SUBJECT}.matchLabels[io.cilium.k8s.namespace.labels.a]",
            'its own namespace, "shop"',
        ),
        (
            spec("ingress: [{}]", '{matchLabels: {reserved:init: ""}}'),
            f"{SUBJECT}.matchLabels[reserved:init]",
            "no pod",
        ),
        (spec("ingress: [{}]", "{app: web}"), f"{SUBJECT}.app", "unknown field"),
        # Labels.
        (
            peer("{matchLabels: {container:app: a}}"),
            f"{PEER}.matchLabels[container:app]",
            'has the source "container": labels of containers are not known here',
        ),
        (
            peer("{matchLabels: {mesos:app: a}}"),
            f"{PEER}.matchLabels[mesos:app]",
            "known are k8s and any",
        ),
        (
            peer("{matchLabels: {io.cilium.k8s.policy.serviceaccount: a}}"),
            f"{PEER}.matchLabels[io.cilium.k8s.policy.serviceaccount]",
            "service accounts do not count",
        ),
        (
            peer("{matchExpressions: [{key: k8s:io.cilium.k8s.policy.cluster, operator: Exists}]}"),
            f"{PEER}.matchExpressions[0].key",
            "there is only one cluster here",
        ),
        (
            peer("{matchLabels: {k8s:io.kubernetes.pod.name: a}}"),
            f"{PEER}.matchLabels[k8s:io.kubernetes.pod.name]",
            "only the namespace's name and labels",
        ),
        (
            peer("{matchLabels: {io.cilium.k8s.namespace.labels.: a}}"),
            f"{PEER}.matchLabels[io.cilium.k8s.namespace.labels.]",
            "no label key",
        ),
        (peer("{matchLabels: {k8s:a/b/c: d}}"), f"{PEER}.matchLabels[k8s:a/b/c]", "no label key"),
        (peer("{matchLabels: {app: '-'}}"), f"{PEER}.matchLabels.app", "no label value"),
        (
            peer(f"{{matchLabels: {{{NAMESPACE}: Shop}}}}"),
            f"{PEER}.matchLabels[{NAMESPACE}]",
            "no DNS label",
        ),
        (
            peer(f"{{matchExpressions: [{{key: {NAMESPACE}, operator: DoesNotExist}}]}}"),
            f"{PEER}.matchExpressions[0].key",
            "every pod has a namespace",
        ),
        (
            peer("{matchExpressions: [{key: k8s:app, operator: In}]}"),
            f"{PEER}.matchExpressions[0].values",
            "at least one value",
        ),
        (
            peer("{matchExpressions: [{key: app, operator: Gt, values: ['1']}]}"),
            f"{PEER}.matchExpressions[0].operator",
            "supported are In, NotIn, Exists, DoesNotExist",
        ),
        (
            peer('{matchLabels: {reserved:ingress: ""}}'),
            f"{PEER}.matchLabels[reserved:ingress]",
            "known are host, remote-node",
        ),
        (
            peer('{matchLabels: {reserved:host: "", app: web}}'),
            f"{PEER}.matchLabels[reserved:host]",
            "stands alone",
        ),
        (
            peer("{matchLabels: {reserved:host: a}}"),
            f"{PEER}.matchLabels[reserved:host]",
            'takes the value ""',
        ),
        (
            peer("{matchExpressions: [{key: reserved:host, operator: DoesNotExist}]}"),
            f"{PEER}.matchExpressions[0].key",
            "the operator Exists",
        ),
        # Entities and addresses.
        (ingress("{fromEntities: [pods]}"), f"{IN}.fromEntities[0]", "supported are all, cluster"),
        (ingress("{fromEntities: [ingress]}"), f"{IN}.fromEntities[0]", "no proxy"),
        (egress("{toEntities: [world-ipv4]}"), f"{OUT}.toEntities[0]", "0.0.0.0/0"),
        (egress("{toEntities: [world-ipv6]}"), f"{OUT}.toEntities[0]", "::/0"),
        (ingress("{fromCIDR: [10.0.0.1]}"), f"{IN}.fromCIDR[0]", "0 to 32"),
        (ingress("{fromCIDR: ['::ffff:1.2.3.4/128']}"), f"{IN}.fromCIDR[0]", "no address prefix"),
        (egress("{toCIDRSet: [{}]}"), f"{OUT}.toCIDRSet[0].cidr", "is required"),
        (
            egress("{toCIDRSet: [{cidr: 10.0.0.0/8, except: [11.0.0.0/16]}]}"),
            f"{OUT}.toCIDRSet[0].except[0]",
            "must lie inside cidr 10.0.0.0/8",
        ),
        (
            egress("{toCIDRSet: [{cidrGroupRef: a}]}"),
            f"{OUT}.toCIDRSet[0].cidrGroupRef",
            "no CiliumCIDRGroups here",
        ),
        (
            ingress("{fromCIDRSet: [{cidrGroupSelector: {}}]}"),
            f"{IN}.fromCIDRSet[0].cidrGroupSelector",
            "no CiliumCIDRGroups here",
        ),
        # Combinations that Cilium refuses, too.
        (
            ingress("{fromEndpoints: [{}], fromEntities: [host]}"),
            IN,
            "fromEndpoints and fromEntities; write a rule for each",
        ),
        (
            egress("{toCIDR: [10.0.0.0/8], toCIDRSet: [{cidr: 10.0.0.0/8}]}"),
            OUT,
            "toCIDR and toCIDRSet; write a rule for each",
        ),
        (
            ingress(f"{{{PORTS}, icmps: [{{fields: [{{type: 8}}]}}]}}"),
            f"{IN}.icmps",
            "cannot be combined with toPorts",
        ),
        # Ports.
        (port("{protocol: TCP}"), f"{PORT}.port", "is required"),
        (port("{port: 80}"), f"{PORT}.port", "put it in quotes"),
        (port("{port: '65536'}"), f"{PORT}.port", "neither a number from 0 to 65535 nor the name"),
        (port("{port: '080'}"), f"{PORT}.port", "neither a number"),
        (port("{port: '1-5'}"), f"{PORT}.port", "neither a number"),
        (port("{port: http_alt}"), f"{PORT}.port", "nor the name of a port"),
        (port("{port: '\u0663'}"), f"{PORT}.port", "neither a number"),
        (port("{port: '80', protocol: tcp}"), f"{PORT}.protocol", "supported are TCP, UDP, SCTP"),
        (port("{port: '80', protocol: ICMP}"), f"{PORT}.protocol", "supported are TCP, UDP, SCTP"),
        (port("{port: '80', endPort: 79}"), f"{PORT}.endPort", "would be empty"),
        (port("{port: '80', endPort: 65536}"), f"{PORT}.endPort", "between 0 and 65535"),
        (port("{port: '80', endPort: '90'}"), f"{PORT}.endPort", "must be an integer"),
        (port("{port: '0', endPort: 90}"), f"{PORT}.endPort", "every port"),
        (port("{port: http, endPort: 90}"), f"{PORT}.endPort", "named port"),
        (port("{port: '80', ports: []}"), f"{PORT}.ports", "unknown field"),
        (port(MANY), f"{IN}.toPorts[0].ports", "has 41 items; at most 40"),
        (port(""), f"{IN}.toPorts[0].ports", "at least one"),
        (ingress("{toPorts: [{}]}"), f"{IN}.toPorts[0].ports", "at least one"),
        (ingress("{toPorts: {}}"), f"{IN}.toPorts", "must be a list"),
        # ICMP.
        (icmp(TYPES), f"{IN}.icmps[0].fields", "has 41 items; at most 40"),
        (icmp(""), f"{IN}.icmps[0].fields", "at least one"),
        (ingress("{icmps: [{}]}"), f"{IN}.icmps[0].fields", "at least one"),
        (icmp("{family: IPv4}"), f"{IN}.icmps[0].fields[0].type", "is required"),
        (icmp("{type: 256}"), f"{IN}.icmps[0].fields[0].type", "between 0 and 255"),
        (icmp("{type: '256'}"), f"{IN}.icmps[0].fields[0].type", "no ICMP type of IPv4"),
        (icmp("{type: Ping}"), f"{IN}.icmps[0].fields[0].type", "or one of EchoReply"),
        (icmp("{type: 8, family: ipv4}"), f"{IN}.icmps[0].fields[0].family", "IPv4, IPv6"),
        (icmp("{type: 8, code: 0}"), f"{IN}.icmps[0].fields[0].code", "unknown field"),
    ],
)
def test_a_mistake_names_its_path_and_what_would_be_right(
    body: str, path: str, reason: str
) -> None:
    found = mistakes(body)
    assert found.keys() == {path}
    assert reason in found[path]


@pytest.mark.parametrize("section", ["ingress", "ingressDeny", "egress", "egressDeny"])
@pytest.mark.parametrize("content", ["{}", "[]", "[{matchLabels: {}}]", "{mode: disabled}", "a"])
def test_a_field_that_is_not_supported_is_refused_by_name_whatever_it_holds(
    section: str, content: str
) -> None:
    fields = {
        "ingress": ("fromRequires", "fromGroups", "fromNodes", "authentication"),
        "egress": ("toRequires", "toServices", "toFQDNs", "toGroups", "toNodes", "authentication"),
    }[section.removesuffix("Deny")]
    for field in fields:
        found = mistakes(spec(f"{section}: [{{{PORTS}, {field}: {content}}}]"))
        assert found.keys() == {f"spec.{section}[0].{field}"}
        assert found[f"spec.{section}[0].{field}"].startswith("is not supported: ")
    for field in ("rules", "listener", "terminatingTLS", "originatingTLS", "serverNames"):
        ports = f"toPorts: [{{ports: [{{port: '80'}}], {field}: {content}}}]"
        found = mistakes(spec(f"{section}: [{{{ports}}}]"))
        assert found.keys() == {f"spec.{section}[0].toPorts[0].{field}"}
        assert found[f"spec.{section}[0].toPorts[0].{field}"].startswith("is not supported: ")


@pytest.mark.parametrize("section", ["ingress", "ingressDeny", "egress", "egressDeny"])
def test_fields_of_the_other_direction_are_unknown(section: str) -> None:
    prefix = "to" if section.startswith("ingress") else "from"
    for kind in ("Endpoints", "Entities", "CIDR", "CIDRSet", "Requires"):
        found = mistakes(spec(f"{section}: [{{{prefix}{kind}: []}}]"))
        assert found.keys() == {f"spec.{section}[0].{prefix}{kind}"}
        assert "unknown field" in found[f"spec.{section}[0].{prefix}{kind}"]


@pytest.mark.parametrize("kind", [CNP, CCNP])
def test_the_audit_annotation_is_true_or_false(kind: str) -> None:
    found = mistakes(spec("ingress: [{}]"), kind, '{deltaplane.dev/audit: "yes"}')
    assert found == {
        "metadata.annotations[deltaplane.dev/audit]": '"yes" must be "true" or "false"'
    }


def test_an_annotation_that_is_no_text_is_one_mistake() -> None:
    found = mistakes(spec("ingress: [{}]"), annotations="{deltaplane.dev/audit: true}")
    assert found == {
        "metadata.annotations[deltaplane.dev/audit]": (
            "must be text, not true or false; put it in quotes"
        )
    }


def test_a_clusterwide_policy_has_no_namespace_and_v2_is_the_only_version() -> None:
    good = text(spec("ingress: [{}]"), CCNP)
    for bad, path in (
        (good.replace("name: p", "name: p, namespace: shop"), "metadata.namespace"),
        (good.replace("cilium.io/v2", "cilium.io/v2alpha1"), "apiVersion"),
    ):
        with pytest.raises(ManifestError) as caught:
            parse(bad, "p.yaml")
        assert [mistake.path for mistake in caught.value.mistakes] == [path]


def test_all_mistakes_come_together() -> None:
    body = (
        "specs: [{endpointSelector: {matchLabels: {a: b}}, ingress: [{toFQDNs: []}, "
        "{fromCIDR: [x]}]}, {nodeSelector: {}, egress: [{toFQDNs: [], toPorts: [{}]}]}]"
    )
    assert mistakes(body).keys() == {
        "specs[0].ingress[0].toFQDNs",
        "specs[0].ingress[1].fromCIDR[0]",
        "specs[1].nodeSelector",
        "specs[1].egress[0].toFQDNs",
        "specs[1].egress[0].toPorts[0].ports",
    }
