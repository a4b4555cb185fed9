"""What the plugin prints: results of ADD in every supported version, and error objects.

`Result` is what `nodeagent.cni.conversion` reads from and writes to each version.
"""

import enum
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deltaplane.model.addresses import AddressPair, format_address

SUPPORTED_VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
CURRENT_VERSION = SUPPORTED_VERSIONS[-1]

GATEWAY_IPV4 = bytes((169, 254, 1, 1))
GATEWAY_IPV6 = b"\xfe\x80" + bytes(13) + b"\x01"
"""Next hops that every pod sees. No interface holds them: the pod has permanent neighbours for
both.
"""


class Code(enum.IntEnum):
    """Error codes of the CNI specification, section 5; from 100 on they are the plugin's own.

    FAILED is the reference library's "other".
    """

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    UNDECODABLE = 6
    INVALID_CONFIG = 7
    INVALID_NETNS = 8
    TRY_AGAIN = 11
    NOT_AVAILABLE = 50
    NOT_AS_ADDED = 100
    FAILED = 999


class CniError(Exception):
    """Ends a call with an error object.

    Attributes:
        code: which kind.
        message: what is wrong, for the operator.
        details: more of it; may be empty.
    """

    def __init__(self, code: Code, message: str, details: str = "") -> None:
        super().__init__(f"{message}: {details}" if details else message)
        self.code = code
        self.message = message
        self.details = details


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """A pod interface as ADD reports it.

    Attributes:
        ifname: name inside the pod.
        netns: CNI_NETNS as the runtime gave it.
        pod_mac: 6 bytes.
        host_link: name of the host-side link.
        host_mac: 6 bytes.
        mtu: of both ends, in bytes.
        addresses: of the pod.
    """

    ifname: str
    netns: str
    pod_mac: bytes
    host_link: str
    host_mac: bytes
    mtu: int
    addresses: AddressPair


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An entry of `interfaces`; empty texts and None are left out when it is printed."""

    name: str
    mac: str = ""
    mtu: int | None = None
    sandbox: str = ""
    pci_id: str = ""
    socket_path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ip:
    """An entry of `ips`. address: with its prefix length; interface: index into `links` or None."""

    address: str
    gateway: str = ""
    interface: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """An entry of `routes`. options: mtu, advmss, priority, table, scope."""

    dst: str
    gw: str = ""
    options: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A result whatever its version."""

    links: tuple[Link, ...] = ()
    ips: tuple[Ip, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Mapping[str, object] = field(default_factory=dict)


def of_interface(interface: Interface) -> Result:
    """What ADD has made."""
    return Result(
        links=(
            Link(name=interface.host_link, mac=interface.host_mac.hex(":"), mtu=interface.mtu),
            Link(
                name=interface.ifname,
                mac=interface.pod_mac.hex(":"),
                mtu=interface.mtu,
                sandbox=interface.netns,
            ),
        ),
        ips=_ips(interface.addresses, 1),
        routes=_defaults(interface.addresses),
    )


def of_addresses(held: Iterable[tuple[bytes, int, bytes]]) -> Result:
    """What the IPAM-only mode answers: (address, prefix length, gateway), and default routes."""
    found = [
        (f"{format_address(address)}/{length}", format_address(gateway))
        for address, length, gateway in held
    ]
    return Result(
        ips=tuple(Ip(address=address, gateway=gateway) for address, gateway in found),
        routes=tuple(
            Route(dst="::/0" if ":" in gateway else "0.0.0.0/0", gw=gateway) for _, gateway in found
        ),
    )


def behind(previous: Result, own: Result) -> Result:
    """A previous plugin's result with ours added, as a chain wants it."""
    offset = len(previous.links)
    shifted = tuple(
        Ip(
            address=ip.address,
            gateway=ip.gateway,
            interface=None if ip.interface is None else ip.interface + offset,
        )
        for ip in own.ips
    )
    return Result(
        links=previous.links + own.links,
        ips=previous.ips + shifted,
        routes=previous.routes + own.routes,
        dns=previous.dns or own.dns,
    )


def _gateway(address: bytes) -> str:
    return format_address(GATEWAY_IPV4 if len(address) == 4 else GATEWAY_IPV6)


def _ips(addresses: AddressPair, interface: int | None) -> tuple[Ip, ...]:
    return tuple(
        Ip(
            address=f"{format_address(address)}/{len(address) * 8}",
            gateway=_gateway(address),
            interface=interface,
        )
        for address in addresses
    )


def _defaults(addresses: AddressPair) -> tuple[Route, ...]:
    return tuple(
        Route(dst="0.0.0.0/0" if len(address) == 4 else "::/0", gw=_gateway(address))
        for address in addresses
    )


def failure(version: str, error: CniError) -> bytes:
    """An error object as JSON; a version that we do not speak is answered in our newest."""
    document: dict[str, object] = {
        "cniVersion": version if version in SUPPORTED_VERSIONS else CURRENT_VERSION,
        "code": int(error.code),
        "msg": error.message,
    }
    if error.details:
        document["details"] = error.details
    return json.dumps(document).encode()
