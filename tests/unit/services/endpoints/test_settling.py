"""What a service keeps, what is left to be chosen, and what may not change."""

import pytest

from deltaplane.errors import Invalid
from deltaplane.model.addresses import format_address
from deltaplane.model.service import ServiceType
from services.endpoints.demand import Demand, FamilyPolicy
from services.endpoints.ranges import Ranges
from services.endpoints.settling import CHOSEN, Settled, settle
from tests.unit.services.endpoints.demands import BOTH, ONLY_V4, V6_FIRST, demand, port, stored

NODE_PORT, LOAD_BALANCER = ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER
EXTERNAL_NAME = ServiceType.EXTERNAL_NAME
SINGLE, PREFER = FamilyPolicy.SINGLE_STACK, FamilyPolicy.PREFER_DUAL_STACK
REQUIRE = FamilyPolicy.REQUIRE_DUAL_STACK
ONE, OTHER, SIX = "10.96.0.1", "10.96.0.2", "fd00:10:96::1"


def ips(settled: Settled) -> list[str]:
    return [
        format_address(ip) if ip != CHOSEN else f"IPv{family}"
        for ip, family in zip(settled.service.cluster_ips, settled.families, strict=True)
    ]


FAMILIES: dict[str, tuple[Demand, Demand | None, Ranges, list[str]]] = {
    "new: the cluster's first": (demand(), None, BOTH, ["IPv4"]),
    "new: the cluster's first is IPv6": (demand(), None, V6_FIRST, ["IPv6"]),
    "new: families": (demand(families=(6, 4)), None, BOTH, ["IPv6", "IPv4"]),
    "new: an address": (demand(SIX), None, BOTH, [SIX]),
    "new: one address and two families": (demand(SIX, families=(6, 4)), None, BOTH, [SIX, "IPv4"]),
    "new: prefer, both there": (demand(policy=PREFER), None, BOTH, ["IPv4", "IPv6"]),
    "new: prefer, one there": (demand(policy=PREFER), None, ONLY_V4, ["IPv4"]),
    "new: require with an address": (demand(SIX, policy=REQUIRE), None, BOTH, [SIX, "IPv4"]),
    "kept": (demand(), stored(ONE, SIX), BOTH, [ONE, SIX]),
    "kept although the cluster's first is another": (demand(), stored(ONE), V6_FIRST, [ONE]),
    "kept with the first written back": (demand(ONE), stored(ONE, SIX), BOTH, [ONE, SIX]),
    "second added by families": (demand(families=(4, 6)), stored(ONE), BOTH, [ONE, "IPv6"]),
    "second added by policy": (demand(policy=PREFER), stored(ONE), BOTH, [ONE, "IPv6"]),
    "second added by address": (demand(ONE, SIX), stored(ONE), BOTH, [ONE, SIX]),
    "second removed by families": (demand(families=(4,)), stored(ONE, SIX), BOTH, [ONE]),
    "second removed by policy": (demand(policy=SINGLE), stored(ONE, SIX), BOTH, [ONE]),
    "second removed by policy, all written back": (
        demand(families=(4, 6), policy=SINGLE),
        stored(ONE, SIX),
        BOTH,
        [ONE],
    ),
    "from another name": (
        demand(),
        stored(kind=EXTERNAL_NAME, external_name="a.b", families=()),
        BOTH,
        ["IPv4"],
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_addresses(name: str) -> None:
    wanted, old, ranges, expected = FAMILIES[name]
    assert ips(settle(wanted, old, ranges, "s")) == expected


REFUSED: dict[str, tuple[Demand, Demand | None, Ranges, str]] = {
    "two of one family": (demand(ONE, OTHER), None, BOTH, "cluster_ips[1]"),
    "address of another family": (demand(SIX, families=(4,)), None, BOTH, "cluster_ips[0]"),
    "more addresses than families": (demand(ONE, SIX, families=(4,)), None, BOTH, "cluster_ips[1]"),
    "two and single": (demand(families=(4, 6), policy=SINGLE), None, BOTH, "family_policy"),
    "both required of one": (demand(policy=REQUIRE), None, ONLY_V4, "family_policy"),
    "no range of it": (demand(families=(4, 6)), None, ONLY_V4, "families[1]"),
    "another address": (demand(OTHER), stored(ONE), BOTH, "cluster_ips[0]"),
    "another second address": (
        demand(ONE, "fd00:10:96::2"),
        stored(ONE, SIX),
        BOTH,
        "cluster_ips[1]",
    ),
    "another primary family": (demand(families=(6, 4)), stored(ONE), BOTH, "families[0]"),
    "the other way round": (demand(families=(6, 4)), stored(ONE, SIX), BOTH, "families[0]"),
    "headless all of a sudden": (demand(headless=True), stored(ONE), BOTH, "headless"),
    "an address for a headless one": (demand(ONE), stored(headless=True), BOTH, "cluster_ips"),
    "another health check port": (
        demand(kind=LOAD_BALANCER, external_local=True, health_check_node_port=30002),
        stored(ONE, kind=LOAD_BALANCER, external_local=True, health_check_node_port=30001),
        BOTH,
        "health_check_node_port",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    wanted, old, ranges, field = REFUSED[name]
    with pytest.raises(Invalid) as caught:
        settle(wanted, old, ranges, "s")
    assert caught.value.field == f"s.{field}"


def test_a_headless_service_stays_headless() -> None:
    settled = settle(demand(), stored(headless=True, families=(6, 4)), BOTH, "s")
    assert settled.service.cluster_ips == ()
    assert settled.families == (6, 4)


def test_a_headless_service_without_selector_may_have_both_families() -> None:
    assert settle(demand(headless=True, selector=None), None, V6_FIRST, "s").families == (6, 4)
    assert settle(demand(headless=True), None, V6_FIRST, "s").families == (6,)


def test_another_name_keeps_its_number_and_nothing_else() -> None:
    wanted = demand(kind=EXTERNAL_NAME, external_name="a.b", ports=())
    settled = settle(wanted, stored(ONE, SIX), BOTH, "s")
    assert settled.service.number == 7
    assert (settled.service.cluster_ips, settled.families) == ((), ())


def test_ports_keep_their_node_ports_by_name() -> None:
    old = stored(ONE, kind=NODE_PORT, ports=(port(80, 30080), port(81, 30081), port(82, 30082)))
    wanted = demand(
        kind=LOAD_BALANCER, ports=(port(8080, name="p80"), port(83, 30081), port(81), port(84))
    )
    settled = settle(wanted, old, BOTH, "s")
    assert [it.node_port for it in settled.service.ports] == [30080, 30081, 0, 0]
    assert settled.wants_node_ports


def test_a_health_check_port_is_wanted_with_local_load_balancers_only() -> None:
    for kind, local, expected in (
        (LOAD_BALANCER, True, True),
        (LOAD_BALANCER, False, False),
        (NODE_PORT, True, False),
    ):
        settled = settle(demand(kind=kind, external_local=local), None, BOTH, "s")
        assert settled.wants_health_port == expected
    old = stored(ONE, kind=LOAD_BALANCER, external_local=True, health_check_node_port=30001)
    again = settle(demand(kind=LOAD_BALANCER, external_local=True), old, BOTH, "s")
    assert again.service.health_check_node_port == 30001
