"""One backend from what several slices say of one address."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deltaplane.model.objects import BackendObject, BackendState
from deltaplane.model.ports import Protocol
from deltaplane.model.service import Service, SliceEndpoint, SlicePort


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one slice says of an address. slice_key: namespace and name of the slice."""

    slice_key: tuple[str, str]
    ports: tuple[SlicePort, ...]
    endpoint: SliceEndpoint


def merge(
    service: Service,
    address: bytes,
    said: Iterable[Contribution],
    nodes: Mapping[str, int],
) -> BackendObject | None:
    """The backend; None: it may not be used at all, or has none of the service's ports.

    Who is ready wins over who is going; a port that both have is that of the ready one, and of two
    equals that with the smaller number. Node and hints are those of the winners; the first slice by
    name that knows the node says which it is.

    Args:
        service: that the slices belong to.
        address: that all the endpoints have.
        said: in any order.
        nodes: numbers of nodes by name.
    """
    wanted = {(port.name, port.protocol) for port in service.ports}
    states = [
        (state, item)
        for item in said
        if (state := state_of(item.endpoint)) is not None
        and any((port.name, port.protocol) in wanted for port in item.ports)
    ]
    if not states:
        return None
    states.sort(key=lambda it: (it[0], it[1].slice_key))
    best = states[0][0]
    winners = [item.endpoint for state, item in states if state is best]
    ports: dict[tuple[str, Protocol], tuple[BackendState, int]] = {}
    for state, item in states:
        for port in item.ports:
            key = port.name, port.protocol
            if key in wanted:
                ports[key] = min(ports.get(key, (state, port.number)), (state, port.number))
    return BackendObject(
        service=service.number,
        address=address,
        ports=tuple(
            sorted(
                SlicePort(name=name, protocol=protocol, number=number)
                for (name, protocol), (_, number) in ports.items()
            )
        ),
        state=best,
        node_index=next((nodes.get(it.node, 0) for it in winners if it.node), 0),
        zones=tuple(sorted({zone for it in winners for zone in it.zones})),
        nodes=tuple(sorted({node for it in winners for node in it.nodes})),
    )


def state_of(endpoint: SliceEndpoint) -> BackendState | None:
    """How an endpoint may be used; None: not at all.

    What is both ready and going is ready: its service publishes what is not ready, too.
    """
    if endpoint.ready:
        return BackendState.READY
    if endpoint.serving and endpoint.terminating:
        return BackendState.TERMINATING
    return None
