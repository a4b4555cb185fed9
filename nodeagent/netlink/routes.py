"""Kernel routes of blocks: writing them and reading them back."""

import contextlib
import errno
from collections.abc import Iterable, Sequence
from dataclasses import replace

from deltaplane.model.addresses import Prefix
from nodeagent.netlink import message
from nodeagent.netlink.channel import Channel
from nodeagent.netlink.message import AF_INET, AF_INET6, Message, NetlinkError
from nodeagent.routes import Route

RESOLVE_AT_MOST = 100
"""Next hops that are resolved ahead, of one family and call: from 128 neighbours on (gc_thresh1)
the kernel begins to forget some, at 1024 it refuses new ones.
"""


def add(routes: Iterable[Route], uplink_index: int) -> list[Message]:
    """Requests that make routes; one that is there is replaced."""
    return [_request(route, uplink_index, delete=False) for route in routes]


def resolve(routes: Iterable[Route], uplink_index: int) -> list[Message]:
    """Requests that resolve the next hops of routes before the first packet needs them."""
    hops = sorted({route.via for route in routes if route.via is not None})
    chosen = [
        hop
        for size in (4, 16)
        for hop in [hop for hop in hops if len(hop) == size][:RESOLVE_AT_MOST]
    ]
    return [message.resolve_neighbour(uplink_index, hop) for hop in chosen]


def delete(routes: Iterable[Route], uplink_index: int) -> list[Message]:
    """Requests that remove routes; absent ones are fine."""
    requests = [_request(route, uplink_index, delete=True) for route in routes]
    # IPv6 says ENOENT where IPv4 says ESRCH.
    absent = frozenset({errno.ESRCH, errno.ENOENT})
    return [replace(request, allow=absent) for request in requests]


def _request(route: Route, uplink_index: int, *, delete: bool) -> Message:
    return message.route(
        (route.prefix.address, route.prefix.length),
        index=None if route.via is None else uplink_index,
        gateway=route.via,
        delete=delete,
    )


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
    gateway = found.get(message.RTA_GATEWAY)
    return None if gateway is None else Route(prefix, gateway)


class KernelRoutes:
    """Implements `nodeagent.execute.RouteTable` in the namespace of the thread that makes it."""

    def __init__(self, uplink_index: int) -> None:
        self._channel = Channel()
        self._uplink_index = uplink_index

    def add(self, routes: Sequence[Route]) -> None:
        """Makes routes; one for the same block is replaced. Raises OSError."""
        self._channel.run(add(routes, self._uplink_index))
        # What cannot be resolved now is resolved by the first packet.
        with contextlib.suppress(NetlinkError):
            self._channel.run(resolve(routes, self._uplink_index))

    def delete(self, routes: Iterable[Route]) -> None:
        """Removes routes; absent ones are fine. Raises OSError."""
        self._channel.run(delete(routes, self._uplink_index))

    def dump(self) -> dict[Prefix, Route]:
        """All routes that are ours."""
        found = [
            route
            for request in dumps()
            for body in self._channel.dump(request)
            if (route := parse(body)) is not None
        ]
        return {route.prefix: route for route in found}
