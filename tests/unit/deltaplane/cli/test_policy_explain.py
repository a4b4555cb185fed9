"""`policy explain` and `policy simulate` on a small cluster: two web pods, a database."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deltaplane import wire
from deltaplane.cli.answers import read_traffic
from deltaplane.errors import Invalid
from deltaplane.manifest import PolicyManifest, parse
from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.v1 import common_pb2, ipam_pb2, registry_pb2
from tests.unit.deltaplane.cli.conftest import Cluster, Run

TCP = common_pb2.PROTOCOL_TCP

DENY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}
"""
ALLOW = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{port: sql}]
"""
EGRESS = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress:
    - to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16]}}]
"""


def pair(last: int, node: int) -> common_pb2.AddressPair:
    return common_pb2.AddressPair(
        ipv4=parse_address(f"10.244.{node}.{last}"), ipv6=parse_address(f"fd00:244:{node}::{last}")
    )


@pytest.fixture
def shop(cluster: Cluster) -> Cluster:
    for number in (1, 2):
        addresses = common_pb2.AddressPair(
            ipv4=parse_address(f"198.19.0.{number}"), ipv6=parse_address(f"fd99::{number}")
        )
        cluster.nodes.append(
            registry_pb2.Node(name=f"node-{number}", index=number, addresses=addresses)
        )
    ports = [common_pb2.NamedPort(name="sql", protocol=TCP, number=5432)]
    for number, app, named in ((300, "web", []), (301, "db", ports)):
        labels = {"app": app}
        cluster.identities.append(
            registry_pb2.Identity(id=number, namespace="shop", labels=labels, named_ports=named)
        )
    for pod, node, last, identity in (
        ("web-1", 1, 1, 300),
        ("web-2", 2, 1, 300),
        ("db", 2, 2, 301),
    ):
        cluster.endpoints.append(
            registry_pb2.Endpoint(
                namespace="shop",
                pod=pod,
                node=f"node-{node}",
                node_index=node,
                id=last,
                identity=identity,
                addresses=pair(last, node),
                state=registry_pb2.Endpoint.STATE_READY,
            )
        )
    cluster.pods = [registry_pb2.Pod(namespace="shop", name="new")]
    for prefix in ("10.244.0.0/16", "fd00:244::/48"):
        pool = ipam_pb2.Pool(name="pods", prefix=wire.prefix_to_proto(Prefix.parse(prefix)))
        cluster.pools.append(ipam_pb2.PoolStatus(pool=pool))
    return cluster


def store(cluster: Cluster, *texts: str) -> None:
    for text in texts:
        for item in parse(text, source="here"):
            assert isinstance(item, PolicyManifest)
            message = wire.network_policy_to_proto(item.policy)
            cluster.policies["NetworkPolicy", item.namespace, item.name] = message


def explained(run: Run, source: str, destination: str, port: str) -> dict[str, Any]:
    done = run(
        "policy", "explain", "--from", source, "--to", destination, "--port", port, "-o", "json"
    )
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_a_denial_names_the_policies_of_its_side(shop: Cluster, run: Run) -> None:
    store(shop, DENY, ALLOW)

    done = run("policy", "explain", "--from", "shop/web-1", "--to", "shop/db", "--port", "80")

    assert done.code == 0
    assert done.out.splitlines() == [
        (
            "shop/web-1 (10.244.1.1, identity 300, node node-1) -> "
            "shop/db (10.244.2.2, identity 301, node node-2), TCP 80: denied"
        ),
        "  the same: fd00:244:1::1 -> fd00:244:2::2",
        "  egress allowed: no policy decides",
        "  ingress denied: no rule of shop/allow, shop/deny allows it (normal tier)",
    ]


