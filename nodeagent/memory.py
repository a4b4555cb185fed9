"""Links of pods and routes where none may be made: in memory, links also in a file.

Stands for the kernel of one node beside `dataplane.memory`. No link is made anywhere: what is said
of a pod's namespace is taken for granted.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from deltaplane.model.addresses import Prefix
from nodeagent.cni.result import GATEWAY_IPV4, GATEWAY_IPV6
from nodeagent.netlink.inspect import Found, PodAddress, PodRoute
from nodeagent.netlink.links import PodLink
from nodeagent.netlink.message import RT_TABLE_MAIN, Link
from nodeagent.routes import Route

FILE = "links.msgpack"

FIRST_INDEX = 1000
"""Of a pod's link: no link of the machine, should somebody look there."""


class MemoryPodLinks:
    """Implements PodLinks. The file outlives the agent, as links outlive it.

    Raises:
        ValueError: the file is none of ours.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._links: dict[str, tuple[int, PodLink]] = {}
        if self._file.exists():
            kind = dict[str, tuple[int, PodLink]]
            self._links = msgspec.msgpack.decode(self._file.read_bytes(), type=kind)

    def _save(self) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_bytes(msgspec.msgpack.encode(self._links))
        fresh.replace(self._file)

    def is_home(self, netns: int) -> bool:
        """See PodLinks; there is but one network namespace, which stands for all."""
        del netns
        return False

    async def create(self, link: PodLink, netns: int) -> int:
        """See PodLinks."""
        del netns
        indexes = (index for index, _ in self._links.values())
        index = max(indexes, default=FIRST_INDEX - 1) + 1
        self._links[link.host_name] = (index, link)
        self._save()
        return index

    async def remove(self, link: PodLink) -> None:
        """See PodLinks."""
        _, held = self._links.get(link.host_name, (0, None))
        if held is not None and held.host_mac == link.host_mac:
            await self.delete(link.host_name)

    async def delete(self, name: str) -> None:
        """See PodLinks."""
        if self._links.pop(name, None) is not None:
            self._save()

    async def ours(self, node_uid: str) -> dict[str, int]:
        """See PodLinks."""
        return {
            name: index for name, (index, link) in self._links.items() if link.node_uid == node_uid
        }

    async def strangers(self, node_uid: str) -> tuple[str, ...]:
        """See PodLinks."""
        return tuple(name for name, (_, link) in self._links.items() if link.node_uid != node_uid)

    async def inspect(self, link: PodLink, netns: int) -> Found:
        """See PodLinks."""
        del netns
        if link.host_name not in self._links:
            return Found(host=None, pod=None, addresses=frozenset(), routes=frozenset())
        index, held = self._links[link.host_name]
        return Found(
            host=Link(index, held.host_name, held.host_mac, held.mtu, held.alias),
            pod=Link(index, held.ifname, held.pod_mac, held.mtu, ""),
            addresses=frozenset(
                PodAddress(address, 8 * len(address)) for address in held.addresses
            ),
            routes=frozenset(
                PodRoute(
                    bytes(len(address)),
                    0,
                    GATEWAY_IPV4 if len(address) == 4 else GATEWAY_IPV6,
                    RT_TABLE_MAIN,
                )
                for address in held.addresses
            ),
        )


class MemoryRoutes:
    """Implements `execute.RouteTable`. It ends with the agent: the next one makes routes anew."""

    def __init__(self) -> None:
        self._routes: dict[Prefix, Route] = {}

    def add(self, routes: tuple[Route, ...]) -> None:
        """Makes routes."""
        self._routes |= {route.prefix: route for route in routes}

    def delete(self, routes: tuple[Route, ...]) -> None:
        """Removes routes; absent ones are fine."""
        for route in routes:
            self._routes.pop(route.prefix, None)

    def dump(self) -> Mapping[Prefix, Route]:
        """All routes."""
        return dict(self._routes)
