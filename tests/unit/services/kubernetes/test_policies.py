"""Services and policies of an API server, and what stands for those that cannot be programmed."""

import json
from typing import Any

import pytest

from deltaplane import manifest
from deltaplane.manifest import GeneralPolicyManifest, ServiceManifest
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.selector import LabelSelector
from deltaplane.model.tiers import Action, Rule, Selector, Tier
from services.kubernetes import kinds
from services.kubernetes.kinds import POLICIES, Kind
from services.kubernetes.policies import translate_policy, translate_service
from services.kubernetes.translating import Mode, Translation
from tests.unit.services.kubernetes.objects import decoded, metadata, policy

WEB = {"matchLabels": {"app": "web"}}
DENY = (Rule(action=Action.DENY, all_peers=True, any_port=True),)

SPECS: dict[Kind, dict[str, Any]] = {
    Kind.NETWORK_POLICY: {"podSelector": WEB, "ingress": [{"ports": [{"port": 80}]}]},
    Kind.CILIUM: {"endpointSelector": WEB, "egress": [{"toEntities": ["world"]}]},
    Kind.CILIUM_CLUSTERWIDE: {"endpointSelector": WEB, "ingressDeny": [{"fromEntities": ["all"]}]},
    Kind.CLUSTER: {
        "tier": "Baseline",
        "priority": 7,
        "subject": {"namespaces": WEB},
        "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}],
    },
    Kind.ADMIN: {
        "priority": 7,
        "subject": {"namespaces": WEB},
        "egress": [{"action": "Pass", "to": [{"networks": ["10.0.0.0/8"]}]}],
    },
    Kind.BASELINE_ADMIN: {
        "subject": {"namespaces": WEB},
        "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}],
    },
}


def translated(kind: Kind, spec: dict[str, Any] | None, **more: Any) -> Translation:
    return translate_policy(kind, decoded(kind, policy(kind, spec, **more)))


def network_policy(spec: dict[str, Any], **more: Any) -> NetworkPolicy:
    found = translated(Kind.NETWORK_POLICY, spec, **more).record
    assert isinstance(found, NetworkPolicy)
    return found


@pytest.mark.parametrize("kind", POLICIES)
def test_it_is_read_as_from_a_file(kind: Kind) -> None:
    value = policy(kind, SPECS[kind], metadata={"annotations": {"deltaplane.dev/audit": "true"}})
    (read,) = manifest.parse(json.dumps(value), "file")
    found = translate_policy(kind, decoded(kind, value))
    wanted = read.policy if isinstance(read, manifest.PolicyManifest) else read
    assert found == Translation(record=wanted)  # type: ignore[arg-type]


def test_several_specs() -> None:
    specs = [SPECS[Kind.CILIUM], {"endpointSelector": WEB, "ingress": [{}]}]
    found = translated(Kind.CILIUM, None, specs=specs).record
    assert isinstance(found, GeneralPolicyManifest)
    assert found.policy.isolates_ingress
    assert found.policy.isolates_egress


@pytest.mark.parametrize("kind", POLICIES)
def test_a_field_of_a_newer_api_is_not_ignored(kind: Kind) -> None:
    found = translated(kind, {**SPECS[kind], "onlyOnMondays": True})
    assert found.problem.startswith("spec.onlyOnMondays: unknown field")
    assert found.mode is Mode.IF_ABSENT
    assert found.record is not None


# --- what closes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "selector", "ingress", "egress"),
    [
        ({"podSelector": WEB, "policyTypes": ["Ingress"], "x": 1}, {"app": "web"}, True, False),
        ({"podSelector": WEB, "policyTypes": ["Egress"], "x": 1}, {"app": "web"}, False, True),
        ({"podSelector": WEB, "policyTypes": ["Inside"]}, {"app": "web"}, True, True),
        ({"podSelector": {"names": ["web"]}, "policyTypes": ["Egress"]}, {}, False, True),
        ({"x": 1}, {}, True, True),
    ],
    ids=["ingress", "egress", "unknown types", "unknown selector", "neither"],
)
def test_a_closed_network_policy(
    spec: dict[str, Any], selector: dict[str, str], ingress: bool, egress: bool
) -> None:
    assert network_policy(spec) == NetworkPolicy(
        namespace="shop",
        name="guard",
        pod_selector=LabelSelector.of(selector),
        applies_to_ingress=ingress,
        applies_to_egress=egress,
    )


