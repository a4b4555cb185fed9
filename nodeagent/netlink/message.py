"""Route netlink messages as bytes, and what comes back.

Constants: linux/netlink.h, rtnetlink.h, if_link.h.

Pure: no socket. A request is built without a sequence number; `Batch` numbers requests when they
are sent.
"""

import errno
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

HEADER = struct.Struct("=IHHII")
IFINFO = struct.Struct("=BxHiII")
IFADDR = struct.Struct("=BBBBI")
ROUTE = struct.Struct("=BBBBBBBBI")
NEIGHBOUR = struct.Struct("=BxxxiHBB")

NLMSG_ERROR = 2
NLMSG_DONE = 3
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH = 28

NLM_F_REQUEST, NLM_F_ACK = 0x1, 0x4
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLM_F_DUMP = 0x300

AF_INET, AF_INET6 = 2, 10
IFF_UP, IFF_NOARP = 1, 0x80
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO = 1, 3, 4, 18
IFLA_AF_SPEC, IFLA_NET_NS_FD, IFLA_IFALIAS = 26, 28, 20
IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES = 31, 32
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_INET6_ADDR_GEN_MODE, ADDR_GEN_NONE = 8, 1
IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT, IFLA_VXLAN_COLLECT_METADATA = 7, 15, 25
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS, IFA_F_NODAD = 1, 2, 8, 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_TABLE = 1, 4, 5, 15
RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTAX_MTU = 6, 7, 8, 2
RTA_ENCAP_TYPE, RTA_ENCAP, LWTUNNEL_ENCAP_IP, LWTUNNEL_ENCAP_IP6 = 21, 22, 2, 4
RTNH_F_ONLINK = 4
RT_TABLE_MAIN = 254
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTN_UNICAST, RTN_UNREACHABLE = 1, 7
NDA_DST, NDA_LLADDR, NUD_NONE, NUD_PERMANENT, NTF_USE = 1, 2, 0, 0x80, 0x01

PROTOCOL = 0xD9
"""rtm_protocol of every route that we make (rtnetlink.h leaves 192 and above, but for a few, to
users): it tells our routes from others' when the agent sweeps.
"""


class NetlinkError(OSError):
    """The kernel refused a request. `what` says which, for people."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(number, f"{what}: {os.strerror(number)}")
        self.what = what


@dataclass(frozen=True, slots=True)
class Message:
    """One request: type, flags besides REQUEST, body, and a text for errors.

    Attributes:
        allow: error numbers that mean that nothing is left to do.
    """

    type: int
    flags: int
    body: bytes
    what: str
    allow: frozenset[int] = frozenset()

    def encode(self, sequence: int) -> bytes:
        """The bytes on the socket."""
        length = HEADER.size + len(self.body)
        return HEADER.pack(length, self.type, self.flags | NLM_F_REQUEST, sequence, 0) + self.body


def attribute(kind: int, value: bytes) -> bytes:
    """A netlink attribute, padded to four bytes."""
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


def text_attribute(kind: int, value: str) -> bytes:
    """A zero-terminated text."""
    return attribute(kind, value.encode() + b"\0")


def number_attribute(kind: int, value: int) -> bytes:
    """A u32 in host byte order."""
    return attribute(kind, struct.pack("=I", value))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Takes apart a run of attributes; the flag bits of the type are cut off."""
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4 or at + length > len(data):
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3


@dataclass(frozen=True, slots=True)
class Reply:
    """One message from the kernel. error: 0 or an error number, only for NLMSG_ERROR."""

    type: int
    sequence: int
    body: bytes
    error: int


def replies(data: bytes) -> Iterator[Reply]:
    """Takes apart one datagram from the kernel."""
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, _, sequence, _ = HEADER.unpack_from(data, at)
        if length < HEADER.size:
            return
        body = data[at + HEADER.size : at + length]
        error = 0
        if kind in (NLMSG_ERROR, NLMSG_DONE) and len(body) >= 4:
            error = -struct.unpack_from("=i", body)[0]
        yield Reply(kind, sequence, body, error)
        at += (length + 3) & ~3


def family(address: bytes) -> int:
    """AF_INET for 4 bytes, AF_INET6 for 16."""
    return AF_INET if len(address) == 4 else AF_INET6


