"""Policies of kinds besides NetworkPolicy on the command line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from deltaplane.cli import enforcement
from deltaplane.manifest import GeneralPolicyManifest, PolicyManifest, parse
from deltaplane.v1 import policy_pb2, receipts_pb2, registry_pb2
from tests.unit.deltaplane.cli.conftest import Cluster, Run

NETWORK = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}
---
"""
OTHERS = """
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: web, annotations: {deltaplane.dev/audit: "true"}}
spec:
  tier: Admin
  priority: 12
  subject: {namespaces: {matchLabels: {team: red}}}
  ingress:
  - {action: Deny, from: [{namespaces: {}}]}
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: BaselineAdminNetworkPolicy
metadata: {name: default}
spec: {subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}}}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: shop}
spec: {endpointSelector: {matchLabels: {app: web}}, egressDeny: [{toEntities: [world]}]}
"""


@pytest.fixture
def applied(run: Run, tmp_path: Path) -> str:
    """A file with one policy of each of four kinds, which are applied."""
    file = tmp_path / "policies.yaml"
    file.write_text(NETWORK + OTHERS)
    done = run("policy", "apply", "-f", str(file))
    assert done.code == 0, done.err
    assert done.out.splitlines()[:4] == [
        "networkpolicy shop/web applied",
        "clusternetworkpolicy web applied",
        "baselineadminnetworkpolicy default applied",
        "ciliumnetworkpolicy shop/web applied",
    ]
    return str(file)


def test_policy_apply_and_delete_take_every_kind(cluster: Cluster, run: Run, applied: str) -> None:
    assert set(cluster.policies) == {
        ("NetworkPolicy", "shop", "web"),
        ("ClusterNetworkPolicy", "", "web"),
        ("BaselineAdminNetworkPolicy", "", "default"),
        ("CiliumNetworkPolicy", "shop", "web"),
    }
    done = run("policy", "delete", "-f", applied, "-o", "json")
    assert json.loads(done.out)["deleted"] == [
        "shop/web",
        "ClusterNetworkPolicy:web",
        "BaselineAdminNetworkPolicy:default",
        "CiliumNetworkPolicy:shop/web",
    ]
    assert cluster.policies == {}


def test_a_delete_of_one_kind_leaves_its_namesakes(
    cluster: Cluster, run: Run, applied: str, tmp_path: Path
) -> None:
    del applied
    file = tmp_path / "one.yaml"
    file.write_text(NETWORK)
    assert run("policy", "delete", "-f", str(file)).code == 0
    assert ("CiliumNetworkPolicy", "shop", "web") in cluster.policies
    assert ("NetworkPolicy", "shop", "web") not in cluster.policies


def test_get_policies_lists_every_kind(run: Run, applied: str) -> None:
    del applied
    records = json.loads(run("get", "policies", "-o", "json").out)
    shown = [(r["kind"], r["namespace"], r["name"], r["tier"], r["priority"]) for r in records]
    assert shown == [
        ("NetworkPolicy", "shop", "web", "normal", 0),
        ("BaselineAdminNetworkPolicy", "", "default", "baseline", 0),
        ("CiliumNetworkPolicy", "shop", "web", "normal", 0),
        ("ClusterNetworkPolicy", "", "web", "admin", 12),
    ]
    assert [record["types"] for record in records] == [["Ingress"], [], ["Egress"], ["Ingress"]]
    assert [record["audit"] for record in records] == [False, False, False, True]
    assert "KIND" in run("get", "policies").out


def test_get_policy_finds_one(run: Run, applied: str) -> None:
    given = {item["kind"]: item for item in yaml.safe_load_all(Path(applied).read_text())}
    for words, kind in {
        ("clusternetworkpolicy/web",): "ClusterNetworkPolicy",
        ("BaselineAdminNetworkPolicy:default",): "BaselineAdminNetworkPolicy",
        ("CiliumNetworkPolicy/web", "-n", "shop"): "CiliumNetworkPolicy",
        ("CiliumNetworkPolicy:shop/web",): "CiliumNetworkPolicy",
        ("networkpolicy/web", "-n", "shop"): "NetworkPolicy",
    }.items():
        done = run("get", "policy", *words, "-o", "yaml")
        assert done.code == 0, done.err
        assert yaml.safe_load(done.out) == given[kind]
    shown = run("get", "policy", "ClusterNetworkPolicy/web", "-o", "json").out
    assert json.loads(shown) == given["ClusterNetworkPolicy"]


def test_what_get_policy_prints_can_be_applied(
    cluster: Cluster, run: Run, applied: str, tmp_path: Path
) -> None:
    del applied
    before = dict(cluster.policies)
    for kind in ("ClusterNetworkPolicy", "CiliumNetworkPolicy"):
        file = tmp_path / kind
        file.write_text(run("get", "policy", f"{kind}/web", "-n", "shop", "-o", "yaml").out)
        assert run("policy", "apply", "-f", str(file)).code == 0
    assert cluster.policies == before


