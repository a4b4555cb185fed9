"""The encoder against what pyroute2 reads."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from deltaplane.model.addresses import AddressPair, Prefix, format_address, parse_address
from nodeagent.netlink import links, message, routes, tunnel
from nodeagent.netlink.links import PodLink
from nodeagent.netlink.message import Link
from nodeagent.netlink.tunnel import Tunnel
from nodeagent.routes import Route
from tests.unit.nodeagent.worlds import pair

MAC = bytes.fromhex("020000000001")
IPV4, IPV6 = parse_address("10.0.0.5"), parse_address("fd00::5")


def read(kind: type, request: message.Message) -> dict[str, object]:
    """What pyroute2 understands: fields and attributes by name."""
    parsed = kind(request.encode(7))
    parsed.decode()
    assert parsed["header"]["sequence_number"] == 7
    assert parsed["header"]["type"] == request.type
    return {**parsed, **dict(parsed["attrs"])}


def test_a_pair_is_born_in_two_namespaces() -> None:
    request = message.new_veth(
        host_name="dp1", host_mac=MAC, pod_name="eth0", pod_mac=MAC, netns_fd=9, mtu=1430
    )
    found = read(ifinfmsg, request)
    assert (found["IFLA_IFNAME"], found["IFLA_MTU"]) == ("dp1", 1430)
    info = dict(found["IFLA_LINKINFO"]["attrs"])  # type: ignore[index]
    assert info["IFLA_INFO_KIND"] == "veth"
    peer = dict(dict(info["IFLA_INFO_DATA"]["attrs"])["VETH_INFO_PEER"]["attrs"])
    assert peer["IFLA_IFNAME"] == "eth0"
    assert peer["IFLA_ADDRESS"] == "02:00:00:00:00:01"
    assert peer["IFLA_NET_NS_FD"] == 9


def test_addresses_are_host_addresses_and_ipv6_needs_no_detection() -> None:
    found = read(ifaddrmsg, message.new_address(3, IPV6))
    assert (found["prefixlen"], found["index"], found["IFA_LOCAL"]) == (128, 3, "fd00::5")
    assert found["IFA_FLAGS"] == message.IFA_F_NODAD
    assert "IFA_FLAGS" not in read(ifaddrmsg, message.new_address(3, IPV4))


def test_neighbours_are_permanent() -> None:
    found = read(ndmsg, message.new_neighbour(3, IPV4, MAC))
    assert (found["NDA_DST"], found["NDA_LLADDR"]) == ("10.0.0.5", "02:00:00:00:00:01")
    assert found["state"] == message.NUD_PERMANENT


def test_routes_of_every_kind() -> None:
    default = message.route((bytes(4), 0), index=3, gateway=IPV4, onlink=True, keep=True)
    found = read(rtmsg, default)
    assert (found["dst_len"], found["RTA_GATEWAY"], found["RTA_OIF"]) == (0, "10.0.0.5", 3)
    assert found["flags"] == message.RTNH_F_ONLINK
    assert default.allow == {errno.EEXIST}
    unreachable = read(rtmsg, message.route((bytes(4), 8)))
    assert unreachable["type"] == message.RTN_UNREACHABLE
    assert unreachable["proto"] == message.PROTOCOL
    assert message.route((bytes(4), 8), delete=True).type == message.RTM_DELROUTE


blocks = st.one_of(
    st.builds(lambda n: Prefix(bytes((10, n, 0, 0)), 16), st.integers(0, 255)),
    st.builds(lambda n: Prefix(bytes((0xFD, n)) + bytes(14), 64), st.integers(0, 255)),
)


@given(blocks, st.booleans())
def test_a_block_route_reads_back_as_it_was_written(prefix: Prefix, own: bool) -> None:
    via = None if own else (IPV4 if prefix.is_ipv4 else IPV6)
    [request] = routes.add([Route(prefix, via)], uplink_index=4)
    assert routes.parse(request.body) == Route(prefix, via)


ENDS = st.sampled_from([pair("192.0.2.1"), pair(None, "fd99::1"), pair("192.0.2.1", "fd99::1")])


@given(blocks, ENDS, st.sampled_from([IPV4, IPV6]))
def test_a_wrapped_route_reads_back_as_it_was_written(
    prefix: Prefix, own: AddressPair, via: bytes
) -> None:
    end = Tunnel(index=5, mtu=tunnel.link_mtu(1500, own), uplink_mtu=1500, own=own)
    wanted = Route(prefix, via, wrapped=True)
    [request] = routes.add([wanted], uplink_index=4, end=end)
    assert routes.parse(request.body) == wanted
    found = read(rtmsg, request)
    assert (found["RTA_OIF"], found.get("RTA_GATEWAY")) == (5, None)
    source = own.ipv4 if prefix.is_ipv4 else own.ipv6
    assert found.get("RTA_PREFSRC") == (None if source is None else format_address(source))
    # Only where less fits than the link says.
    is_tighter = len(via) == 16 and own.ipv4 is not None
    metrics = dict(found["RTA_METRICS"]["attrs"]) if "RTA_METRICS" in found else {}  # type: ignore[index]
    assert metrics == ({"RTAX_MTU": 1430} if is_tighter else {})


def test_a_wrapped_route_without_a_tunnel_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no tunnel"):
        routes.add([Route(Prefix(bytes(4), 8), IPV4, wrapped=True)], uplink_index=4)


def test_any_other_route_to_an_own_block_wins() -> None:
    for block in (Prefix(bytes(4), 8), Prefix(bytes(16), 8)):
        [request] = routes.add([Route(block, None)], uplink_index=4)
        assert read(rtmsg, request)["RTA_PRIORITY"] == routes.UNREACHABLE_METRIC
        [gone] = routes.delete([Route(block, None)], uplink_index=4)
        assert read(rtmsg, gone)["RTA_PRIORITY"] == routes.UNREACHABLE_METRIC


def test_a_vxlan_link_is_told_with_each_packet_where_it_goes() -> None:
    request = message.new_vxlan("dpvxlan", 8472)
    found = read(ifinfmsg, request)
    info = dict(found["IFLA_LINKINFO"]["attrs"])  # type: ignore[index]
    data = dict(info["IFLA_INFO_DATA"]["attrs"])
    assert (info["IFLA_INFO_KIND"], data["IFLA_VXLAN_PORT"]) == ("vxlan", 8472)
    assert (data["IFLA_VXLAN_COLLECT_METADATA"], data["IFLA_VXLAN_LEARNING"]) == (1, 0)
    assert not tunnel.is_ours(Link(3, "dpvxlan", MAC, 1450, "", "veth"))


def test_a_next_hop_is_resolved_once_and_not_too_many_of_them() -> None:
    via = [bytes((192, 0, 2 + n // 250, n % 250)) for n in range(300)]
    table = [Route(Prefix(bytes((10, n // 250, n % 250, 0)), 24), hop) for n, hop in enumerate(via)]
    table += [Route(Prefix(IPV6, 128), IPV6), Route(Prefix(bytes(4), 8), None)]
    requests = routes.resolve([*table, *table], uplink_index=4)
    assert len(requests) == routes.RESOLVE_AT_MOST + 1
    found = read(ndmsg, requests[-1])
    assert (found["ifindex"], found["flags"], found["NDA_DST"]) == (4, message.NTF_USE, "fd00::5")
    assert found["state"] == message.NUD_NONE


def test_routes_of_others_and_of_pods_are_not_read() -> None:
    [ours] = routes.add([Route(Prefix(bytes(4), 8), IPV4)], uplink_index=4)
    others = bytearray(ours.body)
    others[5] = 3
    assert routes.parse(bytes(others)) is None
    assert routes.parse(message.route((IPV4, 32), index=4).body) is None


def test_replies_are_told_apart() -> None:
    done = message.HEADER.pack(20, message.NLMSG_ERROR, 0, 5, 0) + struct.pack("=i", 0)
    failed = message.HEADER.pack(20, message.NLMSG_ERROR, 0, 6, 0) + struct.pack("=i", -17)
    found = list(message.replies(done + failed))
    assert [(reply.sequence, reply.error) for reply in found] == [(5, 0), (6, errno.EEXIST)]


@given(st.binary(max_size=100))
def test_noise_ends(noise: bytes) -> None:
    list(message.replies(noise))
    list(message.attributes(noise))


def test_a_pod_link_is_a_function_of_its_journal_entry() -> None:
    def link(number: int, uid: str = "u") -> PodLink:
        pair = AddressPair(ipv4=IPV4, ipv6=IPV6)
        return PodLink(number=number, node_uid=uid, ifname="eth0", addresses=pair, mtu=1430)

    assert link(31).host_name == links.host_name(31) == "dp1f"
    assert len(links.host_name(2**32 - 1)) <= 15
    macs = {mac for n in (1, 2) for u in "ab" for mac in (link(n, u).host_mac, link(n, u).pod_mac)}
    assert len(macs) == 8
    # Locally administered, not multicast.
    assert all(mac[0] == 2 and len(mac) == 6 for mac in macs)
    assert link(1).pod_mac == link(1).pod_mac