def new_veth(
    *, host_name: str, host_mac: bytes, pod_name: str, pod_mac: bytes, netns_fd: int, mtu: int
) -> Message:
    """A pair of links; the pod's end is born in the pod's namespace.

    Moving it there later would wait for an RCU grace period (29 ms). Both ends are down. They have
    one queue: the kernel uses no more unless it is told to, but makes one for each possible CPU.
    """
    queues = number_attribute(IFLA_NUM_TX_QUEUES, 1) + number_attribute(IFLA_NUM_RX_QUEUES, 1)
    peer = (
        IFINFO.pack(0, 0, 0, 0, 0)
        + text_attribute(IFLA_IFNAME, pod_name)
        + attribute(IFLA_ADDRESS, pod_mac)
        + number_attribute(IFLA_MTU, mtu)
        + queues
        + number_attribute(IFLA_NET_NS_FD, netns_fd)
    )
    info = text_attribute(IFLA_INFO_KIND, "veth") + attribute(
        IFLA_INFO_DATA, attribute(VETH_INFO_PEER, peer)
    )
    body = (
        IFINFO.pack(0, 0, 0, 0, 0)
        + text_attribute(IFLA_IFNAME, host_name)
        + attribute(IFLA_ADDRESS, host_mac)
        + number_attribute(IFLA_MTU, mtu)
        + queues
        + attribute(IFLA_LINKINFO, info)
    )
    flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    return Message(RTM_NEWLINK, flags, body, f"create link pair {host_name}, {pod_name}")


def new_vxlan(name: str, port: int) -> Message:
    """A VXLAN link that is told with each packet where it goes, and tells where one came from.

    port: UDP, of both ends. It is down.
    """
    data = (
        attribute(IFLA_VXLAN_COLLECT_METADATA, b"\1")
        + attribute(IFLA_VXLAN_LEARNING, b"\0")
        + attribute(IFLA_VXLAN_PORT, port.to_bytes(2))
    )
    info = text_attribute(IFLA_INFO_KIND, "vxlan") + attribute(IFLA_INFO_DATA, data)
    body = IFINFO.pack(0, 0, 0, 0, 0) + text_attribute(IFLA_IFNAME, name)
    flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    return Message(
        RTM_NEWLINK, flags, body + attribute(IFLA_LINKINFO, info), f"create VXLAN link {name}"
    )


def tunnel_up(index: int, what: str, mtu: int) -> Message:
    """Brings a link up on which nobody asks for neighbours; it has no address of its own."""
    wanted = IFF_UP | IFF_NOARP
    mode = attribute(IFLA_INET6_ADDR_GEN_MODE, bytes((ADDR_GEN_NONE,)))
    body = (
        IFINFO.pack(0, 0, index, wanted, wanted)
        + number_attribute(IFLA_MTU, mtu)
        + attribute(IFLA_AF_SPEC, attribute(AF_INET6, mode))
    )
    return Message(RTM_SETLINK, NLM_F_ACK, body, f"bring up {what}")


def link_up(index: int, what: str, *, link_local: bool = True, alias: str = "") -> Message:
    """Brings a link up; without link_local the kernel gives it no IPv6 address of its own."""
    body = IFINFO.pack(0, 0, index, IFF_UP, IFF_UP)
    if alias:
        body += text_attribute(IFLA_IFALIAS, alias)
    if not link_local:
        mode = attribute(IFLA_INET6_ADDR_GEN_MODE, bytes((ADDR_GEN_NONE,)))
        body += attribute(IFLA_AF_SPEC, attribute(AF_INET6, mode))
    return Message(RTM_SETLINK, NLM_F_ACK, body, f"bring up {what}")


def delete_link(index: int, what: str) -> Message:
    """Deletes a link and, for a veth, its peer wherever that is. Fine when it is gone."""
    body = IFINFO.pack(0, 0, index, 0, 0)
    return Message(RTM_DELLINK, NLM_F_ACK, body, f"delete link {what}", frozenset({errno.ENODEV}))


def get_link(name: str) -> Message:
    """Asks for one link."""
    body = IFINFO.pack(0, 0, 0, 0, 0) + text_attribute(IFLA_IFNAME, name)
    return Message(RTM_GETLINK, NLM_F_ACK, body, f"look up link {name}")


def list_links() -> Message:
    """Asks for all links of the namespace."""
    return Message(RTM_GETLINK, NLM_F_DUMP, IFINFO.pack(0, 0, 0, 0, 0), "list links")


def new_address(index: int, address: bytes) -> Message:
    """Adds a host address (/32 or /128), IPv6 without duplicate address detection."""
    body = (
        IFADDR.pack(family(address), len(address) * 8, 0, 0, index)
        + attribute(IFA_LOCAL, address)
        + attribute(IFA_ADDRESS, address)
    )
    if len(address) == 16:
        body += number_attribute(IFA_FLAGS, IFA_F_NODAD)
    flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    return Message(RTM_NEWADDR, flags, body, f"add address {address.hex()}")


