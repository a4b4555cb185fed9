"""kube-proxy's syncs: rules of iptables-nft that follow services whose backends change."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from bench.datapath.network import Network
from bench.services import rules
from bench.services.background import background
from bench.services.network import RESTORE, Proxy, restore
from bench.services.shape import BACKENDS, BenchService

SYNC_SECONDS = 1.0
"""--iptables-min-sync-period of kube-proxy."""

SPARE = 30_000
"""Backends from this number on are in no service at the beginning."""


class Syncs:
    """The rules of one node.

    Attributes:
        replaced: backends so far, each of another service.
        seconds: that each sync took, of both families.
    """

    def __init__(self, network: Network, shape: Mapping[int, tuple[BenchService, ...]]) -> None:
        """The rules of these services, by family, are there."""
        self._network = network
        self._services = {family: list(services) for family, services in shape.items()}
        self.replaced = 0
        self.seconds: list[float] = []

    def sync(self, changes: int) -> None:
        """Replaces a backend in each of so many services, and writes the rules that differ.

        Raises:
            Internal: the tool refuses.
        """
        started = time.monotonic()
        for family, services in self._services.items():
            changed: dict[int, BenchService] = {}
            for turn in range(self.replaced, self.replaced + changes):
                place = turn % len(services)
                fresh = BACKENDS[family].nth(SPARE + turn % SPARE)
                backends = (fresh, *services[place].backends[1:])
                services[place] = changed[place] = replace(services[place], backends=backends)
            text = rules.iptables_change(services, changed.values(), family)
            command = (*RESTORE[Proxy.IPTABLES_NFT, family], "--noflush")
            restore(self._network, command, text)
        self.replaced += changes
        self.seconds.append(time.monotonic() - started)

    @contextmanager
    def running(self, per_second: int) -> Iterator[None]:
        """Replaces so many backends each second, with a sync a second, until the block ends.

        Raises:
            Internal: the tool refuses.
        """

        def run(over: threading.Event) -> None:
            began = time.monotonic()
            done = 0
            while not over.wait(SYNC_SECONDS):
                wanted = int((time.monotonic() - began) * per_second)
                self.sync(wanted - done)
                done = wanted

        with background(run, "syncs"):
            yield
