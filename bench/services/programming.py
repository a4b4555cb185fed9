"""From the call that changes a backend of a service to the kernel of every node of a lab.

Measured at the frontend in each node's map, which says how many backends clients are given: it is
written after them.
"""

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from bench.services.shape import PORT
from bench.services.standing import FAMILIES, Standing
from deltaplane.cli import enforcement
from deltaplane.errors import Unavailable
from deltaplane.model.addresses import to_mapped
from lab import Lab
from nodeagent.dataplane import abi, balancing_records, loader, maps
from nodeagent.dataplane.balancing import FrontendKey

POLL_SECONDS = 0.0002
WAIT_SECONDS = 60.0
FILL_SECONDS = 120.0
_TCP = 6


@dataclass(slots=True)
class Programmed:
    """Seconds, one for each change.

    Attributes:
        fill: until all services were in force on every node.
        small: from the start of the call to the last node, services with 20 backends.
        large: the same, the service with 4000.
        written: until the call returned: etcd has it.
    """

    fill: float = 0.0
    small: list[float] = field(default_factory=list)
    large: list[float] = field(default_factory=list)
    written: list[float] = field(default_factory=list)


class Counts:
    """How many backends the kernels of a lab's nodes give to clients of its services. Close it."""

    def __init__(self, lab: Lab, standing: Standing) -> None:
        """Opens the pinned maps of the agents, which run or did."""
        self._standing = standing
        with contextlib.ExitStack() as stack:
            self._maps = []
            for node in lab.topology.nodes:
                path = loader.schema_folder(lab.layout.node(node.name).pins) / "frontends"
                opened = maps.KernelMap("frontends", maps.open_pinned(path))
                stack.callback(opened.close)
                self._maps.append(opened)
            self._closing = stack.pop_all()

    def close(self) -> None:
        """Closes the maps."""
        self._closing.close()

    def all_are(self, number: int, count: int) -> bool:
        """Whether every node has so many backends of a service, in both families."""
        return all(found == count for found in self._counts(number))

    def await_all(self) -> None:
        """Waits until every node has all backends of all services.

        Raises:
            Unavailable: not in time.
        """
        deadline = time.monotonic() + FILL_SECONDS
        for number in self._standing.numbers:
            wanted = sum(one.ready for one in self._standing.backends(number, FAMILIES[0]))
            while not self.all_are(number, wanted):
                if time.monotonic() > deadline:
                    raise Unavailable(f"service {number} does not have {wanted} backends on a node")
                time.sleep(POLL_SECONDS)

    def _counts(self, number: int) -> Iterator[int]:
        for family in FAMILIES:
            address = to_mapped(self._standing.addresses[number, family])
            key = FrontendKey(address=address, protocol=_TCP, port=PORT)
            for opened in self._maps:
                value = opened.get(balancing_records.frontend_key(key))
                yield abi.Frontend.unpack(value).inside_count if value else -1


@contextlib.contextmanager
def filled(lab: Lab) -> Iterator[tuple[Standing, float]]:
    """The services in a lab, in force on every node, and seconds that it took.

    Raises:
        DeltaplaneError: a service is away, or it takes too long.
    """
    standing = Standing(lab)
    started = time.monotonic()
    subject = enforcement.Subject(revision=standing.fill())
    enforcement.await_enforced(lab.client, subject, started=started, seconds=FILL_SECONDS)
    yield standing, time.monotonic() - started


def program(
    lab: Lab, count: int, chance: random.Random, progress: Callable[[str], None]
) -> Programmed:
    """Lets so many backends go and come back, every second one of the large service.

    Raises:
        DeltaplaneError: a service is away, or a change does not reach every node in time.
    """
    with (
        filled(lab) as (standing, seconds),
        contextlib.closing(Counts(lab, standing)) as counts,
        ThreadPoolExecutor(1) as pool,
    ):
        progress(f"801 services with 20,000 backends in both families: {seconds:.1f} s")
        found = Programmed(fill=seconds)
        *small, large = standing.numbers
        for turn in range(count):
            number = large if turn % 2 else chance.choice(small)
            times = found.large if turn % 2 else found.small
            place = chance.randrange(len(standing.backends(number, FAMILIES[0])))
            for ready in (False, True):
                standing.make_ready(number, place, ready=ready)
                took, written = _measure(standing, counts, pool, number)
                times.append(took)
                found.written.append(written)
    return found


def _measure(
    standing: Standing, counts: Counts, pool: ThreadPoolExecutor, number: int
) -> tuple[float, float]:
    """Writes what has changed of a service; seconds to the last kernel, and to the answer."""
    wanted = sum(endpoint.ready for endpoint in standing.backends(number, FAMILIES[0]))
    started = time.perf_counter()

    def write() -> float:
        standing.flush()
        return time.perf_counter() - started

    writing = pool.submit(write)
    while not counts.all_are(number, wanted):
        if time.perf_counter() - started > WAIT_SECONDS:
            raise Unavailable(f"service {number} does not have {wanted} backends everywhere")
        time.sleep(POLL_SECONDS)
    took = time.perf_counter() - started
    return took, writing.result()
