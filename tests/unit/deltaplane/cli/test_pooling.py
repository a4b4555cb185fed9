import json
from typing import Any

import pytest

from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.v1 import common_pb2, ipam_pb2, receipts_pb2, registry_pb2
from tests.unit.deltaplane.cli.conftest import Cluster, Run


def prefix(text: str) -> common_pb2.Prefix:
    value = Prefix.parse(text)
    return common_pb2.Prefix(address=value.address, length=value.length)


def endpoint(node: str, ipv4: str, ipv6: str = "") -> registry_pb2.Endpoint:
    return registry_pb2.Endpoint(
        node=node,
        addresses=common_pb2.AddressPair(
            ipv4=parse_address(ipv4), ipv6=parse_address(ipv6) if ipv6 else b""
        ),
    )


@pytest.fixture
def pool(cluster: Cluster) -> ipam_pb2.Pool:
    """The only pool of the cluster."""
    made = ipam_pb2.Pool(
        name="ipv4",
        prefix=prefix("10.244.0.0/24"),
        block_length=26,
        mode=ipam_pb2.Pool.MODE_DEMAND,
        min_free_percent=50,
        reserved=[prefix("10.244.0.0/28")],
    )
    cluster.pools = [ipam_pb2.PoolStatus(pool=made, blocks_total=4, blocks_claimed=2)]
    return made


def test_get_pools_counts_addresses(cluster: Cluster, run: Run, pool: ipam_pb2.Pool) -> None:
    del pool
    # Two in the pool, one of them reserved; one of another pool.
    cluster.endpoints = [
        endpoint("node-1", "10.244.0.1", "fd00::1"),
        endpoint("node-1", "10.244.0.70"),
        endpoint("node-2", "10.9.0.1"),
    ]
    (record,) = json.loads(run("get", "pools", "-o", "json").out)
    assert record == {
        "name": "ipv4",
        "prefix": "10.244.0.0/24",
        "block_length": 26,
        "capacity": 256,
        "blocks_claimed": 2,
        "blocks_total": 4,
        "used": 2,
        "free": 256 - 16 - 1,
        "mode": "demand",
        "draining": False,
        "on_request": False,
        "reserved": ["10.244.0.0/28"],
    }


def test_get_blocks_counts_the_addresses_of_their_owner(cluster: Cluster, run: Run) -> None:
    cluster.endpoints = [
        endpoint("node-1", "10.244.0.1", "fd00::1"),
        endpoint("node-1", "10.244.0.70"),
        endpoint("node-2", "10.244.0.2"),
    ]
    cluster.blocks = [
        ipam_pb2.Block(prefix=prefix("10.244.0.0/26"), pool="ipv4", node="node-1", node_index=1),
        ipam_pb2.Block(
            prefix=prefix("10.244.0.2/32"),
            pool="ipv4",
            node="node-2",
            node_index=2,
            fixed=True,
            usable_after_revision=17,
        ),
        ipam_pb2.Block(prefix=prefix("fd00::/122"), pool="ipv6", node="node-1", node_index=1),
    ]
    records = json.loads(run("get", "blocks", "-o", "json").out)
    shown = [(r["prefix"], r["used"], r["fixed"], r["usable_after"]) for r in records]
    assert shown == [
        ("10.244.0.0/26", 1, False, 0),
        ("10.244.0.2/32", 1, True, 17),
        ("fd00::/122", 1, False, 0),
    ]


def test_create_says_all_that_a_pool_can_be(cluster: Cluster, run: Run) -> None:
    done = run(
        *("pool", "create", "edge", "fd00:1::/64", "--block-length", "120", "--static"),
        *("--on-request", "--reserve", "fd00:1::/120", "--reserve", "fd00:1::100/120"),
        *("-o", "json"),
    )
    (request,) = cluster.pool_calls
    assert request.pool == ipam_pb2.Pool(
        name="edge",
        prefix=prefix("fd00:1::/64"),
        block_length=120,
        mode=ipam_pb2.Pool.MODE_STATIC,
        on_request=True,
        reserved=[prefix("fd00:1::/120"), prefix("fd00:1::100/120")],
    )
    (record,) = json.loads(done.out)
    assert (record["name"], record["mode"], record["revision"]) == ("edge", "static", 41)


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        (["grow", "ipv4", "10.244.0.0/16"], {"grow_to": prefix("10.244.0.0/16")}),
        (
            ["reserve", "ipv4", "10.244.0.32/28", "10.244.0.48/28"],
            {"reserve": [prefix("10.244.0.32/28"), prefix("10.244.0.48/28")]},
        ),
        (["unreserve", "ipv4", "10.244.0.0/28"], {"unreserve": [prefix("10.244.0.0/28")]}),
        (["drain", "ipv4"], {"draining": True}),
        (["undrain", "ipv4"], {"draining": False}),
        (["set", "ipv4", "--min-free-percent", "10"], {"min_free_percent": 10}),
        (["set", "ipv4", "--for-all"], {"on_request": False}),
        (["set", "ipv4", "--on-request"], {"on_request": True}),
    ],
)
def test_a_change_says_only_what_changes(
    cluster: Cluster, run: Run, pool: ipam_pb2.Pool, words: list[str], fields: dict[str, Any]
) -> None:
    done = run("pool", *words)
    assert done.code == 0, done.err
    assert cluster.pool_calls == [ipam_pb2.UpdatePoolRequest(name=pool.name, **fields)]
    assert "10.244.0.0/24" in done.out


def test_with_wait_it_ends_when_every_node_has_it(
    cluster: Cluster, run: Run, pool: ipam_pb2.Pool
) -> None:
    del pool
    cluster.receipts = [receipts_pb2.WatchResponse(nodes_enforced=2, nodes_total=2, complete=True)]
    done = run("pool", "drain", "ipv4", "--wait", "-o", "json")
    assert done.code == 0
    assert "enforced 2/2 nodes at revision 41" in done.err
    assert json.loads(done.out)[0]["name"] == "ipv4"
    done = run("pool", "delete", "ipv4", "--wait")
    assert done.out == "pool ipv4 deleted\n"
    assert "revision 41" in done.err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["create", "a", "10.244.0.1/24"], "10.244.0.1/24 has host bits set; the prefix is"),
        (["grow", "a", "10.244.0.0"], "is not an address prefix such as 10.0.0.0/8"),
        (["reserve", "a", "fd00::/64", "x"], "PREFIX: 'x' is not an address prefix"),
        (["set", "a"], "give --min-free-percent, --on-request or --for-all"),
        (["drain", "a", "-o", "xml"], "'xml' is none of table, json, yaml"),
    ],
)
def test_a_mistake_reaches_nobody(
    cluster: Cluster, run: Run, words: list[str], complaint: str
) -> None:
    done = run("pool", *words)
    assert done.code == 1
    assert complaint in done.err
    assert cluster.pool_calls == []
