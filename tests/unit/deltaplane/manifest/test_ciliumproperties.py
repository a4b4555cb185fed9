"""Cilium's selectors and ports against what their reference says, for any that one can write."""

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from deltaplane.manifest import GeneralPolicyManifest, ManifestError, parse
from deltaplane.model.ports import MAX_PORT, TRANSPORTS, Protocol
from deltaplane.model.tiers import Rule
from tests.unit.deltaplane.manifest.cilium import CCNP, CNP, text
from tests.unit.deltaplane.manifest.judging import Party, selects

KEYS = ("app", "tier")
VALUES = ("a", "b", "")
NAMESPACES = ("shop", "other")
SOURCES = ("", "k8s:", "any:")
NAMESPACE_NAME = "io.kubernetes.pod.namespace"
NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels."

sources = st.sampled_from(SOURCES)
pod_keys = st.sampled_from(KEYS)
namespace_keys = st.sampled_from(KEYS).map(NAMESPACE_LABELS.__add__)


def requirements(keys: st.SearchStrategy[str], values: tuple[str, ...]) -> st.SearchStrategy[Any]:
    """Items of matchExpressions; DoesNotExist is not for names of namespaces."""
    prefixed = st.builds(str.__add__, sources, keys)
    listed = st.lists(st.sampled_from(values), min_size=1, max_size=2)
    compared = st.fixed_dictionaries(
        {"key": prefixed, "operator": st.sampled_from(["In", "NotIn"]), "values": listed}
    )
    operators = ["Exists"] if values is NAMESPACES else ["Exists", "DoesNotExist"]
    present = st.fixed_dictionaries({"key": prefixed, "operator": st.sampled_from(operators)})
    return compared | present


def match_labels(keys: st.SearchStrategy[str], values: tuple[str, ...]) -> st.SearchStrategy[Any]:
    prefixed = st.builds(str.__add__, sources, keys)
    return st.dictionaries(prefixed, st.sampled_from(values), max_size=2)


SELECTORS = st.fixed_dictionaries(
    {
        "matchLabels": st.builds(
            lambda *parts: {key: value for part in parts for key, value in part.items()},
            match_labels(pod_keys, VALUES),
            match_labels(namespace_keys, VALUES) | st.just({}),
            match_labels(st.just(NAMESPACE_NAME), NAMESPACES) | st.just({}),
        ),
        "matchExpressions": st.lists(
            requirements(pod_keys, VALUES)
            | requirements(namespace_keys, VALUES)
            | requirements(st.just(NAMESPACE_NAME), NAMESPACES),
            max_size=3,
        ),
    }
)
LABELS = st.dictionaries(pod_keys, st.sampled_from(VALUES))
PODS = st.builds(
    lambda namespace, namespace_labels, labels: Party(
        ipv4="10.0.0.1",
        ipv6="fd00::1",
        namespace=namespace,
        namespace_labels=namespace_labels,
        labels=labels,
    ),
    st.sampled_from(NAMESPACES),
    LABELS,
    LABELS,
)


def cilium_matches(selector: Mapping[str, Any], pod: Party, namespace: str) -> bool:
    """As Cilium does it: one set of labels, namespace and all. namespace: "" of a CCNP."""
    labels = {**pod.labels, NAMESPACE_NAME: pod.namespace}
    labels |= {NAMESPACE_LABELS + key: value for key, value in pod.namespace_labels.items()}
    terms = [(key, "In", [value]) for key, value in selector["matchLabels"].items()]
    terms += [(e["key"], e["operator"], e.get("values")) for e in selector["matchExpressions"]]
    plain = [(key.rpartition(":")[2], operator, values) for key, operator, values in terms]
    about_namespace = (NAMESPACE_NAME, NAMESPACE_LABELS)
    if namespace and not any(key.startswith(about_namespace) for key, _, _ in plain):
        plain.append((NAMESPACE_NAME, "In", [namespace]))
    return all(_holds(labels.get(key), operator, values) for key, operator, values in plain)


def _holds(value: str | None, operator: str, values: list[str] | None) -> bool:
    if operator in ("Exists", "DoesNotExist"):
        return (value is not None) is (operator == "Exists")
    assert values
    return (value in values) is (operator == "In")


def rule_of(rule: object, kind: str = CNP) -> Rule:
    body = f"spec: {json.dumps({'endpointSelector': {}, 'ingress': [rule]})}"
    (manifest,) = parse(text(body, kind), "p.yaml")
    assert isinstance(manifest, GeneralPolicyManifest)
    return manifest.policy.ingress[0]


