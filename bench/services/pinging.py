"""HTTP requests to a service while pods come and go and all services change, and without a service.

Two places, which have their turns one after the other:

    deltaplane      a lab: etcd, services, slicer, agents; the pods and services change through them
    iptables-nft    the two nodes of `network`, with rules that follow as many changes

In a turn each of a place's four targets is called every 10 ms: the service and a backend itself, in
both families. What goes straight to a backend is the floor of that place.
"""

import enum
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.datapath.generator import two_of
from bench.datapath.network import CLIENT_NODE, SERVER_NODE
from bench.services.calling import Call, Target, build, calling, failures, serving
from bench.services.churning import Churn
from bench.services.network import Proxy, served
from bench.services.programming import Counts
from bench.services.shape import PORT, SMALL, TARGET_PORT, services
from bench.services.standing import FAMILIES, Standing
from bench.services.syncing import Syncs
from deltaplane.manifest import NamespaceManifest
from deltaplane.model.addresses import format_address, parse_address
from deltaplane.model.service import SliceEndpoint
from lab import Lab, LabConfig
from lab.manifests import Manifests
from lab.workloads import Workload

INTERVAL_US = 2500
"""Four targets in turn: each every 10 ms."""

TARGETS = 64
"""Of one caller: the four, with a backend after the other."""

NAMESPACE = "pinger"
SETTLE_SECONDS = 1.0
"""Of a turn, before it is measured."""


