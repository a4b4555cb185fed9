"""Ports of this node that lead to a pod: services that no other node knows. Pure."""

from collections.abc import Iterable, Iterator

from deltaplane.model.addresses import AddressPair
from deltaplane.model.objects import BackendObject, ServiceObject
from deltaplane.model.service import ServicePort, SlicePort
from nodeagent.cni.netconf import MAX_HOST_ADDRESSES, HostPort

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


def _addresses(address: bytes, own: AddressPair) -> tuple[bytes, ...]:
    """Where a host address listens: unspecified ones stand for the node's own."""
    if any(address):
        return (address,)
    return tuple(one for one in own if not address or len(one) == len(address))


def _fits(address: bytes, pod: AddressPair) -> bool:
    return any(len(address) == len(target) for target in pod)


def _name(port: HostPort) -> str:
    return f"{port.protocol.name.lower()}-{port.host_port}"
