"""Each refusal of a service that contradicts itself, by its field."""

import pytest

from deltaplane.errors import Invalid
from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.model.ports import Protocol
from deltaplane.model.service import ServicePort, ServiceType
from services.endpoints.demand import Demand
from services.endpoints.service_rules import check, without_leftovers
from tests.unit.services.endpoints.demands import demand, port, stored

CLUSTER_IP, NODE_PORT = ServiceType.CLUSTER_IP, ServiceType.NODE_PORT
LOAD_BALANCER, EXTERNAL_NAME = ServiceType.LOAD_BALANCER, ServiceType.EXTERNAL_NAME
ANYWHERE = (Prefix.parse("198.51.100.0/24"),)
OUTSIDE = (parse_address("198.51.100.7"),)


def external_name(name: str = "db.example.com", *ips: str, **fields: object) -> Demand:
    return demand(*ips, kind=EXTERNAL_NAME, external_name=name, **{"ports": (), **fields})  # type: ignore[arg-type]


UDP_80 = ServicePort(name="udp", port=80, protocol=Protocol.UDP, node_port=30080)

FINE = {
    "a cluster address": demand(),
    "headless": demand(headless=True),
    "headless without ports": demand(headless=True, ports=()),
    "node ports": demand(kind=NODE_PORT, ports=(port(80, 30080),)),
    "one node port in two protocols": demand(kind=NODE_PORT, ports=(port(80, 30080), UDP_80)),
    "a load balancer": demand(
        kind=LOAD_BALANCER,
        source_ranges=ANYWHERE,
        load_balancer_ips=OUTSIDE,
        external_local=True,
        health_check_node_port=30999,
    ),
    "local traffic to external addresses": demand(external_ips=OUTSIDE, external_local=True),
    "another name": external_name(),
    "another name with a dot at its end": external_name("db.example.com."),
    "another name with ports": external_name(ports=(port(),)),
}

REFUSED = {
    "no ports": (demand(ports=()), "ports"),
    "headless with an address": (demand("10.96.0.1", headless=True), "cluster_ips"),
    "headless with node ports": (demand(kind=NODE_PORT, headless=True), "headless"),
    "headless behind a load balancer": (demand(kind=LOAD_BALANCER, headless=True), "headless"),
    "another name with an address": (external_name("a", "10.96.0.1"), "cluster_ips"),
    "another name, headless": (external_name(headless=True), "headless"),
    "no other name": (external_name(""), "external_name"),
    "a bad other name": (external_name("-a"), "external_name"),
    "another name for a cluster address": (demand(external_name="a.b"), "external_name"),
    "node port of a cluster address": (
        demand(ports=(port(1), port(80, 30080))),
        "ports[1].node_port",
    ),
    "node port of another name": (external_name(ports=(port(80, 30080),)), "ports[0].node_port"),
    "a node port twice": (
        demand(kind=NODE_PORT, ports=(port(80, 30080), port(81, 30080))),
        "ports[1].node_port",
    ),
    "the kubelet's port": (
        demand(kind=LOAD_BALANCER, ports=(port(10250),)),
        "ports[0].port",
    ),
    "local without an outside": (demand(external_local=True), "external_local"),
    "health check of node ports": (
        demand(kind=NODE_PORT, external_local=True, health_check_node_port=30999),
        "health_check_node_port",
    ),
    "health check without local": (
        demand(kind=LOAD_BALANCER, health_check_node_port=30999),
        "health_check_node_port",
    ),
    "health check at a node port": (
        demand(
            kind=LOAD_BALANCER,
            external_local=True,
            health_check_node_port=30080,
            ports=(port(80, 30080),),
        ),
        "health_check_node_port",
    ),
    "source ranges of node ports": (
        demand(kind=NODE_PORT, source_ranges=ANYWHERE),
        "source_ranges",
    ),
    "a load balancer's address of node ports": (
        demand(kind=NODE_PORT, load_balancer_ips=OUTSIDE),
        "load_balancer_ips",
    ),
}


@pytest.mark.parametrize("name", FINE)
def test_fine(name: str) -> None:
    check(FINE[name], "services[3]")


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    wanted, field = REFUSED[name]
    with pytest.raises(Invalid) as caught:
        check(wanted, "services[3]")
    assert caught.value.field == f"services[3].{field}"


def test_what_went_with_the_old_type_is_dropped_if_it_says_what_is_stored() -> None:
    fields: dict[str, object] = {
        "external_local": True,
        "source_ranges": ANYWHERE,
        "load_balancer_ips": OUTSIDE,
        "health_check_node_port": 30999,
        "ports": (port(80, 30080),),
    }
    old = stored("10.96.0.1", kind=LOAD_BALANCER, **fields)  # type: ignore[arg-type]
    for kind in (CLUSTER_IP, EXTERNAL_NAME):
        name = "a.b" if kind is EXTERNAL_NAME else ""
        wanted = demand("10.96.0.1", kind=kind, external_name=name, **fields)  # type: ignore[arg-type]
        check(without_leftovers(wanted, old), "")
        with pytest.raises(Invalid):
            check(without_leftovers(wanted, None), "")
    node_port = demand("10.96.0.1", kind=NODE_PORT, **fields)  # type: ignore[arg-type]
    kept = without_leftovers(node_port, old).service
    assert kept.external_local
    assert kept.ports == (port(80, 30080),)
    check(without_leftovers(node_port, old), "")


def test_what_is_new_with_the_new_type_is_judged() -> None:
    old = stored("10.96.0.1", kind=NODE_PORT, ports=(port(80, 30080),))
    wanted = demand(ports=(port(80, 30081),))
    with pytest.raises(Invalid, match=r"ports\[0\]\.node_port"):
        check(without_leftovers(wanted, old), "")
