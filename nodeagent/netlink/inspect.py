"""What is really there of a pod's interface, for CHECK."""

import errno
import struct
from dataclasses import dataclass

from nodeagent.netlink import message
from nodeagent.netlink.channel import Channel
from nodeagent.netlink.message import AF_INET, AF_INET6, Link, NetlinkError


@dataclass(frozen=True, slots=True)
class PodAddress:
    """An address on a link. length: of its prefix."""

    address: bytes
    length: int


@dataclass(frozen=True, slots=True)
class PodRoute:
    """A route of a pod. gateway: None for one without."""

    address: bytes
    length: int
    gateway: bytes | None
    table: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Both ends of a link and what the pod has.

    Attributes:
        host: the node's end; None when it is gone.
        pod: the pod's end; None when it is gone.
        addresses: on the pod's end.
        routes: unicast routes of the pod, whatever their link and table.
    """

    host: Link | None
    pod: Link | None
    addresses: frozenset[PodAddress]
    routes: frozenset[PodRoute]


def find(channel: Channel, name: str) -> Link | None:
    """A link, or None."""
    try:
        return channel.link(name)
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def addresses(channel: Channel, index: int) -> frozenset[PodAddress]:
    """The addresses of a link."""
    bodies = channel.dump(message.list_addresses())
    return frozenset(a for body in bodies if (a := _address(body, index)) is not None)


def routes(channel: Channel) -> frozenset[PodRoute]:
    """The unicast routes of the channel's namespace."""
    bodies = [
        body for family in (AF_INET, AF_INET6) for body in channel.dump(message.list_routes(family))
    ]
    return frozenset(route for body in bodies if (route := parse_route(body)) is not None)


def _address(body: bytes, index: int) -> PodAddress | None:
    _, length, _, _, link = message.IFADDR.unpack_from(body)
    if link != index:
        return None
    found = dict(message.attributes(body[message.IFADDR.size :]))
    # IPv6 has no local address of its own; with a peer the local one is ours.
    address = found.get(message.IFA_LOCAL, found.get(message.IFA_ADDRESS))
    return None if address is None else PodAddress(address, length)


def parse_route(body: bytes) -> PodRoute | None:
    """Reads an RTM_NEWROUTE body; None for what is no unicast route."""
    family, length, _, _, table, _, _, kind, _ = message.ROUTE.unpack_from(body)
    if kind != message.RTN_UNICAST:
        return None
    found = dict(message.attributes(body[message.ROUTE.size :]))
    if message.RTA_TABLE in found:
        (table,) = struct.unpack("=I", found[message.RTA_TABLE])
    empty = bytes(4 if family == AF_INET else 16)
    return PodRoute(
        found.get(message.RTA_DST, empty), length, found.get(message.RTA_GATEWAY), table
    )
