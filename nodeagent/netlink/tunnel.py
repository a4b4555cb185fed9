"""The link that wraps packets to other nodes: one VXLAN link for all of them.

It is told with each packet where that goes: by the data path for pods, by routes for this node's
own stack. Nothing is learnt and nobody asks for neighbours on it.
"""

import struct
import threading
from dataclasses import dataclass

from deltaplane.errors import Refused
from deltaplane.model.addresses import AddressPair
from nodeagent.dataplane import abi
from nodeagent.netlink import inspect, message, namespace, sysctl
from nodeagent.netlink.channel import Channel
from nodeagent.netlink.message import Link, Message, attribute

NAME = "dpvxlan"
DIRECT = "dpdirect"
"""The same for what nodes hand over to each other for clients outside; no route leads there."""
HOP_LIMIT = 64
"""Of outer packets; what pods send has its own."""

_ANY_PORT = 8472
_LEAST_IPV4, _LEAST_IPV6 = 576, 1280

_KEY_CHECKSUM, _KEY_DONT_FRAGMENT = 0x0001, 0x0100
"""Bits of LWTUNNEL_IP_FLAGS (linux/if_tunnel.h, TUNNEL_*)."""

_ID, _DESTINATION, _SOURCE, _HOP_LIMIT, _FLAGS = 1, 2, 3, 4, 6
"""LWTUNNEL_IP_* and LWTUNNEL_IP6_*, which have the same numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """This node's end.

    Attributes:
        index: of the link.
        mtu: of the link, bytes.
        uplink_mtu: bytes.
        own: uplink addresses of this node.
    """

    index: int
    mtu: int
    uplink_mtu: int
    own: AddressPair


def least_uplink_mtu(own: AddressPair) -> int:
    """Bytes that the uplink must take so that the smallest MTU of the pods' families is left."""
    return (_LEAST_IPV6 if own.ipv6 else _LEAST_IPV4) + abi.TUNNEL_OVERHEAD_IPV6


def problems() -> tuple[str, ...]:
    """Why there can be no tunnel here, for people; empty: it can be made.

    What the kernel can do is tried in a network namespace that only a short-lived thread is in.
    """
    found: list[str] = []
    with Channel() as channel:
        links = {name: inspect.find(channel, name) for name in (NAME, DIRECT)}
    found += [_stranger(name) for name, link in links.items() if link and not is_ours(link)]

    def try_it() -> None:
        try:
            namespace.leave()
            own = AddressPair(ipv4=bytes((192, 0, 2, 1)), ipv6=None)
            with Channel() as alone:
                made = ensure(alone, port=_ANY_PORT, uplink_mtu=1500, own=own)
                far = bytes((192, 0, 2, 2))
                # Without the source, which is not there, as little as the addresses of others.
                alone.run(
                    [message.route((far, 32), index=made.index, more=_encapsulation(far, own))]
                )
        except OSError as error:
            found.append(f"VXLAN is missing ({error}): a kernel with CONFIG_VXLAN, CONFIG_LWTUNNEL")

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    return tuple(found)


def _stranger(name: str) -> str:
    return f"link {name} is there and is no VXLAN link of ours: remove it"


def link_mtu(uplink_mtu: int, own: AddressPair) -> int:
    """Bytes of an IP packet that fit, wrapped over IPv4 if this node has it."""
    overhead = abi.TUNNEL_OVERHEAD_IPV4 if own.ipv4 else abi.TUNNEL_OVERHEAD_IPV6
    return uplink_mtu - overhead


def ensure(
    channel: Channel, *, port: int, uplink_mtu: int, own: AddressPair, name: str = NAME
) -> Tunnel:
    """Makes the link or adopts the one that is there.

    Args:
        channel: in this node's namespace, as is the calling thread.
        port: UDP, the same on all nodes.
        uplink_mtu: bytes.
        own: uplink addresses of this node.
        name: NAME or DIRECT.

    Raises:
        Refused: somebody else's link has the name.
        OSError: the kernel refuses.
    """
    found = inspect.find(channel, name)
    if found is not None and not is_ours(found):
        raise Refused(_stranger(name))
    if found is not None and _port(found) != port:
        channel.run([message.delete_link(found.index, name)])
        found = None
    if found is None:
        channel.run([message.new_vxlan(name, port)])
        found = channel.link(name)
    sysctl.set_for_link(sysctl.TUNNEL_LINK, name)
    mtu = link_mtu(uplink_mtu, own)
    channel.run([message.tunnel_up(found.index, name, mtu)])
    return Tunnel(index=found.index, mtu=mtu, uplink_mtu=uplink_mtu, own=own)


def remove(channel: Channel, name: str = NAME) -> bool:
    """Removes our link, and with it the routes through it; whether there was one."""
    found = inspect.find(channel, name)
    if found is None or not is_ours(found):
        return False
    channel.run([message.delete_link(found.index, name)])
    return True


def is_ours(link: Link) -> bool:
    """Whether a link of our name is what we would make; the port aside."""
    data = dict(message.attributes(link.data))
    return link.kind == "vxlan" and data.get(message.IFLA_VXLAN_COLLECT_METADATA) == b"\1"


def _port(link: Link) -> int:
    data = dict(message.attributes(link.data))
    return int.from_bytes(data.get(message.IFLA_VXLAN_PORT, b""))


def route(
    destination: tuple[bytes, int], via: bytes, tunnel: Tunnel, *, delete: bool = False
) -> Message:
    """A route that wraps what this node's own stack sends.

    Args:
        destination: prefix, address and length.
        via: address of the other end.
        tunnel: this end.
        delete: removes the route instead.
    """
    more = _encapsulation(via, tunnel.own)
    # Without it the stack would take the first address that it finds, maybe another link's.
    source = tunnel.own.ipv4 if len(destination[0]) == 4 else tunnel.own.ipv6
    if source is not None:
        more += attribute(message.RTA_PREFSRC, source)
    if len(via) == 16 and (fits := tunnel.uplink_mtu - abi.TUNNEL_OVERHEAD_IPV6) < tunnel.mtu:
        metric = message.number_attribute(message.RTAX_MTU, fits)
        more += attribute(message.RTA_METRICS, metric)
    return message.route(destination, index=tunnel.index, delete=delete, more=more)


def _encapsulation(via: bytes, own: AddressPair) -> bytes:
    over_ipv4 = len(via) == 4
    # Over IPv6 a UDP checksum of zero is refused by the other end.
    flags = _KEY_DONT_FRAGMENT if over_ipv4 else _KEY_CHECKSUM
    source = own.ipv4 if over_ipv4 else own.ipv6
    key = (
        attribute(_ID, abi.TUNNEL_VNI.to_bytes(8))
        + attribute(_DESTINATION, via)
        + (b"" if source is None else attribute(_SOURCE, source))
        + attribute(_HOP_LIMIT, bytes((HOP_LIMIT,)))
        + attribute(_FLAGS, flags.to_bytes(2))
    )
    kind = message.LWTUNNEL_ENCAP_IP if over_ipv4 else message.LWTUNNEL_ENCAP_IP6
    return attribute(message.RTA_ENCAP_TYPE, struct.pack("=H", kind)) + attribute(
        message.RTA_ENCAP, key
    )


def end_of(found: dict[int, bytes]) -> bytes | None:
    """The other end that a listed route wraps to; None if it does not."""
    if message.RTA_ENCAP not in found:
        return None
    return dict(message.attributes(found[message.RTA_ENCAP])).get(_DESTINATION)
