"""Makes the kernel's maps of services agree with the view, next to what `apply` does for policies.

A service for which a map has no room keeps what it has, less what goes, and is reported; the
others go on. It is tried again at the next barrier.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import assert_never

from deltaplane.errors import Refused
from deltaplane.model.addresses import AddressPair, format_address, from_mapped
from deltaplane.model.objects import Kind
from deltaplane.runtime import log, metrics
from nodeagent.cni.netconf import HostPort
from nodeagent.dataplane.balancing import Backend, FrontendKey
from nodeagent.dataplane.port import CapacityError, DataPlane
from nodeagent.services import hostports
from nodeagent.services import steps as s
from nodeagent.services.adopting import undone
from nodeagent.services.balancer import Balancer, Counts, HealthPort
from nodeagent.services.choosing import Where
from nodeagent.services.drafts import Draft
from nodeagent.services.maglev import MAX_PLACES, Fill, table
from nodeagent.stream import BarrierReached, Refusal
from nodeagent.worker import Worker

_SERVICES = metrics.gauge("services", "Services that answer on an address")
_BACKENDS = metrics.gauge("service_backends", "Backends of services, wherever they are")
_FRONTENDS = metrics.gauge("service_frontends", "Addresses and ports of services on this node")
_REFUSED = metrics.gauge("services_refused", "Services that the kernel's maps have no room for")
_FORGOTTEN = metrics.counter(
    "service_flows_moved", "UDP and SCTP flows whose backend has gone, and that get another one"
)

EARLY = frozenset({"slots", "members"})
"""Maps that are written before a table or a frontend says so."""


def execute(step: s.Step, dataplane: DataPlane, fill: Fill) -> None:  # noqa: C901, PLR0912 - one case per step
    """Runs one step.

    Raises:
        CapacityError: a map is full.
        OSError: the kernel refuses.
    """
    match step:
        case s.SetSources(sources):
            dataplane.upsert_sources(sources)
        case s.SetMembers(members):
            dataplane.upsert_members(members)
        case s.SetSlots(slots):
            dataplane.upsert_slots(slots)
        case s.WriteTables(tables):
            dataplane.write_tables(_made(tables, fill))
        case s.SetFrontends(frontends):
            dataplane.upsert_frontends(frontends)
        case s.DeleteFrontends(keys):
            dataplane.delete_frontends(keys)
        case s.Synchronize():
            dataplane.synchronize()
        case s.DeleteSlots(places):
            dataplane.delete_slots(places)
        case s.DeleteMembers(members):
            dataplane.delete_members(members)
        case s.DeleteTables(list_ids):
            dataplane.delete_tables(list_ids)
        case s.DeleteSources(sources):
            dataplane.delete_sources(sources)
        case s.ForgetBackends(gone):
            _FORGOTTEN.inc(dataplane.forget_backends(gone))
        case _:
            assert_never(step)


def _made(
    tables: Iterable[tuple[int, Iterable[tuple[Backend, int]]]], fill: Fill
) -> Iterator[tuple[int, bytes]]:
    for list_id, backends in tables:
        made = table(backends, fill)
        if made is None:
            raise CapacityError("tables", MAX_PLACES)
        yield list_id, made


class Balancing:
    """The only one that changes the maps of services.

    Attributes:
        refused: services that are not as they should be.
        counts: how much there is; nothing before the first complete view.
        health_ports: what health checks are told.
    """

    def __init__(
        self,
        dataplane: DataPlane,
        worker: Worker,
        *,
        node: str,
        own: AddressPair,
        zone: str,
        fill: Fill,
    ) -> None:
        self.refused: tuple[Refusal, ...] = ()
        self.counts = Counts(0, 0, 0)
        self.health_ports: list[HealthPort] = []
        self._dataplane = dataplane
        self._worker = worker
        self._fill = fill
        self._own = own
        self._exposed: dict[int, tuple[AddressPair, tuple[HostPort, ...]]] = {}
        self._balancer = Balancer(Where(node_index=0, node=node, zone=zone), fill)
        self._complete = False
        self._full: dict[int, str] = {}

    async def barrier(self, reached: BarrierReached, node_index: int) -> None:
        """Takes a barrier; the first complete one adopts what the kernel holds.

        Args:
            reached: nothing happens before its view is complete.
            node_index: number of this node.
        """
        if reached.complete:
            await self._worker.call(self._take, reached, node_index)

    async def expose(self, number: int, pod: AddressPair, ports: tuple[HostPort, ...]) -> None:
        """Makes ports of this node lead to an interface, as soon as a complete view is there.

        Raises:
            Refused: the kernel has no room for them.
        """
        if ports:
            await self._worker.call(self._expose, number, pod, ports)

    async def withdraw(self, number: int) -> None:
        """Ports of this node do not lead to an interface any more."""
        if number in self._exposed:
            await self._worker.call(self._withdraw, number)

    async def recall(self) -> dict[int, tuple[HostPort, ...]]:
        """Host ports by number of their interface, as the kernel has them from before."""
        held = await self._worker.call(self._dataplane.balancing)
        return hostports.recall(held, self._own)

    def missed(self) -> None:
        """A barrier has not come here: the next one is compared as a whole."""
        self._complete = False

    async def reread(self) -> None:
        """Reads the maps back and makes them what they should be, whoever has written to them."""
        if self._complete:
            await self._worker.call(self._start_again)

    # --- in the worker thread --------------------------------------------------------------------

    def _take(self, reached: BarrierReached, node_index: int) -> None:
        balancer = self._balancer
        first, self._complete = not self._complete, True
        moved = balancer.where.node_index != node_index
        balancer.where = replace(balancer.where, node_index=node_index)
        if first:
            own = [pair for number in self._exposed for pair in self._host_ports(number)]
            services = (held.value for held in reached.view.services.values())
            backends = (held.value for held in reached.view.backends.values())
            balancer.learn(
                [*services, *{one.number: one for one, _ in own}.values()],
                [*backends, *(one for _, one in own)],
            )
        draft = Draft() if first else balancer.advance(reached.view, reached.changed)
        if first or moved or self._full:
            self._start_again()
        else:
            self._write(draft)

    def _expose(self, number: int, pod: AddressPair, ports: tuple[HostPort, ...]) -> None:
        self._exposed[number] = pod, ports
        if not self._complete:
            return
        draft, made = Draft(), list(self._host_ports(number))
        for service, backend in made:
            self._balancer.set_backend(service.number, backend.address, backend, draft)
        for service in {service.number: service for service, _ in made}.values():
            self._balancer.set_service(service.number, service, draft)
        self._write(draft)
        for service, _ in made:
            if (reason := self._full.get(service.number)) is not None:
                raise Refused(f"no room for host ports: {reason}")

    def _withdraw(self, number: int) -> None:
        made = list(self._host_ports(number))
        del self._exposed[number]
        if not self._complete:
            return
        draft = Draft()
        for gone in {service.number for service, _ in made}:
            self._balancer.set_service(gone, None, draft)
        for service, backend in made:
            self._balancer.set_backend(service.number, backend.address, None, draft)
        self._write(draft)

    def _host_ports(self, number: int) -> Iterator[hostports.Pair]:
        pod, ports = self._exposed[number]
        index = self._balancer.where.node_index
        return hostports.services(number, pod, ports, own=self._own, node_index=index)

    def _write(self, draft: Draft) -> None:
        try:
            self._run(draft)
        except (CapacityError, OSError) as error:
            log.get().error("services_not_written", reason=str(error))
            self._one_by_one()
        self._tell()

    def _start_again(self) -> None:
        """From a dump: after a start, in a repair, and to try what had no room."""
        self._full = {}
        self._write(self._balancer.adopt(self._dataplane.balancing()))

    def _one_by_one(self) -> None:
        """Finds the services for which there is no room, newest last, and writes the others."""
        self._full = {}
        # First what nobody was led to yet goes: it takes the room of others.
        everyone = frozenset(self._balancer.numbers)
        self._run(self._balancer.adopt(self._dataplane.balancing(), everyone))
        held = self._dataplane.balancing()
        for number, part in self._balancer.parts(self._balancer.adopt(held)):
            try:
                self._run(part)
            except CapacityError as error:
                self._full[number] = str(error)
                if error.map_name in EARLY:
                    # Room for the next ones; later maps are put right at the end.
                    self._run(undone(part, held))
            except OSError as error:
                self._full[number] = str(error)
        try:
            held = self._dataplane.balancing()
            self._run(self._balancer.adopt(held, frozenset(self._full)))
        except (CapacityError, OSError) as error:
            # Nothing grows any more: what is left to do is in the next barrier's way, too.
            log.get().error("services_left", reason=str(error))
            self._full.setdefault(0, str(error))

    def _run(self, draft: Draft) -> None:
        for step in s.steps(draft):
            execute(step, self._dataplane, self._fill)

    def _tell(self) -> None:
        balancer = self._balancer
        refused = {
            number: Refusal(
                kind=Kind.SERVICE, key=number.to_bytes(4), reason=reason, retryable=True
            )
            for number, reason in self._full.items()
            if number and not hostports.is_own(number)
        }
        for number, key in balancer.shadowed().items():
            if hostports.is_own(number):
                continue
            reason = f"an older service answers on {_text(key)}"
            refused.setdefault(
                number,
                Refusal(kind=Kind.SERVICE, key=number.to_bytes(4), reason=reason, retryable=False),
            )
        self.refused = tuple(refused.values())
        self.health_ports = balancer.health_ports()
        counts = self.counts = balancer.counts()
        _SERVICES.set(counts.services)
        _BACKENDS.set(counts.backends)
        _FRONTENDS.set(counts.frontends)
        _REFUSED.set(len(self._full))


def _text(key: FrontendKey) -> str:
    return f"{format_address(from_mapped(key.address))} port {key.port}"