def new_neighbour(index: int, address: bytes, mac: bytes) -> Message:
    """A permanent neighbour: nobody ever has to ask for it."""
    body = (
        NEIGHBOUR.pack(family(address), index, NUD_PERMANENT, 0, 0)
        + attribute(NDA_DST, address)
        + attribute(NDA_LLADDR, mac)
    )
    flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE
    return Message(RTM_NEWNEIGH, flags, body, f"add neighbour {address.hex()}")


def resolve_neighbour(index: int, address: bytes) -> Message:
    """Has the kernel ask for a neighbour as if a packet went there; answers at once."""
    body = NEIGHBOUR.pack(family(address), index, NUD_NONE, NTF_USE, 0)
    body += attribute(NDA_DST, address)
    return Message(RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE, body, f"resolve {address.hex()}")


def route(
    destination: tuple[bytes, int],
    *,
    index: int | None = None,
    gateway: bytes | None = None,
    onlink: bool = False,
    keep: bool = False,
    delete: bool = False,
    more: bytes = b"",
) -> Message:
    """A route of the main table: by gateway, by link, or (neither) unreachable.

    Args:
        destination: prefix, address and length.
        index: of the link.
        gateway: next hop.
        onlink: the gateway is on the link, whatever the addresses say.
        keep: a route that is there stays; else it is replaced.
        delete: removes the route instead; an absent one is fine.
        more: further attributes, encoded.
    """
    address, length = destination
    unreachable = index is None and gateway is None
    direct = gateway is None and not unreachable and len(address) == 4
    body = ROUTE.pack(
        family(address),
        length,
        0,
        0,
        RT_TABLE_MAIN,
        PROTOCOL,
        RT_SCOPE_LINK if direct else RT_SCOPE_UNIVERSE,
        RTN_UNREACHABLE if unreachable else RTN_UNICAST,
        RTNH_F_ONLINK if onlink else 0,
    )
    if length:
        body += attribute(RTA_DST, address)
    if gateway is not None:
        body += attribute(RTA_GATEWAY, gateway)
    if index is not None:
        body += number_attribute(RTA_OIF, index)
    body += more
    what = f"route {address.hex()}/{length}"
    if delete:
        return Message(RTM_DELROUTE, NLM_F_ACK, body, f"delete {what}", frozenset({errno.ESRCH}))
    if keep:
        flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
        return Message(RTM_NEWROUTE, flags, body, f"add {what}", frozenset({errno.EEXIST}))
    return Message(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, body, f"add {what}")


def list_routes(address_family: int) -> Message:
    """Asks for all routes of a family; the kernel may return more tables than asked for."""
    body = ROUTE.pack(address_family, 0, 0, 0, RT_TABLE_MAIN, PROTOCOL, 0, 0, 0)
    return Message(RTM_GETROUTE, NLM_F_DUMP, body, "list routes")


def list_addresses() -> Message:
    """Asks for all addresses of the namespace."""
    return Message(RTM_GETADDR, NLM_F_DUMP, IFADDR.pack(0, 0, 0, 0, 0), "list addresses")


@dataclass(frozen=True, slots=True)
class Link:
    """A link as listed.

    Attributes:
        mac: empty for links without one.
        alias: empty when none is set.
        kind: of a virtual link, "veth" for example; else empty.
        data: encoded attributes of that kind.
    """

    index: int
    name: str
    mac: bytes
    mtu: int
    alias: str
    kind: str = ""
    data: bytes = b""


def parse_link(body: bytes) -> Link:
    """Reads an RTM_NEWLINK body."""
    _, _, index, _, _ = IFINFO.unpack_from(body)
    found = dict(attributes(body[IFINFO.size :]))
    info = dict(attributes(found.get(IFLA_LINKINFO, b"")))
    return Link(
        index,
        found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(),
        found.get(IFLA_ADDRESS, b""),
        struct.unpack("=I", found[IFLA_MTU])[0],
        found.get(IFLA_IFALIAS, b"").rstrip(b"\0").decode(),
        info.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode(),
        info.get(IFLA_INFO_DATA, b""),
    )


def encode_batch(messages: Sequence[Message], first_sequence: int) -> bytes:
    """Many requests in one datagram: the kernel takes them in order and answers each."""
    return b"".join(
        message.encode(first_sequence + offset) for offset, message in enumerate(messages)
    )