def test_a_rule_that_allows_is_named_and_a_port_found_by_its_name(shop: Cluster, run: Run) -> None:
    store(shop, DENY, ALLOW)

    found = explained(run, "shop/web-1", "shop/db", "sql")

    assert found["allowed"] is True
    (answer,) = found["answers"]
    assert (answer["port"], len(answer["pairs"])) == (5432, 2)
    assert answer["ingress"]["by"] == [
        {
            "policy": "shop/allow",
            "rule": 0,
            "name": "",
            "tier": "normal",
            "action": "allow",
            "audit": False,
        }
    ]
    assert answer["ingress"]["policies"] == ["shop/allow", "shop/deny"]
    shown = run("policy", "explain", "--from", "shop/web-1", "--to", "shop/db", "--port", "sql").out
    assert "TCP sql (5432): allowed" in shown
    assert "no rule matches of: shop/deny" in shown


def test_each_part_of_a_cidr_that_is_judged_differently_is_told(shop: Cluster, run: Run) -> None:
    store(shop, EGRESS)

    found = explained(run, "shop/web-1", "10.0.0.0/8", "443/TCP")

    assert found["allowed"] is False
    verdicts = {
        pair["to"]["address"]: answer["allowed"]
        for answer in found["answers"]
        for pair in answer["pairs"]
    }
    assert verdicts["10.0.0.0"]
    assert not verdicts["10.9.0.0"]
    assert verdicts["10.10.0.0"], "behind the hole"
    assert verdicts["10.244.2.2"], "a pod is inside"
    # Nothing is allowed out in the other family.
    assert not explained(run, "shop/web-1", "2001:db8::/32", "443")["allowed"]


@pytest.mark.parametrize(
    ("address", "name", "identity", "allowed"),
    [
        ("198.19.0.2", "node-2", "remote-node", True),
        ("198.19.0.1", "node-1", "remote-node", False),
        ("10.244.9.9", "", "other-pod", False),
        ("192.0.2.7", "", "world", False),
        ("10.244.1.1", "shop/web-1", 300, True),
    ],
)
def test_who_an_address_is(  # noqa: PLR0917 - a table
    shop: Cluster, run: Run, address: str, name: str, identity: object, allowed: object
) -> None:
    """The database's own node reaches it whatever the policy says; others do not."""
    store(shop, DENY, ALLOW)

    found = explained(run, address, "shop/db", "5432")

    (answer,) = found["answers"]
    assert (answer["pairs"][0]["from"]["name"], found["allowed"]) == (name, allowed)
    assert answer["pairs"][0]["from"]["identity"] == identity


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("shop/nope", "shop/db", "80"), "there is no pod shop/nope"),
        (("shop/new", "shop/db", "80"), "pod shop/new has no endpoint with labels yet"),
        (("web-1", "shop/db", "80"), "write NAMESPACE/POD, an address or a CIDR"),
        (("10.0.0.300", "shop/db", "80"), "is no address and no CIDR"),
        (("10.0.0.1/8", "shop/db", "80"), "has host bits set"),
        (("10.0.0.1", "2001:db8::1", "80"), "have no family in common"),
        (("shop/web-1", "fd00::1", "8/ICMP"), "have no IPv4 in common, which ICMP needs"),
        (("shop/web-1", "shop/db", "http"), "shop/db has no TCP port 'http'"),
        (("shop/web-1", "192.0.2.1", "sql"), "192.0.2.1 has no TCP port 'sql'"),
    ],
)
@pytest.mark.usefixtures("shop")
def test_what_cannot_be_asked(run: Run, arguments: tuple[str, str, str], reason: str) -> None:
    source, destination, port = arguments
    done = run("policy", "explain", "--from", source, "--to", destination, "--port", port)
    assert done.code == 1
    assert reason in done.err


@pytest.mark.usefixtures("shop")
def test_without_a_port_nothing_is_asked(run: Run) -> None:
    assert run("policy", "explain", "--from", "shop/web-1", "--to", "shop/db").code == 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("443", "TCP 443"),
        ("53/udp", "UDP 53"),
        ("http/SCTP", "SCTP http"),
        ("0/ICMP", "ICMP 0"),
        ("128/ICMPv6", "ICMPV6 128"),
    ],
)
def test_how_traffic_is_written(text: str, shown: str) -> None:
    assert str(read_traffic(text)) == shown