def test_get_policy_explains_a_wrong_name(run: Run, applied: str) -> None:
    del applied
    both = "write one of NetworkPolicy/web, CiliumNetworkPolicy/web"
    for words, message in {
        ("web", "-n", "shop"): f"several policies have that name; {both}",
        ("AdminNetworkPolicy/web",): "there is no policy AdminNetworkPolicy web",
        ("CiliumNetworkPolicy/web",): "there is no policy CiliumNetworkPolicy default/web",
        ("Policy:web",): "the kind before the colon is one of",
    }.items():
        done = run("get", "policy", *words)
        assert done.code == 1
        assert message in done.err


def test_get_receipts_lists_references_of_every_kind(
    cluster: Cluster, run: Run, applied: str
) -> None:
    del applied
    cluster.receipts = [receipts_pb2.WatchResponse(revision=40, complete=True)]
    records = json.loads(run("get", "receipts", "-o", "json").out)
    assert [record["policy"] for record in records] == [
        "shop/web",
        "BaselineAdminNetworkPolicy:default",
        "CiliumNetworkPolicy:shop/web",
        "ClusterNetworkPolicy:web",
    ]
    done = run("get", "receipts", "policy", "ClusterNetworkPolicy:web", "-o", "json")
    assert done.code == 0, done.err


@pytest.mark.parametrize(("team", "more"), [("red", ["ClusterNetworkPolicy:web"]), ("blue", [])])
def test_describe_pod_names_policies_of_every_kind(
    cluster: Cluster, run: Run, applied: str, team: str, more: list[str]
) -> None:
    del applied
    cluster.namespaces = [registry_pb2.Namespace(name="shop", labels={"team": team})]
    cluster.pods = [
        registry_pb2.Pod(
            namespace="shop", name="web", uid="u", node="node-1", labels={"app": "web"}
        )
    ]
    record = json.loads(run("describe", "pod", "shop/web", "-o", "json").out)
    assert record["policies"] == ["shop/web", "CiliumNetworkPolicy:shop/web", *more]
    assert record["isolated for ingress by"] == ["shop/web"]
    assert record["isolated for egress by"] == ["CiliumNetworkPolicy:shop/web"]


def test_describe_pod_shows_the_rest_when_a_policy_cannot_be_read(
    cluster: Cluster, run: Run, applied: str
) -> None:
    del applied
    cluster.pods = [
        registry_pb2.Pod(
            namespace="shop", name="web", uid="u", node="node-1", labels={"app": "web"}
        )
    ]
    assert len(run("describe", "pod", "shop/web", "-o", "json").out.split("cannot be read")) == 1
    broken = cluster.policies["NetworkPolicy", "shop", "web"]
    assert isinstance(broken, policy_pb2.NetworkPolicy)
    broken.applies_to_ingress = False

    done = run("describe", "pod", "shop/web", "-o", "json")

    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["policies"] == ["CiliumNetworkPolicy:shop/web"]
    (told,) = record["policies that cannot be read, and may isolate it, too"]
    assert told.startswith("shop/web: applies_to_ingress: ")


def test_a_policy_under_audit_selects_and_does_not_isolate(
    cluster: Cluster, run: Run, applied: str
) -> None:
    del applied
    cluster.pods = [
        registry_pb2.Pod(
            namespace="shop", name="web", uid="u", node="node-1", labels={"app": "web"}
        )
    ]
    cluster.policies["NetworkPolicy", "shop", "web"].audit = True
    record = json.loads(run("describe", "pod", "shop/web", "-o", "json").out)
    assert record["policies"] == ["shop/web", "CiliumNetworkPolicy:shop/web"]
    assert record["isolated for ingress by"].startswith("nothing")


def test_a_policy_without_its_spec_is_told_so(cluster: Cluster, run: Run, applied: str) -> None:
    del applied
    stored = cluster.policies["ClusterNetworkPolicy", "", "web"]
    assert isinstance(stored, policy_pb2.Policy)
    stored.manifest = ""
    done = run("get", "policy", "ClusterNetworkPolicy/web", "-o", "yaml")
    assert done.code == 1
    assert "ClusterNetworkPolicy:web was written without its spec" in done.err


def test_policies_go_in_calls_that_the_registry_takes() -> None:
    (small,) = parse(NETWORK, "p.yaml")
    assert isinstance(small, PolicyManifest)
    general = [item for item in parse(OTHERS, "p.yaml") if isinstance(item, GeneralPolicyManifest)]
    large = replace(general[0], spec=json.dumps("a" * 250_000))
    calls = list(enforcement.apply_requests([small.policy] * 501))
    assert [len(call.policies) for call in calls] == [500, 1]
    calls = list(enforcement.apply_requests([small.policy, *[large] * 30]))
    assert [len(call.policies) for call in calls] == [1, 0, 0]
    assert sum(len(call.others) for call in calls) == 30
    assert max(call.ByteSize() for call in calls) < 4 << 20
    assert list(enforcement.apply_requests([])) == []
