import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.errors import Invalid
from lab import topology
from lab.topology import MAX_NODES, plan

LABS = st.from_regex(topology.LAB_NAME, fullmatch=True)


@given(LABS, st.integers(1, MAX_NODES))
def test_no_two_nodes_share_a_name_a_namespace_or_an_address(lab: str, nodes: int) -> None:
    network = plan(lab, nodes)

    assert len(set(network.namespaces)) == nodes + 2
    addresses = [
        ipaddress.ip_address(text)
        for node in network.nodes
        for text in (
            node.management_ipv4,
            node.management_ipv6,
            node.uplink_ipv4,
            node.uplink_ipv6,
        )
    ] + [ipaddress.ip_address(topology.CONTROL_IPV4), ipaddress.ip_address(topology.CONTROL_IPV6)]
    assert len(set(addresses)) == 4 * nodes + 2


@given(st.integers(1, MAX_NODES))
def test_uplinks_and_management_links_are_in_their_own_networks(nodes: int) -> None:
    for node in plan("lab", nodes).nodes:
        assert ipaddress.ip_address(node.uplink_ipv4) in ipaddress.ip_network("198.19.0.0/16")
        assert ipaddress.ip_address(node.uplink_ipv6) in ipaddress.ip_network("fd99::/64")
        assert ipaddress.ip_address(node.management_ipv4) in ipaddress.ip_network("198.18.0.0/16")
        assert ipaddress.ip_address(node.management_ipv6) in ipaddress.ip_network("fd98::/64")


@given(LABS, LABS)
def test_one_labs_namespaces_are_never_taken_for_anothers(one: str, other: str) -> None:
    names = {*plan(one, 3).namespaces, topology.pod_namespace(one, "uid")}

    assert all(name.startswith(f"dp-{one}-") for name in names)
    if one != other:
        assert not any(name.startswith(f"dp-{other}-") for name in names)


@given(st.integers(1, MAX_NODES))
def test_link_names_fit_the_kernel(nodes: int) -> None:
    assert all(len(node.name) <= 15 for node in plan("lab", nodes).nodes)


def test_a_node_has_one_port_in_each_bridge_and_both_far_ends() -> None:
    control, fabric, *ends = plan("lab", 2).batches()

    made = "link add node-2 mtu 1500 type veth peer name mgmt mtu 1500 netns dp-lab-node-2"
    assert made in control.commands
    assert "link set node-2 master mgmt up" in control.commands
    assert made.replace("mgmt", "uplink") in fabric.commands
    assert [batch.namespace for batch in ends] == ["dp-lab-node-1", "dp-lab-node-2"]
    assert "addr add 198.19.0.2/16 dev uplink" in ends[1].commands
    assert "addr add fd99::2/64 dev uplink nodad" in ends[1].commands


def test_packets_of_the_asked_size_fit_between_the_nodes() -> None:
    control, fabric, *_ = plan("lab", 2, mtu=9000).batches()

    assert "link add fabric mtu 9000 type bridge mcast_snooping 0" in fabric.commands
    assert "link add node-1 mtu 9000 type veth peer name uplink mtu 9000 netns dp-lab-node-1" in (
        fabric.commands
    )
    assert not any("9000" in command for command in control.commands)


@pytest.mark.parametrize(
    ("wrong", "valid"),
    [
        ({"mtu": 1399}, "1400"),
        ({"mtu": 65536}, "65535"),
        ({"routing": "gre"}, "vxlan"),
        ({"external_mode": "dnat"}, "dsr"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(wrong: dict[str, Any], valid: str) -> None:
    with pytest.raises(Invalid, match=valid):
        plan("lab", 1, **wrong)


@pytest.mark.parametrize("name", ["", "Lab", "1lab", "a-b", "a" * 16, "a/b", "..", "lab\n"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="lab name"):
        plan(name, 1)


@pytest.mark.parametrize("nodes", [0, -1, MAX_NODES + 1])
def test_a_bad_number_of_nodes_is_refused(nodes: int) -> None:
    with pytest.raises(Invalid, match="nodes"):
        plan("lab", nodes)


def test_an_unknown_node_is_named_together_with_the_known_ones() -> None:
    with pytest.raises(Invalid, match=r"'node-9'.*node-1, node-2"):
        plan("lab", 2).node("node-9")


def test_nodes_are_spread_over_zones() -> None:
    network = plan("lab", 5, zones=2)
    assert [network.zone(node) for node in network.nodes] == [
        *("zone-1", "zone-2", "zone-1", "zone-2", "zone-1")
    ]
    assert plan("lab", 1).zone(network.nodes[0]) == ""
    with pytest.raises(Invalid, match="zones"):
        plan("lab", 1, zones=-1)


def test_name_servers_lie_in_the_range_of_services() -> None:
    for text, inside in zip(topology.NAME_SERVERS, topology.SERVICE_RANGES, strict=True):
        assert ipaddress.ip_address(text) in ipaddress.ip_network(inside)


def test_a_node_has_a_control_group_where_there_are_some() -> None:
    assert plan("lab", 1, cgroup="/groups/lab").group("node-1") == "/groups/lab/node-1"
    assert plan("lab", 1).group("node-1") == ""
