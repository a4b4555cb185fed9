import json
from pathlib import Path

import pytest
import yaml

from deltaplane import manifest
from deltaplane.v1 import common_pb2, ipam_pb2, receipts_pb2, registry_pb2, slicer_pb2
from tests.unit.deltaplane.cli.conftest import Cluster, Run

POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress:
    - from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]
      ports: [{port: http}]
"""

ADDRESSES = common_pb2.AddressPair(ipv4=b"\x0a\x00\x00\x01", ipv6=bytes(15) + b"\x01")


def endpoint(number: int, *, pod: str = "web", namespace: str = "shop") -> registry_pb2.Endpoint:
    return registry_pb2.Endpoint(
        namespace=namespace,
        pod=pod,
        node="node-1",
        id=number,
        identity=300,
        state=registry_pb2.Endpoint.STATE_READY,
        addresses=ADDRESSES,
        meta=common_pb2.ObjectMeta(create_revision=7, mod_revision=9),
    )


@pytest.fixture
def policy_file(tmp_path: Path) -> str:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    return str(file)


def receipt(enforced: int, *missing: str) -> receipts_pb2.WatchResponse:
    return receipts_pb2.WatchResponse(
        revision=40,
        nodes_total=enforced + len(missing),
        nodes_enforced=enforced,
        missing=[receipts_pb2.MissingNode(node=node, reason="lagging") for node in missing],
        complete=not missing,
    )


def test_get_endpoints_follows_every_page(cluster: Cluster, run: Run) -> None:
    cluster.endpoints = [endpoint(number) for number in range(1, 8)]
    cluster.page = 3

    done = run("get", "endpoints", "-o", "json")

    assert done.code == 0
    records = json.loads(done.out)
    assert [record["id"] for record in records] == [1, 2, 3, 4, 5, 6, 7]
    assert records[0]["addresses"] == ["10.0.0.1", "::1"]
    assert records[0]["state"] == "ready"
    assert (records[0]["incarnation"], records[0]["generation"]) == (7, 9)


def test_get_slices_follows_every_page(cluster: Cluster, run: Run) -> None:
    cluster.slices = [slicer_pb2.Slice(id=f"300/{n:b}", identity=300) for n in range(5)]
    cluster.page = 2

    assert len(json.loads(run("get", "slices", "-o", "json").out)) == 5


def test_get_nodes_joins_the_slicers_view(cluster: Cluster, run: Run) -> None:
    cluster.nodes = [
        registry_pb2.Node(name="node-1", index=1, addresses=ADDRESSES),
        registry_pb2.Node(name="node-2", index=2, addresses=ADDRESSES),
    ]
    cluster.agents = [slicer_pb2.AgentStatus(node="node-1", effective_revision=33)]

    records = yaml.safe_load(run("get", "nodes", "-o", "yaml").out)

    assert [(r["name"], r["connected"], r["effective_revision"]) for r in records] == [
        ("node-1", True, 33),
        ("node-2", False, 0),
    ]


def test_get_pods_of_one_namespace_with_the_addresses_of_their_endpoints(
    cluster: Cluster, run: Run
) -> None:
    cluster.pods = [
        registry_pb2.Pod(namespace="shop", name="web", node="node-1", labels={"app": "web"}),
        registry_pb2.Pod(namespace="other", name="web", node="node-1"),
        registry_pb2.Pod(namespace="shop", name="waiting", node="node-1"),
    ]
    cluster.endpoints = [endpoint(1), endpoint(2, namespace="other")]

    records = json.loads(run("get", "pods", "-n", "shop", "-o", "json").out)

    assert [(r["name"], r["addresses"]) for r in records] == [
        ("web", ["10.0.0.1", "::1"]),
        ("waiting", []),
    ]


def test_get_pools_and_blocks(cluster: Cluster, run: Run) -> None:
    prefix = common_pb2.Prefix(address=b"\x0a\xf4\x00\x00", length=16)
    cluster.pools = [
        ipam_pb2.PoolStatus(
            pool=ipam_pb2.Pool(name="pods", prefix=prefix, block_length=26),
            blocks_total=1024,
            blocks_claimed=3,
        )
    ]
    cluster.blocks = [ipam_pb2.Block(prefix=prefix, pool="pods", node="node-1", node_index=1)]

    assert json.loads(run("get", "pools", "-o", "json").out)[0]["prefix"] == "10.244.0.0/16"
    assert json.loads(run("get", "blocks", "-o", "json").out)[0]["node"] == "node-1"


def test_an_empty_table_says_so_on_standard_error(run: Run) -> None:
    done = run("get", "identities")

    assert (done.code, done.out) == (0, "")
    assert "no identity" in done.err


def test_a_table_has_a_column_per_key_and_shows_brackets_as_they_are(
    cluster: Cluster, run: Run
) -> None:
    cluster.identities = [
        registry_pb2.Identity(id=300, namespace="shop", labels={"app": "[red]"}),
        registry_pb2.Identity(id=301, namespace="shop", labels={"app": "web"}),
    ]

    out = run("get", "identities").out

    assert "NAMESPACE LABELS" in out
    assert "app=[red]" in out
    assert "301" in out


def test_an_unknown_format_is_refused_before_anybody_is_asked(command: Run) -> None:
    done = command("get", "nodes", "-o", "xml")

    assert done.code == 1
    assert "'xml' is none of table, json, yaml" in done.err


def test_a_policy_survives_apply_and_get_unchanged(run: Run, policy_file: str) -> None:
    assert run("policy", "apply", "-f", policy_file).code == 0

    text = run("get", "policy", "web", "-n", "shop", "-o", "yaml").out
    record = json.loads(run("get", "policy", "shop/web", "-o", "json").out)

    assert manifest.parse(text, source="out") == manifest.parse(POLICY, source="in")
    assert record["metadata"] == {"name": "web", "namespace": "shop"}


def test_an_absent_policy_is_named(run: Run) -> None:
    done = run("get", "policy", "nope", "-n", "shop")

    assert done.code == 1
    assert "there is no policy shop/nope" in done.err


def test_apply_without_wait_tells_the_revision(run: Run, policy_file: str) -> None:
    done = run("policy", "apply", "-f", policy_file)

    assert "networkpolicy shop/web applied" in done.out
    assert "stored at revision 41" in done.out


def test_apply_with_wait_ends_with_the_last_node(
    cluster: Cluster, run: Run, policy_file: str
) -> None:
    cluster.receipts = [receipt(1, "node-2"), receipt(2)]

    done = run("policy", "apply", "-f", policy_file, "--wait")

    assert done.code == 0
    assert "enforced 2/2 nodes at revision 41 after" in done.out


def test_apply_with_wait_names_the_nodes_that_are_missing(
    cluster: Cluster, run: Run, policy_file: str
) -> None:
    cluster.receipts = [receipt(1, "node-2")]

    done = run("policy", "apply", "-f", policy_file, "--wait", "--timeout", "0.4")

    assert done.code == 3
    assert "enforced 1/2 nodes at revision 41, missing: node-2 (lagging)" in done.err


def test_a_stream_that_ends_before_the_last_node_is_no_success(
    cluster: Cluster, run: Run, policy_file: str
) -> None:
    cluster.receipts = [receipt(1, "node-2")]
    cluster.ends_early = True

    done = run("policy", "apply", "-f", policy_file, "--wait")

    assert done.code == 3
    assert "without a complete receipt" in done.err


def test_describe_pod_before_the_slicer_knows_it(cluster: Cluster, run: Run) -> None:
    cluster.pods = [registry_pb2.Pod(namespace="shop", name="web")]
    cluster.endpoints = [endpoint(1)]

    record = json.loads(run("describe", "pod", "shop/web", "-o", "json").out)

    assert record["endpoints"][0]["known"] == "on no node yet"


def test_delete_removes_and_is_repeatable(cluster: Cluster, run: Run, policy_file: str) -> None:
    run("policy", "apply", "-f", policy_file)

    assert run("policy", "delete", "-f", policy_file).code == 0
    assert cluster.policies == {}
    assert run("policy", "delete", "-f", policy_file).code == 0


def test_what_the_service_refuses_is_told_in_its_words(
    cluster: Cluster, run: Run, policy_file: str
) -> None:
    cluster.refuse_policies = "spec.ingress[0]: no"

    done = run("policy", "apply", "-f", policy_file)

    assert done.code == 1
    assert done.err == "deltaplane: spec.ingress[0]: no\n"


def test_a_mistake_in_a_file_names_file_document_and_place(
    cluster: Cluster, run: Run, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(POLICY)
    other = POLICY.replace("name: web", "name: api").replace("[Ingress]", "[In]")
    bad.write_text(f"{POLICY}---{other}")

    done = run("policy", "apply", "-f", str(good), "-f", str(bad))

    assert done.code == 1
    assert f"{bad}: document 2, line 17: spec.policyTypes[0]" in done.err
    assert cluster.policies == {}


def test_a_file_that_is_not_there_is_named(run: Run) -> None:
    done = run("policy", "apply", "-f", "/no/such.yaml")

    assert (done.code, done.err) == (1, "deltaplane: /no/such.yaml: No such file or directory\n")


def test_policy_apply_takes_policies_only(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "namespace.yaml"
    file.write_text("{apiVersion: v1, kind: Namespace, metadata: {name: x}}")

    done = run("policy", "apply", "-f", str(file))

    assert done.code == 1
    assert "only policies" in done.err


def test_get_receipts_lists_every_policy(cluster: Cluster, run: Run, policy_file: str) -> None:
    run("policy", "apply", "-f", policy_file)
    cluster.receipts = [receipt(1, "node-2")]

    records = json.loads(run("get", "receipts", "-o", "json").out)

    assert records == [
        {
            "policy": "shop/web",
            "revision": 40,
            "enforced": 1,
            "nodes": 2,
            "complete": False,
            "missing": ["node-2 (lagging)"],
        }
    ]


def test_describe_pod(cluster: Cluster, run: Run, policy_file: str) -> None:
    run("policy", "apply", "-f", policy_file)
    cluster.pods = [
        registry_pb2.Pod(
            namespace="shop", name="web", uid="u", node="node-1", labels={"app": "web"}
        )
    ]
    cluster.endpoints = [endpoint(1)]
    cluster.identities = [registry_pb2.Identity(id=300, namespace="shop", labels={"app": "web"})]
    cluster.receipts = [receipt(2)]

    record = json.loads(run("describe", "pod", "shop/web", "-o", "json").out)

    assert record["identity"] == 300
    assert record["endpoints"][0]["known"] == "2/2 nodes"
    assert record["isolated for ingress by"] == ["shop/web"]
    assert record["isolated for egress by"] == "nothing: what no policy denies is allowed"
    assert record["policies"] == ["shop/web"]


@pytest.mark.parametrize(
    ("name", "message"), [("web", "NAMESPACE/NAME"), ("shop/web", "there is no pod shop/web")]
)
def test_describe_pod_explains_a_wrong_name(run: Run, name: str, message: str) -> None:
    done = run("describe", "pod", name)

    assert done.code == 1
    assert message in done.err


def test_status_counts_what_there_is(cluster: Cluster, run: Run) -> None:
    cluster.nodes = [registry_pb2.Node(name="node-1", index=1)]
    cluster.endpoints = [endpoint(1), endpoint(2)]

    done = run("status", "-o", "json")

    assert done.code == 0
    record = json.loads(done.out)
    assert (record["nodes"], record["endpoints"], record["slicer revision"]) == (1, 2, 40)


def test_status_goes_on_when_one_service_is_away(command: Run, target: str, tmp_path: Path) -> None:
    gone = f"unix:{tmp_path}/gone"

    done = command(
        *("status", "-o", "json", "--registry", target, "--ipam", gone, "--slicer", target)
    )

    assert done.code == 3
    record = json.loads(done.out)
    assert record["nodes"] == 0
    assert f"ipam at {gone}" in record["ipam"]


def test_a_service_that_is_away_is_named_with_its_address(command: Run, tmp_path: Path) -> None:
    gone = f"unix:{tmp_path}/gone"

    done = command("get", "pools", "--registry", gone, "--ipam", gone, "--slicer", gone)

    assert done.code == 3
    assert done.err.startswith(f"deltaplane: ipam at {gone}: ")
