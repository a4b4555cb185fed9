"""The incremental compiler of backends.

    Service ────────────┐
    EndpointSlice ──────┼─► (service, address) that may have changed ──► BackendObject
    node name → number ─┘

Level, not edge: after any history of calls the backends are those of the last service, slice and
node of each name, whatever came first. A slice may come before its service.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from deltaplane.balancing.merging import Contribution, Ports, matching, merge
from deltaplane.model.objects import BackendObject, BackendState, Kind
from deltaplane.model.service import EndpointSlice, Service, ServiceType, SliceEndpoint

Reference = tuple[str, str]
"""Namespace and name, of a service or a slice."""

Endpoints = tuple[SliceEndpoint, ...]
"""Of one slice and address; hardly ever more than one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Balanced:
    """What changed since the last flush. removals: keys of objects.

    An object is never in both.
    """

    upserts: tuple[BackendObject, ...] = ()
    removals: tuple[tuple[Kind, bytes], ...] = ()


@dataclass(slots=True)
class _Group:
    """All that is known under the name of one service.

    Attributes:
        service: None: there are only slices yet.
        members: by address: by slice: its endpoints with that address.
        told: the backends of the last flush, by address.
        matched: ports of its slices that the service has; of those that were asked for.
    """

    service: Service | None = None
    members: dict[bytes, dict[Reference, Endpoints]] = field(default_factory=dict)
    told: dict[bytes, BackendObject] = field(default_factory=dict)
    matched: dict[Reference, Ports] = field(default_factory=dict)

    @property
    def addresses(self) -> Iterator[bytes]:
        """Every address that is, or was, a backend."""
        yield from self.members.keys() | self.told.keys()


