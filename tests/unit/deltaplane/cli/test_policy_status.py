import json
from pathlib import Path

import pytest

from deltaplane.cli.references import policy_reference
from deltaplane.errors import Invalid
from deltaplane.v1 import policy_pb2, receipts_pb2
from tests.unit.deltaplane.cli.conftest import Cluster, Run
from tests.unit.deltaplane.cli.test_commands import receipt

LAGGING = receipts_pb2.MissingNode(
    node="node-7", effective_revision=39, reason="lagging", lagging_seconds=3.24
)
REFUSING = receipts_pb2.MissingNode(
    node="node-8",
    effective_revision=41,
    reason="refused: SUBJECT_POLICY 0000012c: needs 70,000 entries, the map holds 65,536",
    refused=[
        receipts_pb2.RefusedObject(
            object="policies of identity 300 (shop app=web)",
            reason="needs 70,000 entries, the map holds 65,536",
        )
    ],
)


def partly(*missing: receipts_pb2.MissingNode, total: int) -> receipts_pb2.WatchResponse:
    return receipts_pb2.WatchResponse(
        revision=40,
        nodes_total=total,
        nodes_enforced=total - len(missing),
        missing=missing,
        complete=not missing,
        times=receipts_pb2.EnforcementTimes(
            nodes=total - len(missing), p50_ms=21.0, p99_ms=82.6, max_ms=90.0
        ),
    )


def test_a_status_is_one_sentence(cluster: Cluster, run: Run) -> None:
    cluster.receipts = [partly(LAGGING, REFUSING, total=1000)]

    done = run("policy", "status", "web", "-n", "shop")

    assert cluster.watched == [receipts_pb2.WatchRequest(policy="shop/web")]
    assert done.code == 0
    head, _, tail = done.out.partition("; ")
    assert head == "shop/web: enforced 998/1000 since revision 40 (p99 83 ms)"
    assert tail == (
        "missing: node-7 (lagging 3.2 s), node-8 (refused: policies of identity 300 (shop app=web):"
        " needs 70,000 entries, the map holds 65,536)\n"
    )


def test_nodes_that_the_slicer_does_not_name_are_counted(cluster: Cluster, run: Run) -> None:
    answer = partly(LAGGING, total=1000)
    answer.nodes_enforced = 700
    answer.times.nodes = 650
    cluster.receipts = [answer]

    done = run("policy", "status", "shop/web")

    assert "enforced 700/1000" in done.out
    assert "(p99 83 ms of 650 nodes)" in done.out
    assert done.out.endswith("node-7 (lagging 3.2 s) and 299 more\n")


def test_what_was_not_measured_is_not_made_up(cluster: Cluster, run: Run) -> None:
    cluster.receipts = [receipt(2)]
    done = run("policy", "status", "shop/web")
    assert done.out == "shop/web: enforced 2/2 since revision 40 (times not measured)\n"
    assert json.loads(run("policy", "status", "shop/web", "-o", "json").out)["times"] == {}

    cluster.receipts = [receipt(0)]
    done = run("policy", "status", "shop/web")
    assert done.out.endswith("revision 40: no node has a pod that it selects\n")


def test_a_status_for_programs(cluster: Cluster, run: Run) -> None:
    cluster.receipts = [partly(REFUSING, total=3)]

    record = json.loads(run("policy", "status", "ccnp:web", "-o", "json").out)

    assert record == {
        "policy": "CiliumClusterwideNetworkPolicy:web",
        "audit": False,
        "revision": 40,
        "enforced": 2,
        "nodes": 3,
        "complete": False,
        "times": {"nodes": 2, "p50_ms": 21.0, "p99_ms": 82.6, "max_ms": 90.0},
        "missing": [
            {
                "node": "node-8",
                "reason": REFUSING.reason,
                "effective_revision": 41,
                "lagging_seconds": 0.0,
                "refused": [
                    {
                        "object": "policies of identity 300 (shop app=web)",
                        "reason": "needs 70,000 entries, the map holds 65,536",
                    }
                ],
            }
        ],
        "missing_total": 1,
    }