def test_an_audit_does_not_open_what_closes() -> None:
    closed = network_policy({"x": 1}, metadata={"annotations": {"deltaplane.dev/audit": "true"}})
    assert not closed.audit


def general(kind: Kind, spec: dict[str, Any] | None, **more: Any) -> GeneralPolicyManifest:
    found = translated(kind, spec, **more)
    assert found.problem
    assert isinstance(found.record, GeneralPolicyManifest)
    return found.record


def test_a_closed_policy_of_cilium_isolates_and_denies_where_it_denied() -> None:
    rules = {"toPorts": [{"ports": [{"port": "80"}], "rules": {"http": [{"method": "GET"}]}}]}
    closed = general(
        Kind.CILIUM,
        {"endpointSelector": WEB, "ingress": [rules], "egressDeny": [{"toEntities": ["world"]}]},
    ).policy
    assert closed.subject.pods == LabelSelector.of({"app": "web"})
    assert closed.isolates_ingress
    assert closed.isolates_egress
    assert (closed.ingress, closed.egress) == ((), DENY)


def test_specs_of_several_subjects_close_the_namespace() -> None:
    specs = [SPECS[Kind.CILIUM], {"endpointSelector": {}, "egress": [{}]}]
    closed = general(Kind.CILIUM, None, specs=specs).policy
    assert closed.subject == Selector(namespace="shop")
    assert (closed.isolates_ingress, closed.isolates_egress) == (False, True)


def test_a_closed_admin_policy_keeps_its_place() -> None:
    peers = [{"domainNames": ["example.com"]}]
    closed = general(
        Kind.ADMIN,
        {
            "priority": 7,
            "subject": {"pods": {"namespaceSelector": {}, "podSelector": WEB}},
            "egress": [{"action": "Allow", "to": peers}],
        },
    ).policy
    assert (closed.tier, closed.priority) == (Tier.ADMIN, 7)
    assert closed.subject.pods == LabelSelector.of({"app": "web"})
    assert (closed.ingress, closed.egress) == ((), DENY)


@pytest.mark.parametrize("kind", [Kind.CLUSTER, Kind.ADMIN, Kind.BASELINE_ADMIN])
def test_of_an_unreadable_cluster_policy_everything_is_closed(kind: Kind) -> None:
    closed = general(kind, {"priority": "high", "subject": {"nodes": {}}}).policy
    assert closed.subject == Selector()
    assert (closed.ingress, closed.egress) == (DENY, DENY)


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("value", [{}, {"spec": {}}, {"spec": {"ingress": 5, "subject": []}}])
def test_whatever_is_stored_there_is_something_that_closes(
    kind: Kind, value: dict[str, Any]
) -> None:
    found = translate_policy(kind, decoded(kind, {**policy(kind), **value}))
    assert found.record is not None


@pytest.mark.parametrize("kind", [Kind.CILIUM, Kind.ADMIN])
def test_what_is_nested_too_deep_closes(kind: Kind) -> None:
    nested: dict[str, Any] = {}
    for _ in range(100_000):
        nested = {"a": nested}
    item = kinds.Policy(
        metadata=kinds.Metadata(name="guard", namespace="shop"),
        spec={**SPECS[kind], "description": nested},
    )
    found = translate_policy(kind, item)
    assert found.problem
    assert found.record is not None


# --- services ------------------------------------------------------------------------------------


def service(**spec: Any) -> Translation:
    value = {
        "kind": "Service",
        "metadata": metadata("web"),
        "spec": {"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], **spec},
        "status": {"loadBalancer": {}},
    }
    return translate_service(decoded(Kind.SERVICE, value))


def test_a_service() -> None:
    found = service(
        clusterIP="10.96.0.9",
        clusterIPs=["10.96.0.9"],
        ipFamilies=["IPv4"],
        selector={"app": "web"},
    ).record
    assert isinstance(found, ServiceManifest)
    assert found.service.cluster_ips == (bytes([10, 96, 0, 9]),)
    assert found.families == (4,)


def test_a_field_of_a_newer_service_is_ignored() -> None:
    assert service(onlyOnMondays=True).problem == ""


def test_a_service_that_cannot_be_programmed() -> None:
    found = service(clusterIP="10.96.0.300")
    assert found.mode is Mode.IF_ABSENT
    assert found.record is None
    assert found.problem.startswith("spec.clusterIP")
