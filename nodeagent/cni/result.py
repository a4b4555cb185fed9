"""What the plugin prints: results of ADD in every supported version, and error objects."""

import enum
import json
from dataclasses import dataclass

from deltaplane.model.addresses import AddressPair, format_address

SUPPORTED_VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
CURRENT_VERSION = SUPPORTED_VERSIONS[-1]

GATEWAY_IPV4 = bytes((169, 254, 1, 1))
GATEWAY_IPV6 = b"\xfe\x80" + bytes(13) + b"\x01"
"""Next hops that every pod sees. No interface holds them: the pod has permanent neighbours for
both.
"""


class Code(enum.IntEnum):
    """Error codes of the CNI specification, section 5; FAILED: the reference library's "other"."""

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


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _link(version: str, name: str, mac: bytes, mtu: int, sandbox: str | None) -> dict[str, object]:
    link: dict[str, object] = {"name": name, "mac": mac.hex(":")}
    if _version(version) >= (1, 1, 0):
        link["mtu"] = mtu
    if sandbox is not None:
        link["sandbox"] = sandbox
    return link


def success(version: str, interface: Interface) -> bytes:
    """The result of an ADD in one of SUPPORTED_VERSIONS, as JSON."""
    ips: list[dict[str, object]] = []
    routes: list[dict[str, object]] = []
    for address in interface.addresses:
        is_ipv4 = len(address) == 4
        gateway = format_address(GATEWAY_IPV4 if is_ipv4 else GATEWAY_IPV6)
        family: dict[str, object] = {"version": "4" if is_ipv4 else "6"}
        ips.append(
            (family if _version(version) < (1, 0, 0) else {})
            | {
                "interface": 1,
                "address": f"{format_address(address)}/{len(address) * 8}",
                "gateway": gateway,
            }
        )
        routes.append({"dst": "0.0.0.0/0" if is_ipv4 else "::/0", "gw": gateway})
    mtu = interface.mtu
    document = {
        "cniVersion": version,
        "interfaces": [
            _link(version, interface.host_link, interface.host_mac, mtu, None),
            _link(version, interface.ifname, interface.pod_mac, mtu, interface.netns),
        ],
        "ips": ips,
        "routes": routes,
        "dns": {},
    }
    return json.dumps(document).encode()


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
