"""The turns: every proxy with every service and load, round by round."""

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.datapath.comparing import turns
from bench.datapath.generator import Load, Sample, build
from bench.datapath.network import Network
from bench.services.network import Proxy, balanced, served
from bench.services.shape import PORT, TARGET_PORT, BenchService, services
from deltaplane.errors import Refused
from deltaplane.model.addresses import format_address
from nodeagent.dataplane import bpffs, cgroups

FAMILIES = {"ipv4": 4, "ipv6": 6}
LOADS = (Load.CRR, Load.RR)

PLACES = {"first of 800": 0, "last of 800": -2, "the one with 4000": -1}
"""Which services are measured: place among them, in the order of the rules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure.

    Attributes:
        name: what the names of the namespaces begin with.
        rounds: in each, every proxy has a turn with every service and load.
        seconds: of a turn.
        proxies: DIRECT among them.
        families: some of FAMILIES.
        loads: some of LOADS.
    """

    name: str
    rounds: int
    seconds: float
    proxies: Sequence[Proxy] = tuple(Proxy)
    families: Sequence[str] = tuple(FAMILIES)
    loads: Sequence[Load] = LOADS


@dataclass(frozen=True, slots=True)
class Series:
    """One load to one service in one family: a sample by proxy for each round."""

    load: Load
    service: str
    family: str
    rounds: list[dict[Proxy, Sample]]


def measure(plan: Plan, progress: Callable[[str], None]) -> list[Series]:
    """Makes a pair of nodes for each proxy, measures, and removes them.

    Raises:
        DeltaplaneError: something is missing, or nothing passes.
        OSError: no privilege, or the kernel refuses.
    """
    shape = {number: tuple(services(number)) for number in FAMILIES.values()}
    found = [
        Series(load, service, family, [])
        for load in plan.loads
        for service in PLACES
        for family in plan.families
    ]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deltaplane-bench-")))
        generator = build(folder)
        cgroup = _cgroup() if Proxy.SOCKETS in plan.proxies else None
        networks: dict[Proxy, Network] = {}
        for proxy in plan.proxies:
            progress(f"{proxy}: nodes and {sum(map(len, shape.values()))} services")
            name = f"{plan.name}-{len(networks)}"
            if proxy is Proxy.SOCKETS:
                assert cgroup is not None
                mount = folder / "bpffs"
                mount.mkdir()
                bpffs.ensure(mount)
                stack.callback(bpffs.release, mount)
                networks[proxy] = stack.enter_context(balanced(name, mount, cgroup, shape))
            else:
                networks[proxy] = stack.enter_context(served(name, proxy, shape))
        order = list(networks)
        for number in range(plan.rounds):
            progress(f"round {number + 1} of {plan.rounds}")
            for series in found:
                service = shape[FAMILIES[series.family]][PLACES[series.service]]
                series.rounds.append({})
                for place in turns(range(len(order)), number):
                    proxy = order[place]
                    series.rounds[-1][proxy] = generator.run(
                        networks[proxy],
                        series.load,
                        series.family,
                        plan.seconds,
                        target=_target(proxy, service),
                        cgroup=cgroup if proxy is Proxy.SOCKETS else None,
                    )
    return found


def _cgroup() -> Path:
    """Folder of a cgroup that is not there yet. Raises Refused: none can be made."""
    mount = cgroups.find_mount()
    if mount is None:
        raise Refused("cgroup2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup")
    return mount / f"deltaplane-bench-{os.getpid()}"


def _target(proxy: Proxy, service: BenchService) -> tuple[str, int]:
    if proxy is Proxy.DIRECT:
        return format_address(service.backends[0]), TARGET_PORT
    return format_address(service.address), PORT
