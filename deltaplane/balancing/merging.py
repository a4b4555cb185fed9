"""One backend from what several slices say of one address."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from deltaplane.model.objects import BackendObject, BackendState
from deltaplane.model.ports import Protocol
from deltaplane.model.service import Service, SliceEndpoint, SlicePort

Ports = tuple[SlicePort, ...]


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one slice says of an address.

    Attributes:
        slice_key: namespace and name of the slice.
        ports: those of the slice that the service has, see `matching`.
        endpoint: with the address.
    """

    slice_key: tuple[str, str]
    ports: Ports
    endpoint: SliceEndpoint


def matching(service: Service, ports: Ports) -> Ports:
    """Those ports of a slice whose name and protocol are a port's of the service, ascending."""
    wanted = {(port.name, port.protocol) for port in service.ports}
    return tuple(sorted(port for port in ports if (port.name, port.protocol) in wanted))


def merge(
    number: int, address: bytes, said: Sequence[Contribution], nodes: Mapping[str, int]
) -> BackendObject | None:
    """The backend; None: it may not be used at all, or has none of the service's ports.

    Who is ready wins over who is going; a port that both have is that of the ready one, and of two
    equals that with the smaller number. Node and hints are those of the winners; the first slice by
    name that knows the node says which it is.

    Args:
        number: of the service.
        address: that all the endpoints have.
        said: in any order.
        nodes: numbers of nodes by name.
    """
    states = [
        (state, item)
        for item in said
        if item.ports and (state := state_of(item.endpoint)) is not None
    ]
    if len(states) > 1:
        states.sort(key=lambda it: (it[0], it[1].slice_key))
    elif not states:
        return None
    best, first = states[0]
    winners = [item.endpoint for state, item in states if state is best]
    return BackendObject(
        service=number,
        address=address,
        ports=first.ports if len(states) == 1 else _united(states),
        state=best,
        node_index=next((nodes.get(it.node, 0) for it in winners if it.node), 0),
        zones=_hints(it.zones for it in winners),
        nodes=_hints(it.nodes for it in winners),
    )


def _united(states: Iterable[tuple[BackendState, Contribution]]) -> Ports:
    best: dict[tuple[str, Protocol], tuple[BackendState, SlicePort]] = {}
    for state, item in states:
        for port in item.ports:
            key = port.name, port.protocol
            best[key] = min(best.get(key, (state, port)), (state, port))
    return tuple(sorted(port for _, port in best.values()))


def _hints(said: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    found = {hint for hints in said for hint in hints}
    return tuple(sorted(found)) if found else ()


def state_of(endpoint: SliceEndpoint) -> BackendState | None:
    """How an endpoint may be used; None: not at all.

    What is both ready and going is ready: its service publishes what is not ready, too.
    """
    if endpoint.ready:
        return BackendState.READY
    if endpoint.serving and endpoint.terminating:
        return BackendState.TERMINATING
    return None