class Place(enum.StrEnum):
    """Where it is measured."""

    DELTAPLANE = "deltaplane"
    KUBE_PROXY = "iptables-nft"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure.

    Attributes:
        rounds: turns of each place.
        seconds: of a turn.
        per_second: pods that are replaced, each with an update of a service.
        nodes: of the lab.
    """

    rounds: int
    seconds: float
    per_second: int = 100
    nodes: int = 3


@dataclass(slots=True)
class Pings:
    """One place and family. Nanoseconds of the calls that went well, for each round.

    Attributes:
        service: of calls to the service.
        straight: of calls to its backends.
        failed: of both, what failed.
    """

    place: Place
    family: int
    service: list[list[int]] = field(default_factory=list)
    straight: list[list[int]] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)

    def add(self, calls: Sequence[Call]) -> None:
        """Adds a round: the calls of this family, to the service and to backends in turn."""
        for kept, is_straight in ((self.service, 0), (self.straight, 1)):
            mine = [call for call in calls if call.target % 2 == is_straight]
            kept.append([call.took_ns for call in mine if not call.failed])
            self.failed.update(failures(mine))


@dataclass(slots=True)
class Found:
    """What came out.

    Attributes:
        pings: by place and family.
        replaced: pods of each place during its turns.
        seconds: of all turns of a place.
        late: ticks of the lab's churn that began late: the machine was not fast enough.
        syncs: seconds of each sync of the rules.
    """

    pings: list[Pings]
    replaced: dict[Place, int] = field(default_factory=dict)
    seconds: dict[Place, float] = field(default_factory=lambda: dict.fromkeys(Place, 0.0))
    late: int = 0
    syncs: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """A place that stands.

    Attributes:
        namespace: of the client.
        cgroup: of the client; empty: none.
        targets: service and backend in turn, IPv4 twice, IPv6 twice.
        changing: lets so much change each second until the end of the block.
    """

    namespace: str
    cgroup: str
    targets: Sequence[Target]
    changing: Callable[[int], AbstractContextManager[None]]


def ping(plan: Plan, progress: Callable[[str], None]) -> Found:
    """Makes both places, measures, and removes them.

    Raises:
        DeltaplaneError: something is missing, refuses or is away.
        OSError: no privilege.
    """
    found = Found([Pings(place, family) for place in Place for family in FAMILIES])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deltaplane-bench-")))
        program = build(folder)
        client_cpu, server_cpu = two_of(sorted(os.sched_getaffinity(0)))
        progress("a lab with 801 services")
        churn, ours = stack.enter_context(_lab(plan, program, server_cpu))
        progress("two nodes with the rules of 801 services")
        syncs, theirs = stack.enter_context(_ruled(program, server_cpu))
        stages = {Place.DELTAPLANE: ours, Place.KUBE_PROXY: theirs}
        for number in range(plan.rounds):
            progress(f"round {number + 1} of {plan.rounds}")
            for place in list(Place)[:: -1 if number % 2 else 1]:
                began = time.monotonic()
                calls = _turn(stages[place], plan, program, client_cpu)
                found.seconds[place] += time.monotonic() - began
                for pings in found.pings:
                    if pings.place is place:
                        pings.add(list(_of_family(calls, pings.family)))
        found.replaced = {Place.DELTAPLANE: churn.replaced, Place.KUBE_PROXY: syncs.replaced}
        found.late, found.syncs = churn.late, syncs.seconds
    return found


def _turn(stage: _Stage, plan: Plan, program: Path, cpu: int) -> list[Call]:
    with (
        stage.changing(plan.per_second),
        calling(
            program,
            stage.namespace,
            stage.targets,
            interval_us=INTERVAL_US,
            cpu=cpu,
            cgroup=stage.cgroup,
        ) as caller,
    ):
        time.sleep(SETTLE_SECONDS)
        start = caller.count
        time.sleep(plan.seconds)
        return caller.calls(start)


def _of_family(calls: Sequence[Call], family: int) -> Iterator[Call]:
    # Targets: IPv4 service, IPv4 backend, IPv6 service, IPv6 backend, and again.
    wanted = FAMILIES.index(family)
    return (call for call in calls if call.target % 4 // 2 == wanted)


def _targets(
    services_: Sequence[str], backends: Sequence[Sequence[str]], ports: tuple[int, int]
) -> list[Target]:
    """Of one caller. Both have IPv4 first."""
    made: list[Target] = []
    for number in range(TARGETS // 4):
        for service, backend in zip(services_, backends[number % len(backends)], strict=True):
            made += [(service, ports[0]), (backend, ports[1])]
    return made


@contextmanager
def _lab(plan: Plan, program: Path, cpu: int) -> Iterator[tuple[Churn, _Stage]]:
    """A lab with the services; the one before the last has backends that answer."""
    config = LabConfig(name=f"ping{os.getpid() % 100000}", nodes=plan.nodes, trace_ratio=0.01)
    with Lab.up(config) as lab:
        near, far = (node.name for node in lab.topology.nodes[:2])
        names = [f"backend-{number}" for number in range(1, SMALL + 1)]
        where = {"client": near, **dict.fromkeys(names, far)}
        pods = tuple(
            Workload(kind="Pod", namespace=NAMESPACE, name=name, node=node)
            for name, node in where.items()
        )
        lab.apply(Manifests(namespaces=(NamespaceManifest(name=NAMESPACE),), workloads=pods))
        client, *backends = (lab.pod(f"{NAMESPACE}/{name}") for name in where)
        standing = Standing(lab)
        watched = standing.numbers[-2]
        for place, pod in enumerate(backends):
            endpoints = zip(FAMILIES, map(parse_address, pod.addresses), strict=True)
            standing.put(
                watched,
                place,
                {family: SliceEndpoint(address=it, node=far) for family, it in endpoints},
            )
        churn = Churn(lab, standing, watched=watched)
        standing.fill()
        for _ in range(-(-len(standing.numbers) // plan.per_second)):
            # Every service has a pod that can be replaced.
            churn.replace(plan.per_second)
        with closing(Counts(lab, standing)) as counts:
            counts.await_all()
        churn.replaced = 0
        own = [format_address(standing.addresses[watched, family]) for family in FAMILIES]
        stage = _Stage(
            namespace=lab.pod_namespace(client),
            cgroup=lab.topology.group(near),
            targets=_targets(own, [pod.addresses for pod in backends], (PORT, TARGET_PORT)),
            changing=churn.running,
        )
        with serving(program, [lab.pod_namespace(pod) for pod in backends], TARGET_PORT, cpu=cpu):
            yield churn, stage


@contextmanager
def _ruled(program: Path, cpu: int) -> Iterator[tuple[Syncs, _Stage]]:
    """The two nodes with rules; the same service as in the lab."""
    shape = {family: tuple(services(family)) for family in FAMILIES}
    with served(f"dpb{os.getpid()}", Proxy.IPTABLES_NFT, shape) as network:
        watched = [shape[family][-2] for family in FAMILIES]
        backends = [
            [format_address(address) for address in pair]
            for pair in zip(*(service.backends for service in watched), strict=True)
        ]
        syncs = Syncs(network, shape)
        stage = _Stage(
            namespace=network.pod(CLIENT_NODE),
            cgroup="",
            targets=_targets(
                [format_address(service.address) for service in watched],
                backends,
                (PORT, TARGET_PORT),
            ),
            changing=syncs.running,
        )
        with serving(program, [network.pod(SERVER_NODE)], TARGET_PORT, cpu=cpu):
            yield syncs, stage
