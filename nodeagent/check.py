"""CHECK: whether an interface still is what ADD has made. Pure.

What others have added since is no difference: a plugin behind us may bring routes of its own.
"""

import ipaddress

from deltaplane.model.addresses import AddressPair, format_address
from nodeagent.cni.result import Result, Route
from nodeagent.netlink.inspect import Found, PodAddress, PodRoute
from nodeagent.netlink.links import PodLink
from nodeagent.netlink.message import RT_TABLE_MAIN


def differences(link: PodLink, netns: str, previous: Result, found: Found) -> list[str]:
    """What is missing or wrong, for people; empty: nothing.

    Args:
        link: as the journal has it.
        netns: CNI_NETNS.
        previous: prevResult of the call, which plugins behind us may have extended.
        found: what the kernel has.
    """
    return [
        *_stale_result(link, netns, previous),
        *_wrong_links(link, found),
        *_lost_addresses(link, previous, found),
        *(
            f"the route {route.dst} of prevResult is gone"
            for route in previous.routes
            if not any(_is_route(route, there) for there in found.routes)
        ),
    ]


def _own_entries(link: PodLink, previous: Result) -> list[int]:
    return [
        index
        for index, entry in enumerate(previous.links)
        if entry.sandbox and entry.name == link.ifname
    ]


def _stale_result(link: PodLink, netns: str, previous: Result) -> list[str]:
    """Where prevResult and the journal tell different stories."""
    entries = [previous.links[index] for index in _own_entries(link, previous)]
    mine = [entry for entry in entries if entry.sandbox == netns]
    if not mine:
        return [f"prevResult has no interface {link.ifname} in {netns}"]
    problems = []
    mac = link.pod_mac.hex(":")
    if not any(entry.mac.lower() in ("", mac) for entry in mine):
        problems.append(f"prevResult gives {link.ifname} another address than {mac}")
    return problems + missing_addresses(link.addresses, previous)


def missing_addresses(addresses: AddressPair, previous: Result) -> list[str]:
    """Which of our addresses prevResult does not tell of, for people."""
    listed = {ipaddress.ip_interface(ip.address).ip.packed for ip in previous.ips}
    return [
        f"prevResult lacks {format_address(address)}"
        for address in addresses
        if address not in listed
    ]


def _wrong_links(link: PodLink, found: Found) -> list[str]:
    problems = []
    ends = (
        (found.host, link.host_name, link.host_mac, "on the node"),
        (found.pod, link.ifname, link.pod_mac, "in the pod"),
    )
    for end, name, mac, where in ends:
        if end is None:
            problems.append(f"the link {name} {where} is gone")
        elif end.mac != mac:
            problems.append(f"the link {name} {where} is not the one that ADD made")
    if found.host is not None and found.host.alias != link.alias:
        problems.append(f"the link {link.host_name} on the node does not carry our mark")
    return problems


def _lost_addresses(link: PodLink, previous: Result, found: Found) -> list[str]:
    wanted = {PodAddress(address, len(address) * 8) for address in link.addresses}
    own = _own_entries(link, previous)
    for ip in previous.ips:
        if ip.interface in own:
            parsed = ipaddress.ip_interface(ip.address)
            wanted.add(PodAddress(parsed.ip.packed, parsed.network.prefixlen))
    return [
        f"{link.ifname} has lost {format_address(lost.address)}/{lost.length}"
        for lost in sorted(wanted - found.addresses, key=lambda lost: lost.address)
    ]


def _is_route(wanted: Route, there: PodRoute) -> bool:
    network = ipaddress.ip_network(wanted.dst, strict=False)
    return (
        there.address == network.network_address.packed
        and there.length == network.prefixlen
        and there.table == wanted.options.get("table", RT_TABLE_MAIN)
        and (not wanted.gw or there.gateway == ipaddress.ip_address(wanted.gw).packed)
    )