@pytest.mark.parametrize("text", ["", "/TCP", "0", "65536/TCP", "80/HTTP", "256/ICMP", "echo/ICMP"])
def test_what_is_no_traffic(text: str) -> None:
    with pytest.raises(Invalid):
        read_traffic(text)


# --- simulate -------------------------------------------------------------------------------------


def simulated(
    run: Run, tmp_path: Path, text: str, *more: str
) -> tuple[dict[str, Any], list[Mapping[str, Any]]]:
    file = tmp_path / "new.yaml"
    file.write_text(text)
    done = run("policy", "simulate", "-f", str(file), "-o", "json", *more)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    return found, found["changes"]


def test_a_policy_that_denies_lists_who_would_be_cut_off(
    shop: Cluster, run: Run, tmp_path: Path
) -> None:
    found, changes = simulated(run, tmp_path, DENY)

    assert found["complete"]
    by_source = {change["from"]["labels"]: change for change in changes}
    assert by_source.keys() == {"shop app=web", "remote-node", "world"}
    web = by_source["shop app=web"]
    assert not web["allowed"]
    assert (web["from"]["pods"], web["from"]["examples"]) == (2, ["shop/web-1", "shop/web-2"])
    assert (web["to"]["labels"], web["to"]["examples"]) == ("shop app=db", ["shop/db"])
    assert [item["protocol"] for item in web["traffic"]] == ["TCP", "UDP", "SCTP", "ICMP", "ICMPV6"]
    assert shop.policies == {}, "nothing is written"


def test_a_policy_that_allows_more_names_the_ports(shop: Cluster, run: Run, tmp_path: Path) -> None:
    store(shop, DENY)

    _, (change,) = simulated(run, tmp_path, ALLOW)

    assert change["allowed"]
    assert change["traffic"] == [{"protocol": "TCP", "first": 5432, "last": 5432}]
    file = tmp_path / "new.yaml"
    shown = run("policy", "simulate", "-f", str(file)).out
    assert "shop app=web (2 pods: shop/web-1, shop/web-2)" in shown
    assert "TCP 5432" in shown


def test_deleting_is_the_other_way_round(shop: Cluster, run: Run, tmp_path: Path) -> None:
    store(shop, DENY, ALLOW)
    _, changes = simulated(run, tmp_path, ALLOW, "--delete")
    assert [change["allowed"] for change in changes] == [False]
    _, changes = simulated(run, tmp_path, DENY, "--delete")
    assert changes == [], "the other one isolates it, too"


def test_pods_that_a_prefix_tells_apart_are_told_apart(
    shop: Cluster, run: Run, tmp_path: Path
) -> None:
    text = ALLOW.replace(
        "podSelector: {matchLabels: {app: web}}}]", "ipBlock: {cidr: 10.244.1.0/24}}]"
    )
    store(shop, DENY)

    _, changes = simulated(run, tmp_path, text)

    pods = [change["from"]["examples"] for change in changes if change["from"]["pods"]]
    assert pods == [["shop/web-1"]]


@pytest.mark.usefixtures("shop")
def test_a_long_answer_is_cut_and_counted(run: Run, tmp_path: Path) -> None:
    found, changes = simulated(run, tmp_path, DENY, "--limit", "1")
    assert (found["pairs"], len(changes)) == (3, 1)
    shown = run("policy", "simulate", "-f", str(tmp_path / "new.yaml"), "--limit", "1").out
    assert "and 2 more pairs" in shown


def test_a_policy_that_changes_nothing(shop: Cluster, run: Run, tmp_path: Path) -> None:
    store(shop, DENY)
    file = tmp_path / "new.yaml"
    file.write_text(DENY)
    done = run("policy", "simulate", "-f", str(file))
    assert (done.code, done.err) == (0, "nothing would change\n")