@given(selector=SELECTORS, kind=st.sampled_from([CNP, CCNP]), pods=st.lists(PODS, max_size=8))
@settings(deadline=None, max_examples=80)
def test_a_peer_matches_the_pods_that_it_matches_in_cilium(
    selector: dict[str, Any], kind: str, pods: list[Party]
) -> None:
    (peer,) = rule_of({"fromEndpoints": [selector]}, kind).selectors
    namespace = "shop" if kind == CNP else ""
    for pod in pods:
        assert selects(peer, pod) is cilium_matches(selector, pod, namespace)


PORTS = st.integers(0, MAX_PORT) | st.sampled_from([0, 1, 2, 79, 80, 81, MAX_PORT])
ITEMS = st.builds(
    lambda first, length, protocol: {
        "port": str(first),
        # Port "0" is no start of a range.
        **({"endPort": min(first + length, MAX_PORT)} if first and length else {}),
        **({"protocol": protocol} if protocol else {}),
    },
    PORTS,
    st.integers(0, 3),
    st.sampled_from(["TCP", "UDP", "SCTP", "ANY", ""]),
)


@given(
    entries=st.lists(st.lists(ITEMS, min_size=1, max_size=3), min_size=1, max_size=2),
    probes=st.lists(st.tuples(st.sampled_from(Protocol), PORTS), max_size=8),
)
@settings(deadline=None, max_examples=60)
def test_ports_are_those_that_are_listed(
    entries: list[list[dict[str, Any]]], probes: list[tuple[Protocol, int]]
) -> None:
    rule = rule_of({"toPorts": [{"ports": ports} for ports in entries]})
    items = [item for entry in entries for item in entry]
    edges = [
        (protocol, port)
        for item in items
        for port in (int(item["port"]), item.get("endPort", 0), item.get("endPort", 0) + 1)
        for protocol in TRANSPORTS
    ]
    for protocol, port in probes + edges:
        listed = any(
            protocol in TRANSPORTS
            and item.get("protocol", "ANY") in ("ANY", protocol.name)
            and (
                item["port"] == "0"
                or int(item["port"]) <= port <= item.get("endPort", int(item["port"]))
            )
            for item in items
        )
        found = any(r.protocol is protocol and r.first <= port <= r.last for r in rule.ranges)
        assert found is (listed and port <= MAX_PORT)


LEAVES = st.sampled_from(
    ["", "a", "all", "80", "0", "TCP", "In", "Exists", "IPv6", "10.0.0.0/8", "::/0", "shop"]
) | st.sampled_from([None, True, 0, 8, 70000, 1.5])


def some(content: st.SearchStrategy[Any], *fields: str) -> st.SearchStrategy[Any]:
    """A mapping with some of the fields, a list of those, or something else."""
    mapping = st.fixed_dictionaries({}, optional=dict.fromkeys(fields, content))
    return mapping | st.lists(mapping | LEAVES, max_size=2) | LEAVES


SELECTOR_FIELDS = ("app", "k8s:app", "reserved:host", NAMESPACE_NAME, "key", "operator", "values")
INNER = some(st.lists(LEAVES, max_size=2) | LEAVES, *SELECTOR_FIELDS)
PARTS = some(
    INNER | some(LEAVES, "port", "endPort", "protocol", "family", "type", "cidr", "except"),
    *("matchLabels", "matchExpressions", "ports", "fields", "cidr", "except", "rules"),
)
PEERS = ("Endpoints", "Entities", "CIDR", "CIDRSet", "Requires", "Nodes")
RULES = some(
    PARTS, *(f"{way}{peers}" for way in ("from", "to") for peers in PEERS), "toPorts", "icmps"
)
SPECS = some(
    RULES | some(LEAVES, "ingress", "egress"),
    *("endpointSelector", "ingress", "ingressDeny", "egress", "egressDeny", "enableDefaultDeny"),
)


def outcome(body: str, kind: str) -> GeneralPolicyManifest | ManifestError:
    try:
        (manifest,) = parse(text(body, kind), "p.yaml")
    except ManifestError as error:
        return error
    assert isinstance(manifest, GeneralPolicyManifest)
    return manifest


@given(spec=SPECS, field=st.sampled_from(["spec", "specs"]), kind=st.sampled_from([CNP, CCNP]))
@settings(deadline=None)
def test_any_content_is_a_policy_or_mistakes_below_the_field(
    spec: object, field: str, kind: str
) -> None:
    match outcome(f"{field}: {json.dumps(spec)}", kind):
        case GeneralPolicyManifest() as manifest:
            assert json.loads(manifest.spec) == spec
        case ManifestError() as error:
            assert error.mistakes
            assert all(mistake.path.startswith("spec") for mistake in error.mistakes)
