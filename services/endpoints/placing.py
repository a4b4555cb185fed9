"""Which addresses and node ports services get, and whether somebody else has them.

A name stands for what a service takes, the key of its pointer in the store: see
`deltaplane.store.keys.cluster_ip` and `node_port`. Whether it is free is known of those that were
read; what is not known counts as free, and is read before anything is written.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from deltaplane.errors import Exhausted, Invalid
from deltaplane.model.addresses import format_address
from deltaplane.model.service import Service, ServicePort
from services.endpoints import ranges as choices
from services.endpoints.ranges import RandomBelow, Ranges
from services.endpoints.settling import CHOSEN, Settled


@dataclass(frozen=True, slots=True)
class Names:
    """How what is taken is called. address: of 4 or 16 bytes; node_port: of a number."""

    address: Callable[[bytes], str]
    node_port: Callable[[int], str]

    def of(self, service: Service) -> tuple[str, ...]:
        """All that a service takes, each once."""
        ports = {port.node_port for port in service.ports} | {service.health_check_node_port}
        taken = (
            *(self.address(ip) for ip in service.cluster_ips),
            *(self.node_port(number) for number in sorted(ports - {0})),
        )
        return tuple(dict.fromkeys(taken))


@dataclass(slots=True)
class Placement:
    """Hands out addresses and node ports to the services of one request, one after another.

    Attributes:
        owners: by name: whose it is, "namespace/name"; "": free. It follows what is placed.
        asked: names on which a placement depends.
    """

    names: Names
    ranges: Ranges
    owners: dict[str, str]
    below: RandomBelow
    asked: dict[str, None]

    @classmethod
    def over(
        cls, names: Names, ranges: Ranges, owners: Mapping[str, str], below: RandomBelow
    ) -> "Placement":
        """Begins. owners: what is known."""
        return cls(names, ranges, dict(owners), below, {})

    def place(self, settled: Settled, stored: Service | None, path: str) -> Service:
        """The service with all that was open chosen; what it does not need any more is free.

        Raises:
            Invalid: it wants what another one has, or what is in no range.
            Exhausted: there is nothing left to choose from.
        """
        me = settled.service.reference
        for name in self.names.of(stored) if stored is not None else ():
            if self._owner(name) == me:
                self.owners[name] = ""
        self._check_given(settled.service, stored, me, path)
        service = replace(
            settled.service,
            cluster_ips=tuple(
                ip if ip != CHOSEN else self._address(family, me)
                for ip, family in zip(settled.service.cluster_ips, settled.families, strict=False)
            ),
        )
        if settled.wants_node_ports:
            service = replace(service, ports=self._node_ports(service, me))
        if settled.wants_health_port:
            service = replace(service, health_check_node_port=self._node_port((), me))
        return service

    def _check_given(self, service: Service, stored: Service | None, me: str, path: str) -> None:
        had = frozenset(self.names.of(stored)) if stored is not None else frozenset()
        for index, ip in enumerate(service.cluster_ips):
            if ip == CHOSEN:
                continue
            where = f"{path}.cluster_ips[{index}]"
            name = self.names.address(ip)
            if name not in had and (reason := self.ranges.mistake(ip)):
                raise Invalid(where, f"{reason}; leave it out to get one")
            self._take(name, me, where, format_address(ip))
        for where, number in _given_ports(service, path):
            name = self.names.node_port(number)
            ports = self.ranges.node_ports
            if name not in had and not ports.first <= number <= ports.last:
                raise Invalid(where, f"{number} is outside the node port range {ports}")
            self._take(name, me, where, str(number))

    def _take(self, name: str, me: str, where: str, shown: str) -> None:
        owner = self._owner(name)
        if owner and owner != me:
            raise Invalid(
                where, f"{shown} is taken by service {owner}; choose another, or leave it out"
            )
        self.owners[name] = me

    def _address(self, family: int, me: str) -> bytes:
        prefix = self.ranges.prefix(family)
        assert prefix is not None, "settled before"
        for ip in choices.addresses(prefix, self.below):
            name = self.names.address(ip)
            if not self._owner(name):
                self.owners[name] = me
                return ip
        raise Exhausted(f"no address is left in the service range {prefix}")

    def _node_ports(self, service: Service, me: str) -> tuple[ServicePort, ...]:
        """One port number in two protocols gets one node port."""
        ports: list[ServicePort] = []
        for port in service.ports:
            number = port.node_port or self._node_port(
                [it.node_port for it in (*ports, *service.ports) if it.port == port.port], me
            )
            ports.append(replace(port, node_port=number))
        return tuple(ports)

    def _node_port(self, preferred: Iterable[int], me: str) -> int:
        if number := next(filter(None, preferred), 0):
            return number
        for number in choices.node_ports(self.ranges.node_ports, self.below):
            name = self.names.node_port(number)
            if not self._owner(name):
                self.owners[name] = me
                return number
        raise Exhausted(f"no node port is left in {self.ranges.node_ports}")

    def _owner(self, name: str) -> str:
        self.asked[name] = None
        return self.owners.get(name, "")


def _given_ports(service: Service, path: str) -> Iterator[tuple[str, int]]:
    for index, port in enumerate(service.ports):
        if port.node_port:
            yield f"{path}.ports[{index}].node_port", port.node_port
    if service.health_check_node_port:
        yield f"{path}.health_check_node_port", service.health_check_node_port
