"""Pod links from asyncio.

One thread makes links, another removes them (removal takes 20 ms in the kernel).
"""

import os
from typing import Protocol

from nodeagent.netlink import namespace
from nodeagent.netlink.inspect import Found
from nodeagent.netlink.links import Links, PodLink
from nodeagent.worker import Worker


class PodLinks(Protocol):
    """Makes and removes the links of pods."""

    def is_home(self, netns: int) -> bool:
        """Whether a network namespace is the node's own, which is no pod's."""
        ...

    async def create(self, link: PodLink, netns: int) -> int:
        """Makes a link whole or leaves nothing; the index of the host-side link. Raises OSError."""
        ...

    async def remove(self, link: PodLink) -> None:
        """Removes a link; an absent one is fine, and a foreign one stays. Raises OSError."""
        ...

    async def delete(self, name: str) -> None:
        """Removes a link by its name, whoever made it. Raises OSError."""
        ...

    async def ours(self, node_uid: str) -> dict[str, int]:
        """Name → index of the links that this node's agent has made."""
        ...

    async def strangers(self, node_uid: str) -> tuple[str, ...]:
        """Names of pod links that an agent of another UID has made in this namespace."""
        ...

    async def inspect(self, link: PodLink, netns: int) -> Found:
        """What is there of a link. Raises OSError."""
        ...


class KernelPodLinks:
    """Implements PodLinks. Made in the node's network namespace."""

    def __init__(self) -> None:
        self._making, self._makers = Links(), Worker("link-make")
        self._removing, self._removers = Links(), Worker("link-remove")

    def is_home(self, netns: int) -> bool:
        """See PodLinks."""
        home = namespace.own()
        try:
            return namespace.same(home, netns)
        finally:
            os.close(home)

    async def create(self, link: PodLink, netns: int) -> int:
        """See PodLinks."""
        return await self._makers.call(self._making.create, link, netns)

    async def remove(self, link: PodLink) -> None:
        """See PodLinks."""
        await self._removers.call(self._removing.remove, link)

    async def delete(self, name: str) -> None:
        """See PodLinks."""
        await self._removers.call(self._removing.delete, name)

    async def ours(self, node_uid: str) -> dict[str, int]:
        """See PodLinks."""
        return await self._makers.call(self._making.ours, node_uid)

    async def strangers(self, node_uid: str) -> tuple[str, ...]:
        """See PodLinks."""
        return await self._makers.call(self._making.strangers, node_uid)

    async def inspect(self, link: PodLink, netns: int) -> Found:
        """See PodLinks."""
        return await self._makers.call(self._making.inspect, link, netns)
