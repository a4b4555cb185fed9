"""Kernel routes of blocks: writing them and reading them back."""

import contextlib
import errno
from collections.abc import Iterable, Sequence
from dataclasses import replace

from deltaplane.model.addresses import Prefix
from nodeagent.netlink import message, tunnel
from nodeagent.netlink.channel import Channel
from nodeagent.netlink.message import AF_INET, AF_INET6, Message, NetlinkError
from nodeagent.netlink.tunnel import Tunnel
from nodeagent.routes import Route

RESOLVE_AT_MOST = 100
"""Next hops that are resolved ahead, of one family and call: from 128 neighbours on (gc_thresh1)
the kernel begins to forget some, at 1024 it refuses new ones.
"""


UNREACHABLE_METRIC = 1 << 20
"""Of the routes that close own blocks: any other route to the same block wins, for example that of
a bridge which the IPAM-only mode serves (0, IPv6 256), a daemon's (20 to 1024) or a
NetworkManager's (up to 21,000); longer prefixes, the pods', win anyway.
"""


def add(routes: Iterable[Route], uplink_index: int, end: Tunnel | None = None) -> list[Message]:
    """Requests that make routes; one that is there is replaced. end: of wrapped routes."""
    return [_request(route, uplink_index, end, delete=False) for route in routes]


def resolve(routes: Iterable[Route], uplink_index: int) -> list[Message]:
    """Requests that resolve the next hops of routes before the first packet needs them.

    One behind a router does not answer; the stack knows whom to ask when a packet comes.
    """
    hops = sorted({route.via for route in routes if route.via is not None})
    chosen = [
        hop
        for size in (4, 16)
        for hop in [hop for hop in hops if len(hop) == size][:RESOLVE_AT_MOST]
    ]
    return [message.resolve_neighbour(uplink_index, hop) for hop in chosen]


def delete(routes: Iterable[Route], uplink_index: int, end: Tunnel | None = None) -> list[Message]:
    """Requests that remove routes; absent ones are fine."""
    requests = [_request(route, uplink_index, end, delete=True) for route in routes]
    # IPv6 says ENOENT where IPv4 says ESRCH.
    absent = frozenset({errno.ESRCH, errno.ENOENT})
    return [replace(request, allow=absent) for request in requests]


def _request(route: Route, uplink_index: int, end: Tunnel | None, *, delete: bool) -> Message:
    destination = (route.prefix.address, route.prefix.length)
    if route.via is None:
        metric = message.number_attribute(message.RTA_PRIORITY, UNREACHABLE_METRIC)
        return message.route(destination, delete=delete, more=metric)
    if not route.wrapped:
        return message.route(destination, index=uplink_index, gateway=route.via, delete=delete)
    if end is None:
        raise ValueError(f"{route}, but there is no tunnel")
    return tunnel.route(destination, route.via, end, delete=delete)


def dumps() -> tuple[Message, Message]:
    """Requests whose answers `parse` takes."""
    return message.list_routes(AF_INET), message.list_routes(AF_INET6)


def parse(body: bytes) -> Route | None:
    """The block route that an answer of a dump shows, or None.

    Not ours, of another table, or a pod's.
    """
    kind_of = message.ROUTE.unpack_from(body)
    family, length, _, _, table, protocol, _, kind, _ = kind_of
    if protocol != message.PROTOCOL or table != message.RT_TABLE_MAIN:
        return None
    found = dict(message.attributes(body[message.ROUTE.size :]))
    size = 4 if family == AF_INET else 16
    prefix = Prefix(found.get(message.RTA_DST, bytes(size)), length)
    if kind == message.RTN_UNREACHABLE:
        return Route(prefix, None)
    if (far_end := tunnel.end_of(found)) is not None:
        return Route(prefix, far_end, wrapped=True)
    gateway = found.get(message.RTA_GATEWAY)
    return None if gateway is None else Route(prefix, gateway)


class KernelRoutes:
    """Implements `nodeagent.execute.RouteTable` in the namespace of the thread that makes it."""

    def __init__(self, uplink_index: int, end: Tunnel | None = None) -> None:
        self._channel = Channel()
        self._uplink_index = uplink_index
        self._end = end

    def add(self, routes: Sequence[Route]) -> None:
        """Makes routes; one for the same block is replaced. Raises OSError."""
        self._channel.run(add(routes, self._uplink_index, self._end))
        # What cannot be resolved now is resolved by the first packet.
        with contextlib.suppress(NetlinkError):
            self._channel.run(resolve(routes, self._uplink_index))

    def delete(self, routes: Iterable[Route]) -> None:
        """Removes routes; absent ones are fine. Raises OSError."""
        self._channel.run(delete(routes, self._uplink_index, self._end))

    def dump(self) -> dict[Prefix, Route]:
        """All routes that are ours."""
        found = [
            route
            for request in dumps()
            for body in self._channel.dump(request)
            if (route := parse(body)) is not None
        ]
        return {route.prefix: route for route in found}