class Compiler:
    """Backends of all services.

    Attributes:
        withdraws: since the last flush an address ceased to be ready, so that clients are to be
            sent elsewhere soon.
    """

    def __init__(self) -> None:
        self.withdraws = False
        self._groups: dict[Reference, _Group] = {}
        self._slices: dict[Reference, EndpointSlice] = {}
        self._nodes: dict[str, int] = {}
        # Where a node is named, so that its number costs only what is there.
        self._on_node: dict[str, dict[tuple[Reference, bytes], int]] = {}
        # Who says that a number is his. The store gives each once; more than one is a broken store.
        self._claims: dict[int, set[Reference]] = {}
        self._dirty: dict[tuple[Reference, bytes], None] = {}
        self._touched: set[Reference] = set()

    # --- facts -----------------------------------------------------------------------------------

    def set_service(self, service: Service) -> None:
        """Adds or replaces the service of this name."""
        reference = service.namespace, service.name
        group = self._group(reference)
        old, group.service = group.service, service
        if _relevant(old) != _relevant(service):
            group.matched.clear()
            self._claim(reference, old, service)
            self._mark(reference, group.addresses)

    def delete_service(self, namespace: str, name: str) -> None:
        """Removes a service; its slices stay, and wait for another one of this name."""
        group = self._groups.get((namespace, name))
        if group is None or group.service is None:
            return
        old, group.service = group.service, None
        self._touched.add((namespace, name))
        self._claim((namespace, name), old, None)
        self._mark((namespace, name), group.addresses)

    def set_slice(self, item: EndpointSlice) -> None:
        """Adds or replaces the slice of this name. Its service may be unknown."""
        key = item.namespace, item.name
        old = self._slices.get(key)
        self._slices[key] = item
        if old is not None and old.service != item.service:
            self._change(key, old, None)
            old = None
        self._change(key, old, item)

    def delete_slice(self, namespace: str, name: str) -> None:
        """Removes a slice."""
        old = self._slices.pop((namespace, name), None)
        if old is not None:
            self._change((namespace, name), old, None)

    def set_node(self, name: str, index: int) -> None:
        """Says which number a node has, 1 or more."""
        if self._nodes.get(name) != index:
            self._nodes[name] = index
            self._dirty.update(dict.fromkeys(self._on_node.get(name, ())))

    def delete_node(self, name: str) -> None:
        """The node of this name has no number any more."""
        if self._nodes.pop(name, None) is not None:
            self._dirty.update(dict.fromkeys(self._on_node.get(name, ())))

    # --- what follows ----------------------------------------------------------------------------

    def flush(self) -> Balanced:
        """What changed since the last flush."""
        upserts: dict[bytes, BackendObject] = {}
        removals: dict[bytes, None] = {}
        for reference, address in self._dirty:
            group = self._groups[reference]
            old, new = group.told.get(address), self._compile(reference, group, address)
            if old == new:
                continue
            if old is not None and (new is None or new.service != old.service):
                removals[old.key] = None
            if new is None:
                del group.told[address]
            else:
                group.told[address] = new
                upserts[new.key] = new
        self._dirty.clear()
        self._forget()
        self.withdraws = False
        return Balanced(
            upserts=tuple(upserts.values()),
            # A number may go from one service to another, in a store that is being put right.
            removals=tuple((Kind.BACKEND, key) for key in removals if key not in upserts),
        )

    def _compile(self, reference: Reference, group: _Group, address: bytes) -> BackendObject | None:
        service, slices = group.service, group.members.get(address)
        if service is None or slices is None or not self._answers(reference, service, address):
            return None
        said = [
            Contribution(key, self._ports(group, service, key), endpoint)
            for key, endpoints in slices.items()
            for endpoint in endpoints
        ]
        return merge(service.number, address, said, self._nodes)

    def _ports(self, group: _Group, service: Service, key: Reference) -> Ports:
        found = group.matched.get(key)
        if found is None:
            found = group.matched[key] = matching(service, self._slices[key].ports)
        return found

    def _answers(self, reference: Reference, service: Service, address: bytes) -> bool:
        """Whether a service has frontends of the family of an address."""
        if service.type is ServiceType.EXTERNAL_NAME:
            return False
        claims = self._claims[service.number]
        if len(claims) > 1 and min(claims) != reference:
            return False
        return len(address) in map(len, service.cluster_ips)

    # --- bookkeeping -----------------------------------------------------------------------------

    def _claim(self, reference: Reference, old: Service | None, new: Service | None) -> None:
        """Moves a claim, and looks again at whoever claims the same number."""
        for service, is_new in ((old, False), (new, True)):
            if service is None:
                continue
            claims = self._claims.setdefault(service.number, set())
            rivals = claims - {reference}
            if is_new:
                claims.add(reference)
            else:
                claims.discard(reference)
            for rival in rivals:
                self._mark(rival, self._groups[rival].addresses)
            if not claims:
                del self._claims[service.number]

    def _change(self, key: Reference, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """Takes what became of one slice of one service."""
        of = new or old
        assert of is not None
        reference = of.namespace, of.service
        group = self._group(reference)
        group.matched.pop(key, None)
        before, after = _by_address(old), _by_address(new)
        same_ports = old is not None and new is not None and old.ports == new.ports
        for address in before.keys() | after.keys():
            was, now = before.get(address, ()), after.get(address, ())
            if was == now and same_ports:
                continue
            self._dirty[reference, address] = None
            self._note_nodes(reference, address, was, now)
            told = group.told.get(address)
            if told is not None and told.state is BackendState.READY:
                self.withdraws |= not any(it.ready for it in now)
            if now:
                group.members.setdefault(address, {})[key] = now
            elif was:
                slices = group.members[address]
                del slices[key]
                if not slices:
                    del group.members[address]

    def _note_nodes(
        self, reference: Reference, address: bytes, was: Endpoints, now: Endpoints
    ) -> None:
        for endpoints, step in ((now, 1), (was, -1)):
            for endpoint in endpoints:
                if not endpoint.node:
                    continue
                users = self._on_node.setdefault(endpoint.node, {})
                count = users.get((reference, address), 0) + step
                if count:
                    users[reference, address] = count
                else:
                    del users[reference, address]
                if not users:
                    del self._on_node[endpoint.node]

    def _mark(self, reference: Reference, addresses: Iterable[bytes]) -> None:
        self._dirty.update(dict.fromkeys((reference, address) for address in addresses))

    def _group(self, reference: Reference) -> _Group:
        self._touched.add(reference)
        return self._groups.setdefault(reference, _Group())

    def _forget(self) -> None:
        """Drops groups of which nothing is left."""
        for reference in self._touched:
            group = self._groups.get(reference)
            if group is not None and group.service is None and not group.members:
                del self._groups[reference]
        self._touched.clear()


def _by_address(item: EndpointSlice | None) -> Mapping[bytes, Endpoints]:
    found: dict[bytes, Endpoints] = {}
    for endpoint in item.endpoints if item is not None else ():
        found[endpoint.address] = (*found.get(endpoint.address, ()), endpoint)
    return found


def _relevant(service: Service | None) -> object:
    """What of a service its backends depend on."""
    if service is None:
        return None
    ports = frozenset((port.name, port.protocol) for port in service.ports)
    families = frozenset(map(len, service.cluster_ips))
    return service.number, service.type is ServiceType.EXTERNAL_NAME, families, ports
