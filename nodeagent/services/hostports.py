"""Ports of this node that lead to a pod: services that no other node knows. Pure."""

from collections.abc import Collection, Iterable, Iterator

from deltaplane.model.addresses import AddressPair, from_mapped
from deltaplane.model.objects import BackendObject, ServiceObject
from deltaplane.model.ports import Protocol
from deltaplane.model.service import ServicePort, SlicePort
from nodeagent.cni.netconf import MAX_HOST_ADDRESSES, HostPort
from nodeagent.dataplane.balancing import Balancing

FIRST_NUMBER = 1 << 31
"""Services of this node have numbers from here on; those of the cluster never get so far."""

Pair = tuple[ServiceObject, BackendObject]
"""A service and one of its backends."""


def is_own(service: int) -> bool:
    """Whether a number is that of a host port."""
    return service >= FIRST_NUMBER


def services(
    number: int,
    pod: AddressPair,
    ports: Iterable[HostPort],
    *,
    own: AddressPair,
    node_index: int,
) -> Iterator[Pair]:
    """What an interface's host ports come to.

    Args:
        number: of the interface.
        pod: its addresses.
        ports: as the runtime asks for them.
        own: this node's addresses.
        node_index: this node's number.
    """
    by_address: dict[bytes, list[HostPort]] = {}
    for port in ports:
        by_address.setdefault(port.host_address, []).append(port)
    for place, (address, group) in enumerate(sorted(by_address.items())):
        wanted = _addresses(address, own)
        service = FIRST_NUMBER + number * MAX_HOST_ADDRESSES + place
        for target in pod:
            value = ServiceObject(
                number=service,
                namespace="",
                name=f"interface-{number}",
                ports=tuple(
                    ServicePort(name=_name(port), protocol=port.protocol, port=port.host_port)
                    for port in group
                ),
                external_ips=tuple(one for one in wanted if _fits(one, pod)),
                external_local=True,
            )
            yield (
                value,
                BackendObject(
                    service=service,
                    address=target,
                    ports=tuple(
                        SlicePort(
                            name=_name(port), protocol=port.protocol, number=port.container_port
                        )
                        for port in group
                    ),
                    node_index=node_index,
                ),
            )


def recall(held: Balancing, own: AddressPair) -> dict[int, tuple[HostPort, ...]]:
    """Host ports by number of their interface, as the kernel still has them.

    Args:
        held: a dump.
        own: this node's addresses.
    """
    targets = {slot.list_id: slot.backend.port for slot in held.slots if slot.slot == 0}
    groups: dict[int, dict[tuple[int, int, int], set[bytes]]] = {}
    for one in held.frontends:
        if is_own(one.service) and one.list_id in targets:
            port = one.key.protocol, one.key.port, targets[one.list_id]
            group = groups.setdefault(one.service - FIRST_NUMBER, {})
            group.setdefault(port, set()).add(from_mapped(one.key.address))
    found: dict[int, set[HostPort]] = {}
    for place, ports in groups.items():
        found.setdefault(place // MAX_HOST_ADDRESSES, set()).update(
            HostPort(
                host_address=_host_address(addresses, own),
                protocol=Protocol(protocol),
                host_port=host_port,
                container_port=container_port,
            )
            for (protocol, host_port, container_port), addresses in ports.items()
        )
    return {number: tuple(sorted(ports)) for number, ports in found.items()}


def _host_address(addresses: Collection[bytes], own: AddressPair) -> bytes:
    """Where a port listens that is found at these: undoes `_addresses`."""
    if len(addresses) > 1:
        return b""
    (address,) = addresses
    return bytes(len(address)) if address in own else address


def _addresses(address: bytes, own: AddressPair) -> tuple[bytes, ...]:
    """Where a host address listens: unspecified ones stand for the node's own."""
    if any(address):
        return (address,)
    return tuple(one for one in own if not address or len(one) == len(address))


def _fits(address: bytes, pod: AddressPair) -> bool:
    return any(len(address) == len(target) for target in pod)


def _name(port: HostPort) -> str:
    return f"{port.protocol.name.lower()}-{port.host_port}"
