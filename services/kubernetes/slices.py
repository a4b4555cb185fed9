"""Endpoint slices → their records. Pure.

The rules, and why of several addresses the first counts, are those of
`deltaplane.manifest.endpointslices`.
"""

import functools

from deltaplane.model import names
from deltaplane.model.addresses import format_address, parse_address, special_mistake
from deltaplane.model.ports import Protocol
from deltaplane.model.service import EndpointSlice, SliceEndpoint, SlicePort
from services.kubernetes import kinds
from services.kubernetes.translating import NOTHING, Translation, failed

SERVICE_NAME = "kubernetes.io/service-name"
"""Label that says which service a slice belongs to."""

_SIZES = {"IPv4": 4, "IPv6": 16}
"""Bytes of an address."""
_PROTOCOLS = {"TCP": Protocol.TCP, "UDP": Protocol.UDP, "SCTP": Protocol.SCTP}


def translate_slice(item: kinds.EndpointSlice) -> Translation:
    """A slice of addresses that belongs to a service."""
    metadata = item.metadata
    service = metadata.labels.get(SERVICE_NAME, "")
    size = _SIZES.get(item.address_type, 0)
    # Of no service nobody's, and what is of names (FQDN) no packet goes to.
    if not service or not size:
        return NOTHING
    if reason := names.service_name_mistake(service):
        return failed(f'metadata.labels[{SERVICE_NAME}]: "{service}" {reason}')
    endpoints: list[SliceEndpoint] = []
    for index, given in enumerate(item.endpoints or ()):
        try:
            address = _address(given.addresses[0])
        except (IndexError, ValueError) as error:
            return failed(f"endpoints[{index}].addresses: {error}")
        if len(address) != size:
            shown = format_address(address)
            problem = f'endpoints[{index}].addresses: "{shown}" is not of {item.address_type}'
            return failed(problem)
        endpoints.append(_endpoint(given, address))
    return Translation(
        record=EndpointSlice(
            namespace=metadata.namespace,
            name=metadata.name,
            service=service,
            ports=_ports(item),
            endpoints=tuple(endpoints),
        )
    )


@functools.lru_cache(maxsize=32768)  # a slice comes again whenever one of its endpoints changes
def _address(text: str) -> bytes:
    address = parse_address(text)
    if reason := special_mistake(address):
        raise ValueError(f'"{text}" {reason}')
    return address


def _endpoint(given: kinds.SliceEndpoint, address: bytes) -> SliceEndpoint:
    ready, serving, terminating = _conditions(given.conditions)
    hints, target = given.hints, given.target_ref
    is_pod = target is not None and target.kind == "Pod" and target.namespace and target.name
    return SliceEndpoint(
        address=address,
        ready=ready,
        serving=serving,
        terminating=terminating,
        node=given.node_name or "",
        zones=_hinted(hints.for_zones) if hints else (),
        nodes=_hinted(hints.for_nodes) if hints else (),
        hostname=given.hostname or "",
        target=f"{target.namespace}/{target.name}" if target and is_pod else "",
    )


def _conditions(given: kinds.EndpointConditions | None) -> tuple[bool, bool, bool]:
    """Ready, serving, terminating: absent ones are true, as ready, and false."""
    if given is None:
        return True, True, False
    ready = given.ready is not False
    serving = ready if given.serving is None else given.serving
    return ready, serving, given.terminating is True


def _hinted(items: list[kinds.Named] | None) -> tuple[str, ...]:
    return tuple(sorted({item.name for item in items})) if items else ()


def _ports(item: kinds.EndpointSlice) -> tuple[SlicePort, ...]:
    """A port without a number stands for all of them, which no service of ours can have."""
    return tuple(
        SlicePort(
            name=port.name or "",
            protocol=_PROTOCOLS.get(port.protocol or "TCP", Protocol.TCP),
            number=port.port,
        )
        for port in item.ports or ()
        if port.port
    )
