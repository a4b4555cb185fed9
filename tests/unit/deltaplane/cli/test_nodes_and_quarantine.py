import json

from deltaplane.v1 import registry_pb2, slicer_pb2
from tests.unit.deltaplane.cli.conftest import Cluster, Run

WAITING = slicer_pb2.GetQuarantineResponse(
    watermark_revision=38,
    strict_watermark_revision=30,
    head_revision=41,
    addresses=[
        slicer_pb2.QuarantinedAddress(
            address=bytes((10, 244, 0, 1)), node="a", released_revision=39, seconds=1.26
        ),
        slicer_pb2.QuarantinedAddress(
            address=bytes.fromhex("fd00" + 13 * "00" + "01"), released_revision=40, seconds=0.5
        ),
    ],
    total=5,
    holders=[
        slicer_pb2.Holder(node="b", effective_revision=38, reason="lagging"),
        slicer_pb2.Holder(node="c", fenced=True, reason="not connected, unreachable"),
    ],
)


def test_nodes_are_live_joining_or_fenced(cluster: Cluster, run: Run) -> None:
    cluster.nodes = [registry_pb2.Node(name=name, index=i + 1) for i, name in enumerate("abc")]
    cluster.fences = [
        registry_pb2.Fence(node="b", node_index=2, reason=registry_pb2.Fence.REASON_JOINING),
        registry_pb2.Fence(node="c", node_index=3, reason=registry_pb2.Fence.REASON_UNREACHABLE),
        # Left by a former registration of that name: it says nothing about this one.
        registry_pb2.Fence(node="a", node_index=9, reason=registry_pb2.Fence.REASON_UNREACHABLE),
    ]
    records = json.loads(run("get", "nodes", "-o", "json").out)
    assert [record["state"] for record in records] == ["live", "joining", "fenced"]


def test_quarantine_for_programs(cluster: Cluster, run: Run) -> None:
    cluster.quarantines = [WAITING]
    record = json.loads(run("get", "quarantine", "-o", "json").out)
    assert (record["watermark"], record["strict_watermark"], record["total"]) == (38, 30, 5)
    assert record["addresses"][0] == {
        "address": "10.244.0.1",
        "node": "a",
        "released_revision": 39,
        "seconds": 1.3,
    }
    assert record["addresses"][1]["address"] == "fd00::1"
    assert [(h["node"], h["fenced"]) for h in record["waits_for"]] == [("b", False), ("c", True)]


def test_quarantine_for_people(cluster: Cluster, run: Run) -> None:
    cluster.quarantines = [WAITING]
    told = run("get", "quarantine").out
    for text in ("10.244.0.1", "fd00::1", "and 3 more", "lagging", "not connected, unreachable"):
        assert text in told
    cluster.quarantines = [slicer_pb2.GetQuarantineResponse()]
    assert "no released address waits" in run("get", "quarantine").err


def test_a_node_with_a_connected_agent_is_deleted_by_force_only(cluster: Cluster, run: Run) -> None:
    cluster.agents = [slicer_pb2.AgentStatus(node="a")]
    refused = run("node", "delete", "a")
    assert refused.code == 1
    assert "the agent of node a is connected" in refused.err
    assert cluster.deleted_nodes == []
    assert run("node", "delete", "b").out == "node b deleted, with 3 endpoints\n"
    assert run("node", "delete", "a", "--force").code == 0
    assert cluster.deleted_nodes == ["b", "a"]


def test_waiting_ends_when_the_watermark_has_passed_the_deletion(
    cluster: Cluster, run: Run
) -> None:
    cluster.revision = 41
    passed = slicer_pb2.GetQuarantineResponse(watermark_revision=41)
    cluster.quarantines = [WAITING, WAITING, passed]
    assert "its addresses are free at revision 41" in run("node", "delete", "b", "--wait").out
    assert cluster.quarantines == [passed]


def test_waiting_in_vain_says_for_whom(cluster: Cluster, run: Run) -> None:
    cluster.revision, cluster.quarantines = 41, [WAITING]
    ended = run("node", "delete", "x", "--wait", "--timeout", "0.1")
    assert ended.code == 3
    assert "wait at revision 38 of 41 for b (lagging)" in ended.err
