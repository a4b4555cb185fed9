"""Ports and ICMP types of Cilium's rules."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from deltaplane.manifest.reading import Reader
from deltaplane.model import names
from deltaplane.model.ports import MAX_PORT, TRANSPORTS, PortRange, Protocol, merge_ranges

MAX_PORTS = 40
"""Of one entry of toPorts, and types of one entry of icmps; Cilium's limit."""
ANY = "ANY"
EVERY_PORT = 0
_NUMBER = re.compile("0|[1-9][0-9]{0,4}")
_PROTOCOLS = (*(protocol.name for protocol in TRANSPORTS), ANY)

_REFUSED = {
    "rules": "only addresses, ports and ICMP types are judged here, no requests",
    "listener": "there is no proxy here",
    "terminatingTLS": "there is no proxy here",
    "originatingTLS": "there is no proxy here",
    "serverNames": "only addresses, ports and ICMP types are judged here, no TLS handshakes",
}

_ICMP_FAMILIES = {"IPv4": Protocol.ICMP, "IPv6": Protocol.ICMPV6}
# Types by IANA's registries (ICMP and ICMPv6 Parameters), names as Cilium writes them.
ICMP_TYPES = {
    Protocol.ICMP: {
        "EchoReply": 0,
        "DestinationUnreachable": 3,
        "Redirect": 5,
        "Echo": 8,
        "EchoRequest": 8,
        "RouterAdvertisement": 9,
        "RouterSelection": 10,
        "TimeExceeded": 11,
        "ParameterProblem": 12,
        "Timestamp": 13,
        "TimestampReply": 14,
        "Photuris": 40,
        "ExtendedEchoRequest": 42,
        "ExtendedEchoReply": 43,
    },
    Protocol.ICMPV6: {
        "DestinationUnreachable": 1,
        "PacketTooBig": 2,
        "TimeExceeded": 3,
        "ParameterProblem": 4,
        "EchoRequest": 128,
        "EchoReply": 129,
        "MulticastListenerQuery": 130,
        "MulticastListenerReport": 131,
        "MulticastListenerDone": 132,
        "RouterSolicitation": 133,
        "RouterAdvertisement": 134,
        "NeighborSolicitation": 135,
        "NeighborAdvertisement": 136,
        "RedirectMessage": 137,
        "RouterRenumbering": 138,
        "ICMPNodeInformationQuery": 139,
        "ICMPNodeInformationResponse": 140,
        "InverseNeighborDiscoverySolicitation": 141,
        "InverseNeighborDiscoveryAdvertisement": 142,
        "HomeAgentAddressDiscoveryRequest": 144,
        "HomeAgentAddressDiscoveryReply": 145,
        "MobilePrefixSolicitation": 146,
        "MobilePrefixAdvertisement": 147,
        "DuplicateAddressRequestCodeSuffix": 157,
        "DuplicateAddressConfirmationCodeSuffix": 158,
        "ExtendedEchoRequest": 160,
        "ExtendedEchoReply": 161,
    },
}
MAX_ICMP_TYPE = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Ports of a rule; the fields are those of `deltaplane.model.tiers.Rule`."""

    any_port: bool = False
    ranges: tuple[PortRange, ...] = ()
    port_names: tuple[tuple[str, Protocol], ...] = ()


def read_ports(ports: Reader | None, icmps: Reader | None) -> Ports:
    """Reads toPorts and icmps; what is wrong is reported and left out.

    Both absent or empty: every port of every protocol.
    """
    port_entries = ports.items() if ports else []
    icmp_entries = icmps.items() if icmps else []
    if port_entries and icmp_entries and icmps:
        icmps.mistake("cannot be combined with toPorts; write a rule for each")
    if not port_entries and not icmp_entries:
        return Ports(any_port=True)
    found = [port for entry in port_entries for port in _port_entry(entry)]
    found += [kind for entry in icmp_entries for kind in _icmp_entry(entry)]
    return Ports(
        ranges=merge_ranges(item for item in found if isinstance(item, PortRange)),
        port_names=tuple(sorted({item for item in found if isinstance(item, tuple)})),
    )


def _listed(entry: Reader, name: str) -> list[Reader]:
    """The items of a list that must hold 1 to MAX_PORTS."""
    given = entry.get(name)
    items = given.items() if given else []
    if given is None or given.value == []:
        entry.mistake("must list at least one", field=name)
    elif len(items) > MAX_PORTS:
        given.mistake(f"has {len(items)} items; at most {MAX_PORTS} are possible")
    return items


def _port_entry(reader: Reader) -> Iterable[PortRange | tuple[str, Protocol]]:
    if not reader.has_fields(("ports", *_REFUSED)):
        return
    reader.refuse(_REFUSED)
    for item in _listed(reader, "ports"):
        yield from _port(item)


def _port(reader: Reader) -> list[PortRange] | list[tuple[str, Protocol]]:
    if not reader.has_fields(("port", "endPort", "protocol")):
        return []
    given, end, word = reader.require("port"), reader.get("endPort"), reader.get("protocol")
    protocol = word.choice(_PROTOCOLS) if word else ANY
    text = given.text() if given else None
    # Cilium takes 0 for an absent one.
    last = (end.integer(0, MAX_PORT) or None) if end else None
    if given is None or text is None or protocol is None:
        return []
    protocols = TRANSPORTS if protocol == ANY else (Protocol[protocol],)
    if _NUMBER.fullmatch(text) and int(text) <= MAX_PORT:
        span = _span(int(text), last, end)
        return [PortRange(each, *span) for each in protocols] if span else []
    # Cilium compares names of ports without case; those of pods are in lower case.
    name = text.lower()
    if names.port_name_mistake(name):
        given.mistake(f'"{text}" is neither a number from 0 to {MAX_PORT} nor the name of a port')
        return []
    if end is not None and last is not None:
        end.mistake("cannot be combined with a named port; give the number")
    return [(name, each) for each in protocols]


def _span(first: int, last: int | None, end: Reader | None) -> tuple[int, int] | None:
    """First and last port; None if there is a mistake."""
    if end is None or last is None:
        return (first, first) if first != EVERY_PORT else (0, MAX_PORT)
    if first == EVERY_PORT:
        end.mistake('cannot be combined with port "0", which is every port')
        return None
    if last < first:
        end.mistake(f"{last} is below port {first}; the range would be empty")
        return None
    return first, last


def _icmp_entry(reader: Reader) -> Iterable[PortRange]:
    if not reader.has_fields(("fields",)):
        return
    for item in _listed(reader, "fields"):
        kind = _icmp(item)
        if kind is not None:
            yield kind


def _icmp(reader: Reader) -> PortRange | None:
    if not reader.has_fields(("family", "type")):
        return None
    given, word = reader.require("type"), reader.get("family")
    family = word.choice(tuple(_ICMP_FAMILIES)) if word else "IPv4"
    if given is None or family is None:
        return None
    protocol = _ICMP_FAMILIES[family]
    number = _icmp_type(given, family, protocol)
    return None if number is None else PortRange(protocol, number, number)


def _icmp_type(reader: Reader, family: str, protocol: Protocol) -> int | None:
    if not isinstance(reader.value, str):
        return reader.integer(0, MAX_ICMP_TYPE)
    text, known = reader.value, ICMP_TYPES[protocol]
    if text in known:
        return known[text]
    if text in map(str, range(MAX_ICMP_TYPE + 1)):
        return int(text)
    reader.mistake(
        f'"{text}" is no ICMP type of {family}: 0 to {MAX_ICMP_TYPE}, or one of {", ".join(known)}'
    )
    return None
