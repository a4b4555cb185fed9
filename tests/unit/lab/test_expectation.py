"""The reference evaluation against tables that others wrote."""

import pytest

from deltaplane import manifest
from deltaplane.manifest import GeneralPolicyManifest, PolicyManifest
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.tiers import Policy
from lab.expectation import World
from lab.manifests import sort
from lab.pods import Phase, Pod
from lab.probing import Question
from tests.conformance import cluster_cases
from tests.conformance.cases import Case, Row, load, oracles

CASES = 80
"""Of each file: the evaluation is slow on purpose."""

FILES = ("k8s_e2e_netpol_3x3.json", "random_300.json")


def pods_of(case: Case) -> dict[str, Pod]:
    parties = case.parties()
    return {
        f"{workload.namespace}/{workload.name}": Pod(
            namespace=workload.namespace,
            name=workload.name,
            uid=workload.name,
            labels=workload.labels,
            ports=workload.ports,
            phase=Phase.RUNNING,
            addresses=tuple(
                address
                for family in ("IPv4", "IPv6")
                if (address := parties[f"{workload.namespace}/{workload.name}"].address(family))
            ),
        )
        for workload in sort(manifest.parse(case.setup(), source="case")).workloads
    }


def question(row: Row) -> Question:
    return Question(
        source=row.source,
        destination=row.destination,
        port=row.port,
        protocol=row.protocol,
        family=row.family.lower(),
        address="",
        source_uid="",
        node="",
    )


@pytest.mark.parametrize("file", FILES)
def test_it_agrees_with_the_first_step_of_every_case(file: str) -> None:
    compared = 0
    for case in load(oracles() / file)[:CASES]:
        setup = sort(manifest.parse(case.setup(), source="case"))
        step = next(case.steps())
        applied = sort(manifest.parse(step.apply, source="case"))
        if step.delete or applied.workloads or applied.namespaces:
            # The first step changes more than policies; other cases cover the same rules.
            continue
        world = World(
            pods=pods_of(case),
            namespaces={item.name: dict(item.labels) for item in setup.namespaces},
            policies=applied.policies,
        )
        for row in step.rows:
            # Loopback is not judged, and the evaluation is about pods only.
            if row.source != row.destination and {row.source, row.destination} <= set(world.pods):
                assert world.allows(question(row)) == row.allowed, (case.name, row)
                compared += 1
    assert compared > 1000


@pytest.mark.parametrize("case", cluster_cases.load(), ids=lambda case: case.name)
def test_it_agrees_with_every_step_about_policies_of_other_kinds(case: Case) -> None:
    pods = pods_of(case)
    known = sort(manifest.parse(case.setup(), source="case"))
    namespaces = {item.name: dict(item.labels) for item in known.namespaces}
    policies: dict[str, NetworkPolicy | Policy] = {}
    for step in case.steps():
        for manifest_ in manifest.parse(step.delete, source="case"):
            if isinstance(manifest_, PolicyManifest | GeneralPolicyManifest):
                del policies[manifest_.policy.reference]
        applied = sort(manifest.parse(step.apply, source="case"))
        namespaces |= {item.name: dict(item.labels) for item in applied.namespaces}
        policies |= {policy.reference: policy for policy in applied.policies}
        policies |= {item.policy.reference: item.policy for item in applied.others}
        world = World(
            pods=pods,
            namespaces=namespaces,
            policies=[p for p in policies.values() if isinstance(p, NetworkPolicy)],
            others=[p for p in policies.values() if isinstance(p, Policy)],
        )
        for row in step.rows:
            if row.source != row.destination and {row.source, row.destination} <= set(pods):
                assert world.allows(question(row)) == row.allowed, row


def test_who_closes_a_pod_is_who_isolates_it_or_may_deny() -> None:
    (case,) = (c for c in cluster_cases.load() if c.name.startswith("the admin tier overrules"))
    (step,) = case.steps()
    applied = sort(manifest.parse(step.apply, source="case"))
    world = World(
        pods=pods_of(case),
        namespaces={"red": {"team": "red"}, "blue": {"team": "blue"}},
        policies=applied.policies,
        others=[item.policy for item in applied.others],
    )
    pod = world.pods["red/a"]
    assert world.closing(pod, ingress=True) == ("ClusterNetworkPolicy:p", "red/closed")
    assert world.closing(pod, ingress=False) == ()
    assert world.closing(world.pods["blue/a"], ingress=True) == ()
