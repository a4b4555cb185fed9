"""Addresses and node ports of the services of one request, one after another."""

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest

from deltaplane.errors import Exhausted, Invalid
from deltaplane.model.addresses import Prefix, format_address, parse_address
from deltaplane.model.ports import Protocol
from deltaplane.model.service import Service, ServicePort, ServiceType
from services.endpoints.demand import Demand
from services.endpoints.placing import Names, Placement
from services.endpoints.ranges import PortRange, Ranges
from services.endpoints.settling import settle
from tests.unit.services.endpoints.demands import NODE_PORTS, V4, V6, demand, port, stored

NAMES = Names(format_address, str)
SMALL = Ranges((Prefix.parse("10.0.0.0/29"),), PortRange(30000, 30002))


class Room:
    """A placement, and a name for each service that comes in."""

    def __init__(
        self, owners: Mapping[str, str] | None = None, ranges: Ranges | None = None
    ) -> None:
        self.ranges = ranges or Ranges((V4, V6), NODE_PORTS)
        below = random.Random(1).randrange
        self.placement = Placement.over(NAMES, self.ranges, owners or {}, below)

    def place(self, wanted: Demand, old: Demand | None = None, name: str = "web") -> Service:
        named = replace(wanted, service=replace(wanted.service, name=name))
        settled = settle(named, old, self.ranges, name)
        return self.placement.place(settled, old.service if old else None, name)


def test_everything_that_is_open_is_chosen_and_taken() -> None:
    room = Room()
    wanted = demand(
        kind=ServiceType.LOAD_BALANCER,
        families=(4, 6),
        external_local=True,
        ports=(port(80), port(443, 30443)),
    )
    service = room.place(wanted)
    assert [len(ip) for ip in service.cluster_ips] == [4, 16]
    assert service.ports[1].node_port == 30443
    numbers = {it.node_port for it in service.ports} | {service.health_check_node_port}
    assert len(numbers) == 3
    assert {name for name, owner in room.placement.owners.items() if owner == "shop/web"} == {
        *NAMES.of(service)
    }
    assert set(NAMES.of(service)) <= set(room.placement.asked)


def test_one_port_in_two_protocols_gets_one_node_port() -> None:
    dns = (
        ServicePort(name="tcp", port=53),
        ServicePort(name="udp", port=53, protocol=Protocol.UDP),
        ServicePort(name="http", port=80),
    )
    service = Room().place(demand(kind=ServiceType.NODE_PORT, ports=dns))
    tcp, udp, http = (it.node_port for it in service.ports)
    assert tcp == udp != http


def test_what_another_one_has_is_refused_and_what_the_service_has_is_kept() -> None:
    old = stored("10.96.0.9", kind=ServiceType.NODE_PORT, ports=(port(80, 30080),))
    owners = {"10.96.0.9": "shop/web", "30080": "shop/web", "10.96.0.8": "shop/db", "30081": "x/y"}
    kept = Room(owners).place(demand(kind=ServiceType.NODE_PORT), old)
    assert NAMES.of(kept) == ("10.96.0.9", "30080")
    with pytest.raises(Invalid, match="taken by service shop/db") as caught:
        Room(owners).place(demand("10.96.0.8"))
    assert caught.value.field == "web.cluster_ips[0]"
    with pytest.raises(Invalid, match="taken by service x/y") as caught:
        Room(owners).place(demand(kind=ServiceType.NODE_PORT, ports=(port(80, 30081),)), old)
    assert caught.value.field == "web.ports[0].node_port"


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (demand("10.97.0.1"), "cluster_ips[0]"),
        (demand(kind=ServiceType.NODE_PORT, ports=(port(80, 80),)), "ports[0].node_port"),
        (
            demand(kind=ServiceType.LOAD_BALANCER, external_local=True, health_check_node_port=80),
            "health_check_node_port",
        ),
    ],
)
def test_what_is_in_no_range_is_refused(wanted: Demand, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        Room().place(wanted)
    assert caught.value.field == f"web.{field}"


def test_what_a_service_has_may_lie_in_no_range_any_more() -> None:
    old = stored("10.1.2.3", kind=ServiceType.NODE_PORT, ports=(port(80, 20080),))
    owners = {"10.1.2.3": "shop/web", "20080": "shop/web"}
    assert NAMES.of(Room(owners).place(demand(kind=ServiceType.NODE_PORT), old)) == tuple(owners)


def test_what_one_service_frees_the_next_one_may_take() -> None:
    room = Room({"10.96.0.9": "shop/web"})
    name = demand(kind=ServiceType.EXTERNAL_NAME, external_name="a.b", ports=())
    room.place(name, stored("10.96.0.9"))
    assert room.place(demand("10.96.0.9"), name="db").cluster_ips == (parse_address("10.96.0.9"),)


def test_nothing_is_left() -> None:
    room = Room(ranges=SMALL)
    for number in range(6):
        room.place(demand(), name=f"s{number}")
    with pytest.raises(Exhausted, match="service range"):
        room.place(demand(), name="s6")
    room = Room(ranges=SMALL)
    with pytest.raises(Exhausted, match="node port"):
        room.place(demand(kind=ServiceType.NODE_PORT, ports=tuple(map(port, range(1, 5)))))
