"""`get services`, `get endpointslices`, `describe service`, `service delete`."""

import json
from dataclasses import replace

import pytest

from deltaplane import servicewire
from deltaplane.cli import servicerows
from deltaplane.cli.servicerows import Backend, meaning
from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.model.ports import Protocol
from deltaplane.model.service import (
    Distribution,
    EndpointSlice,
    Service,
    ServicePort,
    ServiceType,
    SliceEndpoint,
    SlicePort,
)
from tests.unit.deltaplane.cli.conftest import Cluster, Run

WEB = Service(
    namespace="shop",
    name="web",
    number=7,
    type=ServiceType.NODE_PORT,
    cluster_ips=(parse_address("10.96.0.7"), parse_address("fd00:10:96::7")),
    ports=(ServicePort(name="http", port=80, node_port=30080, target="web"),),
    selector=(("app", "web"),),
)


def endpoint(address: str, **fields: object) -> SliceEndpoint:
    known = SliceEndpoint(address=parse_address(address), node="node-1", target="shop/web-1")
    return replace(known, **fields)  # type: ignore[arg-type]


def slice_(*endpoints: SliceEndpoint, name: str = "web-ipv4-1") -> EndpointSlice:
    ports = (SlicePort(name="http", number=8080),)
    return EndpointSlice(
        namespace="shop", name=name, service="web", ports=ports, endpoints=endpoints
    )


READY = endpoint("10.244.0.1")
UNREADY = endpoint("10.244.0.2", ready=False, serving=False)
ENDING = endpoint("10.244.0.3", ready=False, terminating=True)
ENDED = endpoint("10.244.0.4", ready=False, serving=False, terminating=True)


@pytest.fixture
def known(cluster: Cluster) -> Cluster:
    headless = Service(namespace="shop", name="peers")
    away = Service(
        namespace="shop", name="z", type=ServiceType.EXTERNAL_NAME, external_name="a.example"
    )
    cluster.services = [servicewire.service_to_proto(item) for item in (headless, WEB, away)]
    found = slice_(READY, UNREADY), slice_(endpoint("fd00::1", zones=("west",)), name="web-ipv6-1")
    cluster.endpoint_slices = [servicewire.slice_to_proto(item) for item in found]
    return cluster


def test_get_services_follows_every_page(known: Cluster, run: Run) -> None:
    known.page = 2

    records = json.loads(run("get", "services", "-o", "json").out)

    assert [record["name"] for record in records] == ["peers", "web", "z"]
    assert [record["cluster_ips"] for record in records] == [
        ["None"],
        ["10.96.0.7", "fd00:10:96::7"],
        [],
    ]
    assert records[1]["ports"] == ["80:30080/TCP"]
    assert records[2]["external"] == ["a.example"]


def test_get_services_of_one_namespace(known: Cluster, run: Run) -> None:
    assert known.services
    assert json.loads(run("get", "services", "-n", "other", "-o", "json").out) == []
    assert "no service" in run("get", "services", "-n", "other").err


def test_get_endpointslices(known: Cluster, run: Run) -> None:
    known.page = 1

    records = json.loads(run("get", "endpointslices", "--service", "shop/web", "-o", "json").out)

    assert [(r["family"], r["endpoints"], r["ready"]) for r in records] == [
        ("IPv4", 2, 1),
        ("IPv6", 1, 1),
    ]
    assert records[0]["ports"] == ["http:8080/TCP"]
    assert run("get", "endpointslices", "--service", "web").code == 1


def test_describe_service(known: Cluster, run: Run) -> None:
    assert known.services
    record = json.loads(run("describe", "service", "shop/web", "-o", "json").out)

    assert [one["at"] for one in record["frontends"]] == [
        "10.96.0.7:80",
        "[fd00:10:96::7]:80",
        "every node:30080",
    ]
    assert [(one["backend"], one["state"], one["zones"]) for one in record["backends"]] == [
        ("10.244.0.1:8080/TCP", "ready", []),
        ("10.244.0.2:8080/TCP", "not ready", []),
        ("[fd00::1]:8080/TCP", "ready", ["west"]),
    ]
    text = run("describe", "service", "shop/web").out
    assert "new connections go to backends that are ready" in text


def test_describe_what_is_not_there(known: Cluster, run: Run) -> None:
    assert known.services
    done = run("describe", "service", "shop/nothing")
    assert done.code == 1
    assert "there is no service shop/nothing; see `deltaplane get services`" in done.err
    assert "NAMESPACE/NAME" in run("describe", "service", "web").err


def test_delete_service(cluster: Cluster, run: Run) -> None:
    done = run("service", "delete", "shop/web", "shop/absent")
    assert done.out == "service shop/web deleted\nservice shop/absent deleted\n"
    assert cluster.deleted_services == ["shop/web", "shop/absent"]
    assert run("service", "delete", "web").code == 1


@pytest.mark.parametrize(
    ("endpoints", "text"),
    [
        ((READY, ENDING), "new connections go to backends that are ready"),
        ((UNREADY, ENDING), "no backend is ready: new connections go to those that are"),
        ((replace(ENDING, ready=True),), "published as ready"),
        ((UNREADY, ENDED), "no backend is ready: connections are refused"),
        ((), "it has no backend: connections are refused"),
    ],
)
def test_what_becomes_of_clients(endpoints: tuple[SliceEndpoint, ...], text: str) -> None:
    assert text in meaning(WEB, servicerows.backends([slice_(*endpoints)]))


def test_what_is_not_programmed_says_so() -> None:
    behind = [
        Backend(port="", protocol=Protocol.TCP, number=port, endpoint=READY) for port in (1, 2)
    ]
    headless = replace(WEB, cluster_ips=(), ports=())
    assert "the addresses of 1 ready endpoints, nothing is programmed" in meaning(headless, behind)
    away = replace(WEB, type=ServiceType.EXTERNAL_NAME, external_name="a.example")
    assert "another name for a.example: DNS only" in meaning(away, behind)
    assert list(servicerows.frontends(away)) == []


def test_every_rule_is_a_sentence() -> None:
    known = replace(
        WEB,
        internal_local=True,
        external_local=True,
        affinity_seconds=30,
        source_ranges=(Prefix.parse("192.0.2.0/24"),),
        publish_not_ready=True,
        distribution=Distribution.SAME_ZONE,
        health_check_node_port=31000,
    )
    assert len(list(servicerows.rules(known))) == 7
    assert list(servicerows.rules(WEB)) == []
    assert "30 s" in "".join(servicerows.rules(known))