def test_a_status_says_that_the_policy_is_under_audit(cluster: Cluster, run: Run) -> None:
    cluster.receipts = [partly(total=3)]
    audited = policy_pb2.NetworkPolicy(namespace="shop", name="web", audit=True)
    cluster.policies["NetworkPolicy", "shop", "web"] = audited
    cluster.policies["CiliumNetworkPolicy", "shop", "web"] = policy_pb2.Policy(
        kind="CiliumNetworkPolicy", namespace="shop", name="web"
    )

    done = run("policy", "status", "shop/web")

    assert done.out.startswith("shop/web (under audit, drops nothing): enforced 3/3 since")
    assert json.loads(run("policy", "status", "shop/web", "-o", "json").out)["audit"] is True
    namesake = run("policy", "status", "cnp:shop/web").out
    assert namesake.startswith("CiliumNetworkPolicy:shop/web: enforced 3/3 since")


def test_a_status_goes_without_the_registry(
    cluster: Cluster, command: Run, target: str, tmp_path: Path
) -> None:
    cluster.receipts = [partly(total=3)]
    where = ("--slicer", target, "--ipam", target, "--registry", f"unix:{tmp_path}/nobody")

    done = command("policy", "status", "shop/web", *where)

    assert done.out.startswith("shop/web (perhaps under audit: the registry does not answer): enf")
    done = command("policy", "status", "shop/web", "-o", "json", *where)
    assert "audit" not in json.loads(done.out)


def test_waiting_ends_with_the_last_node(cluster: Cluster, run: Run) -> None:
    cluster.receipts = [partly(LAGGING, total=3), partly(total=3)]

    done = run("policy", "status", "shop/web", "--wait")

    assert cluster.watched[0].wait
    assert (done.code, done.out) == (0, "shop/web: enforced 3/3 since revision 40 (p99 83 ms)\n")
    assert "enforced 2/3" in done.err
    done = run("policy", "status", "shop/web", "--wait", "-o", "json")
    assert [json.loads(line)["complete"] for line in done.out.splitlines()] == [False, True]


@pytest.mark.parametrize("ends_early", [True, False])
def test_what_is_not_in_force_in_time_fails(
    cluster: Cluster, run: Run, *, ends_early: bool
) -> None:
    cluster.receipts = [partly(LAGGING, total=3)]
    cluster.ends_early = ends_early

    done = run("policy", "status", "shop/web", "--wait", "--timeout", "0.4")

    assert done.code == 3
    assert "missing: node-7 (lagging 3.2 s)" in done.err


def test_an_absent_policy_is_told(run: Run) -> None:
    done = run("policy", "status", "shop/nope")
    assert (done.code, done.err) == (1, "deltaplane: there is no policy 'shop/nope'\n")


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("web", "default/web"),
        ("shop/web", "shop/web"),
        ("np:shop/web", "shop/web"),
        ("NetworkPolicy/web", "default/web"),
        ("cnp:web", "CiliumNetworkPolicy:default/web"),
        ("CNP:shop/web", "CiliumNetworkPolicy:shop/web"),
        ("CiliumNetworkPolicy:shop/web", "CiliumNetworkPolicy:shop/web"),
        ("ccnp:web", "CiliumClusterwideNetworkPolicy:web"),
        ("cnp-cluster:web", "ClusterNetworkPolicy:web"),
        ("anp:web", "AdminNetworkPolicy:web"),
        ("baselineadminnetworkpolicy/default", "BaselineAdminNetworkPolicy:default"),
        ("cnp/web", "cnp/web"),
    ],
)
def test_how_policies_are_named(text: str, reference: str) -> None:
    assert policy_reference(text, "default") == reference


@pytest.mark.parametrize(
    "text", ["", "shop/", "/web", "a/b/c", "kyverno:web", "anp:shop/web", "np:"]
)
def test_what_names_no_policy(text: str) -> None:
    with pytest.raises(Invalid):
        policy_reference(text, "default")
