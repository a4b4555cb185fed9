"""What the kernel has for the addresses of pods: marked links, and routes. Read, and put right."""

import errno
import struct
from dataclasses import dataclass

from deltaplane.model.addresses import Prefix
from nodeagent.netlink import message
from nodeagent.netlink.channel import Channel
from nodeagent.netlink.links import NAME_PREFIX, PodLink, alias_prefix, host_messages
from nodeagent.netlink.message import AF_INET, AF_INET6, Message

RT_SCOPE_NOWHERE = 255
"""Stands for any scope when a route is deleted (linux/rtnetlink.h)."""


@dataclass(frozen=True, slots=True)
class MarkedLink:
    """A pod link's end on the node. number: of the endpoint, as its mark says."""

    name: str
    index: int
    number: int


@dataclass(frozen=True, slots=True)
class KernelRoute:
    """A route of the main table. index: of its link, 0 for none; via: next hop, or None."""

    prefix: Prefix
    index: int
    via: bytes | None
    unreachable: bool


class AddressTable:
    """Blocking; for one thread at a time. It stays in the namespace of the thread that makes it."""

    def __init__(self) -> None:
        self._channel = Channel()

    def links(self, node_uid: str) -> tuple[MarkedLink, ...]:
        """The links that carry our name and our mark."""
        mark = alias_prefix(node_uid)
        return tuple(
            MarkedLink(link.name, link.index, int(number))
            for link in self._channel.links()
            if link.name.startswith(NAME_PREFIX)
            and link.alias.startswith(mark)
            and (number := link.alias.removeprefix(mark)).isdecimal()
        )

    def routes(self) -> tuple[KernelRoute, ...]:
        """Our routes and, whoever made them, those to single addresses."""
        return tuple(
            route
            for family in (AF_INET, AF_INET6)
            for body in self._channel.dump(message.list_routes(family))
            if (route := _parse(body)) is not None
        )

    def restore(self, link: PodLink) -> None:
        """Makes the node reach a pod whose link is there. Raises OSError."""
        index = self._channel.link(link.host_name).index
        self._channel.run(host_messages(link, index))

    def delete_route(self, prefix: Prefix, index: int) -> None:
        """Removes a route over a link, whoever made it; an absent one is fine. Raises OSError."""
        self._channel.run([_deletion(prefix, index)])


def _deletion(prefix: Prefix, index: int) -> Message:
    """Names only what is given: protocol, type and scope are those of whoever made the route."""
    family = AF_INET if prefix.is_ipv4 else AF_INET6
    table = message.RT_TABLE_MAIN
    body = message.ROUTE.pack(family, prefix.length, 0, 0, table, 0, RT_SCOPE_NOWHERE, 0, 0)
    body += message.attribute(message.RTA_DST, prefix.address)
    body += message.number_attribute(message.RTA_OIF, index)
    absent = frozenset({errno.ESRCH, errno.ENOENT})
    return Message(message.RTM_DELROUTE, message.NLM_F_ACK, body, f"delete route {prefix}", absent)


def _parse(body: bytes) -> KernelRoute | None:
    family, length, _, _, table, protocol, _, kind, _ = message.ROUTE.unpack_from(body)
    found = dict(message.attributes(body[message.ROUTE.size :]))
    size = 4 if family == AF_INET else 16
    ours = protocol == message.PROTOCOL or length == size * 8
    if table != message.RT_TABLE_MAIN or not ours:
        return None
    if kind not in (message.RTN_UNICAST, message.RTN_UNREACHABLE):
        return None
    # The kernel gives unreachable IPv6 routes the loopback's index.
    unreachable = kind == message.RTN_UNREACHABLE
    index = b"" if unreachable else found.get(message.RTA_OIF, b"")
    return KernelRoute(
        prefix=Prefix(found.get(message.RTA_DST, bytes(size)), length),
        index=struct.unpack("=I", index)[0] if index else 0,
        via=found.get(message.RTA_GATEWAY),
        unreachable=unreachable,
    )
