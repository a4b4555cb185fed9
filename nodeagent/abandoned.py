"""Interfaces that a container runtime has forgotten: their links are gone, and no DEL came.

A runtime that could not set up or tear down a pod's networks as a whole may remove the namespace
without a DEL. With the namespace goes the link, and a link that is gone never comes back; but its
addresses would be held, and its endpoint known to the cluster, for ever. So an interface is
released whose link has been gone for long enough: soon if the pod has another interface that works,
for then a newer sandbox has taken its place.
"""

import asyncio
from collections.abc import Collection, Iterable

from deltaplane.runtime import log, metrics
from deltaplane.runtime.clock import Clock
from nodeagent.cni.netconf import PodName
from nodeagent.entries import InterfaceRecord, Kind, State
from nodeagent.journal import Journal
from nodeagent.netlink.links import host_name
from nodeagent.pods import PodLinks
from nodeagent.releases import Releases

LOOK_SECONDS = 30.0
"""How often links are compared with the journal."""

SUPERSEDED_SECONDS = 60.0
"""Without a link, beside one that works: runtimes take less from one attempt to the next."""

ABANDONED_SECONDS = 600.0
"""Without a link and alone: a runtime or kubelet that restarts may still send the DEL by itself."""

_RELEASED = metrics.counter(
    "interfaces_abandoned", "Interfaces released because their links were gone and no DEL came"
)


class Abandoned:
    """Since when links have been missing. Pure."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}

    def look(
        self, records: Iterable[InterfaceRecord], linked: Collection[int], now: float
    ) -> list[InterfaceRecord]:
        """Whose time has come.

        Args:
            records: of the journal.
            linked: numbers of interfaces whose links are there.
            now: seconds.
        """
        ready = [
            record for record in records if record.state is State.READY and record.kind is Kind.POD
        ]
        working = {(it.pod, it.attachment.container_id) for it in ready if it.number in linked}
        missing = [record for record in ready if record.number not in linked]
        self._since = {record.number: self._since.get(record.number, now) for record in missing}
        return [
            record
            for record in missing
            if now - self._since[record.number]
            >= (SUPERSEDED_SECONDS if _has_newer(record, working) else ABANDONED_SECONDS)
        ]


def _has_newer(record: InterfaceRecord, working: Collection[tuple[PodName, str]]) -> bool:
    """Whether another sandbox of the pod works: it has one at a time."""
    container = record.attachment.container_id
    return any(pod == record.pod and other != container for pod, other in working)


class Collector:
    """Releases them."""

    def __init__(
        self, journal: Journal, links: PodLinks, releases: Releases, *, node_uid: str, clock: Clock
    ) -> None:
        """Makes one.

        Args:
            journal: which interfaces there should be.
            links: which there are.
            releases: how an interface goes.
            node_uid: whose links are meant.
            clock: where the time comes from.
        """
        self._journal = journal
        self._links = links
        self._releases = releases
        self._node_uid = node_uid
        self._clock = clock
        self._abandoned = Abandoned()

    async def run(self) -> None:
        """Looks again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.collect()
            except OSError as error:
                log.get().warning("links_not_looked_at", reason=str(error))

    async def collect(self) -> None:
        """Looks once.

        Raises:
            OSError: the kernel does not say which links there are, or removes nothing.
        """
        names = await self._links.ours(self._node_uid)
        records = list(self._journal.interfaces.values())
        linked = {item.number for item in records if host_name(item.number) in names}
        for record in self._abandoned.look(records, linked, self._clock.now()):
            log.get().warning(
                "interface_abandoned",
                number=record.number,
                pod=f"{record.pod.namespace}/{record.pod.name}",
                container=record.attachment.container_id,
            )
            _RELEASED.inc()
            await self._releases.delete(record.attachment)
