"""All services of a node: changes come in, drafts go out. Pure.

Indexes make one changed backend cost as much as it changes: its service, the groups of its family,
one place in each of their lists.
"""

from bisect import insort
from collections.abc import Collection, Iterable, Mapping
from operator import itemgetter
from typing import NamedTuple

from deltaplane.delta.changes import ObjectKey
from deltaplane.delta.view import View
from deltaplane.model.objects import BackendObject, Kind, ServiceObject
from nodeagent.dataplane.balancing import Balancing, Frontend, FrontendKey
from nodeagent.services import adopting
from nodeagent.services.adopting import Adoption
from nodeagent.services.choosing import Where
from nodeagent.services.drafts import Draft
from nodeagent.services.frontends import Entrance, entrances
from nodeagent.services.holdings import Group, Holders, Holding
from nodeagent.services.maglev import Fill


class Counts(NamedTuple):
    """How much there is."""

    services: int
    backends: int
    frontends: int


class HealthPort(NamedTuple):
    """What a health check of a service is told.

    Attributes:
        port: where.
        namespace, name: of the service.
        ready: its ready backends on this node.
    """

    port: int
    namespace: str
    name: str
    ready: int


class Balancer:
    """The services of one node, and the lists and frontends that the kernel is to hold.

    Args:
        where: this node.
        fill: makes tables.

    What a draft says is taken for written. Should that fail, `adopt` starts again from a dump.
    """

    def __init__(self, where: Where, fill: Fill) -> None:
        self.where = where
        self._fill = fill
        self._values: dict[int, ServiceObject] = {}
        self._backends: dict[int, dict[bytes, BackendObject]] = {}
        self._claims: dict[FrontendKey, list[int]] = {}
        self._contested: set[FrontendKey] = set()
        self._checked: set[int] = set()
        self._start(adopting.NOTHING)

    # --- inputs ----------------------------------------------------------------------------------

    def learn(self, services: Iterable[ServiceObject], backends: Iterable[BackendObject]) -> None:
        """Takes all that there is; `adopt` follows."""
        self._values = {value.number: value for value in services}
        self._backends = {}
        for value in backends:
            self._backends.setdefault(value.service, {})[value.address] = value
        self._claims, self._contested, self._checked = {}, set(), set()
        for number, service in self._values.items():
            self._check(number, service)
            for one in entrances(service):
                self._claim(one.key, number)

    def adopt(self, held: Balancing, full: frozenset[int] = frozenset()) -> Draft:
        """Makes of what the kernel holds what it should hold, and moves nothing without need.

        Args:
            held: a dump.
            full: services for which the kernel has no room: they get nothing new.
        """
        adoption = self._start(held)
        scratch = Draft()
        for number, value in self._values.items():
            holding = self._holdings[number] = Holding(number, self.where, self._holders)
            holding.growing = number not in full
            holding.become(value, self._backends.get(number, {}), adoption.make, scratch)
        before = {frontend.key: frontend for frontend in held.frontends}
        for number, holding in self._holdings.items():
            for frontend in holding.frontends():
                if self._claims[frontend.key][0] == number and (
                    holding.growing or frontend.key in before
                ):
                    self._frontends[frontend.key] = frontend
        draft = adopting.everything(
            self._holdings.values(), self._frontends.values(), held, self._fill
        )
        draft.gone = adopting.lost(held, self._holders)
        return draft

    def set_service(self, number: int, value: ServiceObject | None, draft: Draft) -> None:
        """A service comes, changes or goes."""
        before = self._values.pop(number, None)
        if value is not None:
            self._values[number] = value
        self._check(number, value)
        old = {one.key for one in entrances(before)} if before is not None else set()
        new = {one.key for one in entrances(value)} if value is not None else set()
        holding = self._holdings.get(number)
        if value is not None:
            if holding is None:
                holding = self._holdings[number] = Holding(number, self.where, self._holders)
            holding.become(value, self._backends.get(number, {}), self._adoption.make, draft)
        elif holding is not None:
            holding.leave(draft)
            del self._holdings[number]
        for key in old - new:
            self._release(key, number, draft)
        for key in new - old:
            self._claim(key, number)
        if value is not None and holding is not None:
            self._publish(holding, None, draft)

    def set_backend(
        self, number: int, address: bytes, value: BackendObject | None, draft: Draft
    ) -> None:
        """A backend of a service comes, changes or goes."""
        known = self._backends.setdefault(number, {})
        if value is None:
            known.pop(address, None)
            if not known:
                del self._backends[number]
        else:
            known[address] = value
        holding = self._holdings.get(number)
        if holding is not None:
            self._publish(holding, holding.replace(address, value, draft), draft)

    def advance(self, view: View, changed: Iterable[ObjectKey]) -> Draft:
        """Takes a barrier; what is to be written."""
        draft = Draft()
        numbers: dict[int, None] = {}
        for kind, key in changed:
            number = int.from_bytes(key[:4])
            if kind is Kind.SERVICE:
                numbers[number] = None
            elif kind is Kind.BACKEND:
                held = view.backends.get(key)
                value = held.value if held is not None else None
                self.set_backend(number, key[4:], value, draft)
        for number in numbers:
            service = view.services.get(number.to_bytes(4))
            self.set_service(number, service.value if service is not None else None, draft)
        return draft

    def parts(self, draft: Draft) -> list[tuple[int, Draft]]:
        """A draft of `adopt` by service, ascending; 0, first: what nobody has any more."""
        owners = {
            places.list_id: number
            for number, holding in self._holdings.items()
            for group in holding.groups.values()
            for places in group.lists.values()
        }
        parts: dict[int, Draft] = {}

        def part(number: int) -> Draft:
            return parts.setdefault(number, Draft())

        for place, backend in draft.slots.items():
            part(owners.get(place[0], 0)).slots[place] = backend
        for member, wanted in draft.members.items():
            part(owners.get(member.list_id, 0)).members[member] = wanted
        for list_id, places in draft.tables.items():
            part(owners.get(list_id, 0)).tables[list_id] = places
        for source, wanted in draft.sources.items():
            part(source.service if source.service in self._values else 0).sources[source] = wanted
        for key, frontend in draft.frontends.items():
            part(frontend.service if frontend is not None else 0).frontends[key] = frontend
        part(0).gone = draft.gone
        return sorted(parts.items(), key=itemgetter(0))

    # --- answers ---------------------------------------------------------------------------------

    @property
    def numbers(self) -> Collection[int]:
        """Of all services."""
        return self._values.keys()

    def counts(self) -> Counts:
        """How much there is."""
        return Counts(
            len(self._values), sum(map(len, self._backends.values())), len(self._frontends)
        )

    def health_ports(self) -> list[HealthPort]:
        """What health checks are told, ordered by port."""
        return sorted(
            HealthPort(
                value.health_check_node_port,
                value.namespace,
                value.name,
                self._holdings[number].local_ready if number in self._holdings else 0,
            )
            for number in self._checked
            for value in (self._values[number],)
        )

    def shadowed(self) -> dict[int, FrontendKey]:
        """Services that do not answer somewhere because an older one does: one place of each."""
        return {number: key for key in sorted(self._contested) for number in self._claims[key][1:]}

    # --- inside ----------------------------------------------------------------------------------

    def _start(self, held: Balancing) -> Adoption:
        self._holders: Holders = {}
        self._holdings: dict[int, Holding] = {}
        self._frontends: dict[FrontendKey, Frontend] = {}
        self._adoption = Adoption(held, self._wanted())
        return self._adoption

    def _wanted(self) -> Mapping[FrontendKey, tuple[int, Entrance]]:
        return {
            one.key: (number, one)
            for number, value in self._values.items()
            for one in entrances(value)
            if self._claims[one.key][0] == number
        }

    def _check(self, number: int, value: ServiceObject | None) -> None:
        if value is not None and value.health_check_node_port:
            self._checked.add(number)
        else:
            self._checked.discard(number)

    def _claim(self, key: FrontendKey, number: int) -> None:
        """The service with the lowest number, which is the oldest, has a frontend."""
        numbers = self._claims.setdefault(key, [])
        insort(numbers, number)
        if len(numbers) > 1:
            self._contested.add(key)

    def _release(self, key: FrontendKey, number: int, draft: Draft) -> None:
        numbers = self._claims[key]
        numbers.remove(number)
        if len(numbers) < 2:
            self._contested.discard(key)
        if numbers:
            heir = self._holdings.get(numbers[0])
            if heir is not None:
                # In the draft of who leaves: what it writes first must be there, and is.
                self._publish(heir, None, draft)
            return
        del self._claims[key]
        if self._frontends.pop(key, None) is not None:
            draft.frontends[key] = None

    def _publish(self, holding: Holding, groups: Iterable[Group] | None, draft: Draft) -> None:
        number = holding.value.number
        for frontend in holding.frontends(groups):
            key = frontend.key
            if self._claims[key][0] != number or self._frontends.get(key) == frontend:
                continue
            if not holding.growing and key not in self._frontends:
                continue
            self._frontends[key] = frontend
            draft.frontends[key] = frontend
