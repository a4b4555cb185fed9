"""CHECK on values: one thing after the other is missing."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from deltaplane.model.addresses import AddressPair, parse_address
from nodeagent.check import differences
from nodeagent.cni import result
from nodeagent.cni.result import Interface, Ip, Result, Route
from nodeagent.netlink.inspect import Found, PodAddress, PodRoute
from nodeagent.netlink.links import PodLink
from nodeagent.netlink.message import Link

NETNS = "/run/netns/x"
IPV4, IPV6 = parse_address("10.0.0.5"), parse_address("fd00::5")
LINK = PodLink(
    number=1,
    node_uid="u",
    ifname="eth0",
    addresses=AddressPair(ipv4=IPV4, ipv6=IPV6),
    mtu=1400,
)
ADDED = result.of_interface(
    Interface(
        ifname="eth0",
        netns=NETNS,
        pod_mac=LINK.pod_mac,
        host_link=LINK.host_name,
        host_mac=LINK.host_mac,
        mtu=1400,
        addresses=LINK.addresses,
    )
)
HOST = Link(7, "dp1", LINK.host_mac, 1400, LINK.alias)
POD = Link(2, "eth0", LINK.pod_mac, 1400, "")
WHOLE = Found(
    host=HOST,
    pod=POD,
    addresses=frozenset({PodAddress(IPV4, 32), PodAddress(IPV6, 128)}),
    routes=frozenset(
        {
            PodRoute(bytes(4), 0, result.GATEWAY_IPV4, 254),
            PodRoute(bytes(16), 0, result.GATEWAY_IPV6, 254),
        }
    ),
)


def test_what_add_made_is_fine() -> None:
    assert differences(LINK, NETNS, ADDED, WHOLE) == []


def test_what_others_added_is_fine() -> None:
    extra = PodRoute(parse_address("198.18.0.0"), 15, None, 254)
    found = replace(
        WHOLE,
        routes=WHOLE.routes | {extra},
        addresses=WHOLE.addresses | {PodAddress(parse_address("192.0.2.9"), 24)},
    )
    behind = replace(
        ADDED,
        links=(*ADDED.links, result.Link(name="ifb0"), result.Link(name="eth0", sandbox="/other")),
        routes=(*ADDED.routes, Route(dst="198.18.0.0/15")),
    )

    assert differences(LINK, NETNS, ADDED, found) == []
    assert differences(LINK, NETNS, behind, found) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (replace(WHOLE, host=None), "dp1 on the node is gone"),
        (replace(WHOLE, pod=None), "eth0 in the pod is gone"),
        (replace(WHOLE, pod=replace(POD, mac=b"\x02abcde")), "not the one that ADD made"),
        (replace(WHOLE, host=replace(HOST, alias="")), "our mark"),
        (replace(WHOLE, addresses=frozenset({PodAddress(IPV6, 128)})), "lost 10.0.0.5/32"),
        (
            replace(WHOLE, addresses=frozenset({PodAddress(IPV4, 24), PodAddress(IPV6, 128)})),
            "lost 10.0.0.5/32",
        ),
        (
            replace(WHOLE, routes=frozenset({PodRoute(bytes(16), 0, result.GATEWAY_IPV6, 254)})),
            "0.0.0.0/0",
        ),
        (
            replace(
                WHOLE,
                routes=frozenset(
                    {
                        PodRoute(bytes(4), 0, parse_address("192.0.2.1"), 254),
                        PodRoute(bytes(16), 0, result.GATEWAY_IPV6, 100),
                    }
                ),
            ),
            "::/0",
        ),
    ],
)
def test_what_is_gone_is_named(found: Found, words: str) -> None:
    problems = differences(LINK, NETNS, ADDED, found)
    assert any(words in problem for problem in problems), problems


def _other_mac(previous: Result) -> Result:
    links = (previous.links[0], replace(previous.links[1], mac="02:00:00:00:00:99"))
    return replace(previous, links=links)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: replace(p, links=p.links[:1]), "no interface eth0"),
        (
            lambda p: replace(p, links=(p.links[0], replace(p.links[1], sandbox="/other"))),
            f"no interface eth0 in {NETNS}",
        ),
        (_other_mac, "another address"),
        (lambda p: replace(p, ips=p.ips[1:]), "lacks 10.0.0.5"),
        (
            lambda p: replace(p, ips=(*p.ips, Ip(address="10.9.9.9/24", interface=1))),
            "lost 10.9.9.9/24",
        ),
        (
            lambda p: replace(p, routes=(*p.routes, Route(dst="10.1.0.0/16"))),
            "10.1.0.0/16 of prevResult is gone",
        ),
        (
            lambda p: replace(p, routes=(Route(dst="::/0", options={"table": 100}), *p.routes[:1])),
            "::/0",
        ),
    ],
)
def test_a_result_that_tells_another_story(change: Callable[[Result], Result], words: str) -> None:
    problems = differences(LINK, NETNS, change(ADDED), WHOLE)
    assert any(words in problem for problem in problems), problems


def test_an_address_of_another_plugins_interface_is_its_business() -> None:
    previous = replace(ADDED, ips=(*ADDED.ips, Ip(address="192.0.2.7/24", interface=0)))
    assert differences(LINK, NETNS, previous, WHOLE) == []
