"""The shop of examples/ in a lab, through the command and the API."""

import json
import signal
import time
from pathlib import Path

import pytest

from lab import Lab, killing, manifests, processes
from tests.e2e.conftest import SHOP, Command

POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: quiet, namespace: shop}
spec:
  podSelector: {matchLabels: {app: cart}}
  policyTypes: [Ingress]
"""

LOST_POD = """
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: nowhere}
spec: {containers: [{name: c, image: i}]}
"""

# Starting a lab may take its READY_SECONDS where the machine has much else to do.
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def shop(lab: Lab) -> Lab:
    lab.wait_enforced(lab.apply([SHOP]))
    return lab


def test_pods_get_addresses_of_both_families_and_reach_each_other_across_nodes(lab: Lab) -> None:
    done = lab.apply(manifests.read([SHOP]).without_policies())

    assert len(done.pods.added) == 12
    addresses = [address for pod in lab.pods for address in pod.addresses]
    assert len(addresses) == len(set(addresses)) == 24
    assert {pod.node for pod in lab.pods} == {"node-1", "node-2", "node-3"}
    result = lab.probe()
    assert result.stable
    assert result.wrong == ()
    # 12 pods, 25 ports, a pod does not ask itself: 11 ask each port, by 2 families.
    assert len(result.rows) == result.allowed == 550


def test_a_label_change_moves_running_pods_between_policies(shop: Lab, tmp_path: Path) -> None:
    changed = tmp_path / "shop.yaml"
    changed.write_text(
        SHOP.read_text().replace(
            "labels: {app: catalog, tier: logic}", "labels: {app: catalog, tier: shelf}"
        )
    )
    before = {pod.reference: pod for pod in shop.pods}

    done = shop.apply([changed])
    shop.wait_enforced(done)

    assert [pod.reference for pod in done.pods.updated] == ["shop/catalog-1", "shop/catalog-2"]
    assert all(before[pod.reference].addresses == pod.addresses for pod in shop.pods)
    result = shop.probe()
    assert shop.contradictions(result) == ()
    # The catalog may no longer ask the database.
    assert not any(
        row.allowed
        for row in result.rows
        if "catalog" in row.source and "database" in row.destination and row.protocol == "TCP"
    )


def test_scaling_adds_and_removes_pods_without_touching_the_others(
    shop: Lab, tmp_path: Path
) -> None:
    scaled = tmp_path / "shop.yaml"
    text = SHOP.read_text()
    scaled.write_text(text.replace("  replicas: 2\n", "  replicas: 3\n", 1))

    added = shop.apply([scaled])
    result = shop.probe()
    assert shop.contradictions(result) == ()
    removed = shop.apply([SHOP])

    assert [pod.reference for pod in added.pods.added] == ["shop/frontend-3"]
    assert len({row.source for row in result.rows}) == 13
    assert [pod.reference for pod in removed.pods.removed] == ["shop/frontend-3"]
    assert shop.contradictions(shop.probe()) == ()


def test_no_packet_is_lost_while_every_process_is_killed(shop: Lab) -> None:
    before = shop.probe()
    source, destinations = killing.choose_pair(shop.pods, "monitoring/prober-1")

    kills = killing.kill_all(shop, source, destinations)

    assert [kill.process for kill in kills][1:] == list(killing.victims(shop))
    assert {kill.process: kill.lost for kill in kills if kill.lost} == {}
    assert sum(kill.sent for kill in kills) > 10_000
    after = shop.probe()
    assert after.rows == before.rows
    assert shop.contradictions(after) == ()


def test_with_etcd_away_writes_fail_in_time_and_the_data_path_goes_on(
    shop: Lab, command: Command
) -> None:
    before = shop.probe()
    started = time.monotonic()
    assert command("get", "policies").returncode == 0
    usual = time.monotonic() - started
    etcd = shop.status().processes["etcd"].process
    assert etcd is not None
    processes.send(etcd, signal.SIGSTOP)
    try:
        started = time.monotonic()
        done = command("policy", "apply", "-f", "-", stdin=POLICY)
        elapsed = time.monotonic() - started
        during = shop.probe()
    finally:
        processes.send(etcd, signal.SIGCONT)

    assert done.returncode == 3
    assert "the endpoint registry at" in done.stderr
    # Starting the command takes most of that, on a machine that has much else to do.
    assert elapsed < max(10, 5 * usual)
    assert during.rows == before.rows
    # It was refused as a whole, or is applied as a whole: and then it can be applied again.
    again = command("policy", "apply", "-f", "-", "--wait", stdin=POLICY)
    assert again.returncode == 0, again.stderr
    assert shop.contradictions(shop.probe()) == ()


# --- the command ---------------------------------------------------------------------------------


def test_the_command_applies_probes_and_deletes(command: Command) -> None:
    applied = command("lab", "apply", "-f", str(SHOP))
    probed = command("lab", "probe", "-o", "json")
    deleted = command("lab", "delete", "-f", str(SHOP))

    assert applied.returncode == 0, applied.stderr
    assert "networkpolicy shop/default-deny applied" in applied.stdout
    rows = json.loads(probed.stdout)
    assert len(rows) == 550
    assert set(rows[0]) == {"from", "to", "port", "protocol", "family", "allowed"}
    assert not any(row["from"] == row["to"] for row in rows)
    assert deleted.returncode == 0, deleted.stderr
    assert json.loads(command("get", "endpoints", "-o", "json").stdout) == []


def test_policy_apply_waits_for_every_node(shop: Lab, command: Command) -> None:
    done = command("policy", "apply", "-f", "-", "--wait", stdin=POLICY)

    assert done.returncode == 0, done.stderr
    assert "networkpolicy shop/quiet applied" in done.stdout
    assert "enforced 3/3 nodes at revision" in done.stdout
    receipts = json.loads(command("get", "receipts", "-n", "shop", "-o", "json").stdout)
    quiet = next(row for row in receipts if row["policy"] == "shop/quiet")
    # Of the three nodes, those with pods that the policy selects.
    assert (quiet["enforced"], quiet["nodes"], quiet["complete"]) == (2, 2, True)
    assert command("policy", "delete", "-f", "-", "--wait", stdin=POLICY).returncode == 0
    assert "shop/quiet" not in {policy.reference for policy in shop.policies()}


def test_status_is_good_and_logs_are_readable(command: Command) -> None:
    processes = json.loads(command("lab", "status", "-o", "json").stdout)

    assert {row["process"] for row in processes if row["serves"]} >= {"etcd", "slicer"}
    assert command("status").returncode == 0
    assert "slicer" in command("lab", "logs").stdout.split()
    assert "serving" in command("lab", "logs", "slicer").stdout


def test_a_bad_file_is_explained_and_nothing_of_any_file_is_applied(
    lab: Lab, command: Command, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(POLICY.replace("podSelector", "podSelektor"))

    done = command("lab", "apply", "-f", str(SHOP), "-f", str(bad))

    assert done.returncode == 1
    assert f"{bad}: document 1, line 6: spec.podSelektor" in done.stderr
    assert lab.pods == ()
    assert lab.policies() == ()


def test_a_pod_in_a_namespace_that_does_not_exist_is_refused(lab: Lab, command: Command) -> None:
    done = command("lab", "apply", "-f", "-", stdin=LOST_POD)

    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert lab.pods == ()
