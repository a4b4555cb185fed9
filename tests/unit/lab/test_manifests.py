from pathlib import Path

import pytest

from deltaplane.errors import Invalid
from deltaplane.manifest import ManifestError
from lab import manifests
from lab.pods import Port

SHOP = Path(__file__).parents[3] / "examples/shop.yaml"


def test_the_shop_has_five_tiers_and_twelve_pods() -> None:
    shop = manifests.read([SHOP])

    tiers = {w.name: w.replicas for w in shop.workloads if w.namespace == "shop"}
    assert set(tiers) == {"frontend", "cart", "catalog", "payment", "database"}
    assert sum(workload.replicas for workload in shop.workloads) == 12
    assert {port.protocol for w in shop.workloads for port in w.ports} == {"TCP", "UDP"}


def test_the_shop_shows_what_policies_can_say() -> None:
    policies = manifests.read([SHOP]).policies
    rules = [rule for policy in policies for rule in (*policy.ingress, *policy.egress)]
    peers = [peer for rule in rules for peer in rule.peers]
    ports = [port for rule in rules for port in rule.ports]

    assert any(not policy.ingress and not policy.egress for policy in policies)
    assert any(peer.ip_block and peer.ip_block.except_ for peer in peers)
    assert any(peer.namespace_selector and peer.pod_selector for peer in peers)
    assert any(port.end_port for port in ports)
    assert any(isinstance(port.port, str) for port in ports)
    assert any(policy.egress for policy in policies)


def test_workloads_and_policies_can_be_applied_apart() -> None:
    shop = manifests.read([SHOP])

    assert shop.without_policies().policies == ()
    assert shop.only_policies().workloads == ()
    assert shop.without_policies().workloads == shop.workloads


def test_a_deployment_gives_its_template_to_its_pods() -> None:
    cart = next(w for w in manifests.read([SHOP]).workloads if w.name == "cart")

    assert cart.labels == {"app": "cart", "tier": "logic"}
    assert cart.ports[:2] == (Port("TCP", 7070, "grpc"), Port("UDP", 7071, "gossip"))


def test_mistakes_of_all_files_are_told_together(tmp_path: Path) -> None:
    files = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    for file in files:
        file.write_text("{apiVersion: v1, kind: Service, metadata: {name: x}}")

    with pytest.raises(ManifestError) as caught:
        manifests.read([*files, SHOP])

    assert [mistake.source for mistake in caught.value.mistakes] == [str(file) for file in files]


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "binary"
    file.write_bytes(b"\xff\xfe")

    with pytest.raises(Invalid, match="binary"):
        manifests.read([file])


def test_a_pod_on_the_hosts_network_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(
        "{apiVersion: v1, kind: Pod, metadata: {name: x},"
        " spec: {hostNetwork: true, containers: [{name: c, image: i}]}}"
    )

    with pytest.raises(Invalid, match=r"hostNetwork.*Pod default/x"):
        manifests.read([file])


def test_policies_of_other_kinds_are_policies_too(tmp_path: Path) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text(
        "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, "
        "metadata: {name: p}, spec: {tier: Admin, priority: 1, subject: {namespaces: {}}}}"
    )

    known = manifests.read([SHOP, file])

    (other,) = known.others
    assert other.policy.reference == "ClusterNetworkPolicy:p"
    assert known.all_policies == (*known.policies, other)
    assert known.only_policies().others == (other,)
    assert known.without_policies().all_policies == ()


def test_the_example_of_services_can_be_applied() -> None:
    known = manifests.read([SHOP.with_name("services.yaml")])

    assert [item.name for item in known.services] == ["shop", "db"]
    assert known.only_policies().services == ()
    assert known.without_policies() == known
    (stateful,) = [item for item in known.workloads if item.kind == "StatefulSet"]
    assert (stateful.pod_names, stateful.subdomain) == (("db-0", "db-1"), "db")
