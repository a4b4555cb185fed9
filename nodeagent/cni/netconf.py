"""From an unjudged request to a checked call.

The CNI specification's rules for environment and configuration.

The order of the checks is the reference library's: environment, configuration, version, names.
"""

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from deltaplane.model.addresses import parse_address
from deltaplane.model.ports import Protocol
from nodeagent.cni import conversion
from nodeagent.cni.protocol import Request
from nodeagent.cni.result import CURRENT_VERSION, SUPPORTED_VERSIONS, CniError, Code, Result

MAIN_TYPE, IPAM_TYPE = "deltaplane-cni", "deltaplane-ipam"
"""Names by which configurations call the two modes; it is one binary."""

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
"""Network names and container ids (section 2 and 3 of the specification)."""

VERSION = re.compile(r"\d+\.\d+\.\d+")
MAX_IFNAME_BYTES = 15
"""IFNAMSIZ without the terminator."""

POD_NAMESPACE = "K8S_POD_NAMESPACE"
POD_NAME = "K8S_POD_NAME"
POD_UID = "K8S_POD_UID"
KNOWN_ARGS = frozenset({POD_NAMESPACE, POD_NAME, POD_UID, "K8S_POD_INFRA_CONTAINER_ID"})
IGNORE_UNKNOWN = "IgnoreUnknown"

CONTAINER = ("CNI_CONTAINERID", "CNI_IFNAME")
REQUIRED = {
    "ADD": (*CONTAINER, "CNI_NETNS", "CNI_PATH"),
    "DEL": (*CONTAINER, "CNI_PATH"),
    "CHECK": (*CONTAINER, "CNI_NETNS", "CNI_PATH"),
    "GC": ("CNI_PATH",),
    "STATUS": ("CNI_PATH",),
}
"""Variables that each command needs. VERSION needs none and is answered by the shim."""

SINCE = {"CHECK": (0, 4, 0), "GC": (1, 1, 0), "STATUS": (1, 1, 0)}
"""Version that introduced a command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """What names an interface for the runtime; one owner of addresses."""

    network: str
    container_id: str
    ifname: str

    def __str__(self) -> str:
        return f"{self.network}/{self.container_id}/{self.ifname}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodName:
    """The pod of an attachment. uid: empty when the runtime gives none."""

    namespace: str
    name: str
    uid: str


MAX_HOST_ADDRESSES = 8
"""Different host addresses that one interface may have ports of."""

TRANSPORTS = {"tcp": Protocol.TCP, "udp": Protocol.UDP, "sctp": Protocol.SCTP}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class HostPort:
    """A port of the node that leads to the pod (capability portMappings).

    Attributes:
        host_address: 4 or 16 bytes, zeros: the node's own of that family; empty: all its own.
        protocol: TCP, UDP or SCTP.
        host_port: 1..65535.
        container_port: 1..65535.
    """

    host_address: bytes = b""
    protocol: Protocol
    host_port: int
    container_port: int

    def overlaps(self, other: "HostPort") -> bool:
        """Whether both want the same."""
        if (self.protocol, self.host_port) != (other.protocol, other.host_port):
            return False
        mine, theirs = self.host_address, other.host_address
        if not mine or not theirs or mine == theirs:
            return True
        return len(mine) == len(theirs) and not (any(mine) and any(theirs))

    def __str__(self) -> str:
        return f"{self.host_port}/{self.protocol.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that follows the rules.

    Attributes:
        command: ADD, DEL, CHECK, GC or STATUS.
        version: cniVersion of the configuration, one of SUPPORTED_VERSIONS.
        attachment: container id and interface are empty for GC and STATUS.
        netns: path; may be empty for DEL.
        pod: from CNI_ARGS; None when it names none.
        valid_attachments: (container id, interface) that GC keeps; None when the configuration has
            no list.
        previous: prevResult, for ADD and CHECK; None when there is none. DEL does its best without.
        host_ports: from runtimeConfig, for ADD; ascending.
        delegated: the caller is another plugin that wants addresses for an interface of its own.
    """

    command: str
    version: str
    attachment: Attachment
    netns: str
    pod: PodName | None
    valid_attachments: frozenset[tuple[str, str]] | None
    previous: Result | None = None
    delegated: bool = False
    host_ports: tuple[HostPort, ...] = ()


def claimed_version(config: bytes) -> str:
    """The configuration's cniVersion, for an error object; our newest when there is none."""
    try:
        version = json.loads(config).get("cniVersion", CURRENT_VERSION)
    except (ValueError, AttributeError, RecursionError):
        return CURRENT_VERSION
    return version if isinstance(version, str) else CURRENT_VERSION


def parse(request: Request) -> Call:
    """Checks a request.

    Raises:
        CniError: with the code that the specification gives for the mistake.
    """
    _check_environment(request)
    config = _decode(request.config)
    version = _check_version(config, request.command)
    name = config.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise CniError(Code.INVALID_CONFIG, "invalid network name", f"name: {name!r}")
    return Call(
        command=request.command,
        version=version,
        attachment=Attachment(
            network=name, container_id=request.container_id, ifname=request.ifname
        ),
        netns=request.netns,
        pod=_parse_args(request.args) if request.command == "ADD" else None,
        valid_attachments=_valid_attachments(config),
        previous=_previous(config, request.command),
        delegated=is_delegated(config),
        host_ports=_host_ports(config) if request.command == "ADD" else (),
    )


def is_delegated(config: Mapping[str, object]) -> bool:
    """Whether the configuration is another plugin's that names us for its addresses."""
    ipam = config.get("ipam")
    named = isinstance(ipam, dict) and ipam.get("type") == IPAM_TYPE
    return named and config.get("type") != MAIN_TYPE


def _check_environment(request: Request) -> None:
    required = REQUIRED.get(request.command)
    if required is None:
        raise CniError(
            Code.INVALID_ENVIRONMENT, "unknown CNI_COMMAND", f"CNI_COMMAND={request.command!r}"
        )
    values = {
        "CNI_CONTAINERID": request.container_id,
        "CNI_IFNAME": request.ifname,
        "CNI_NETNS": request.netns,
        "CNI_PATH": request.path,
    }
    missing = [variable for variable in required if not values[variable]]
    if missing:
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            "required environment variables are missing",
            ", ".join(sorted(missing)),
        )
    if "CNI_CONTAINERID" in required and not NAME.fullmatch(request.container_id):
        raise CniError(
            Code.INVALID_ENVIRONMENT, "invalid CNI_CONTAINERID", repr(request.container_id)
        )
    if "CNI_IFNAME" in required and not is_interface_name(request.ifname):
        raise CniError(Code.INVALID_ENVIRONMENT, "invalid CNI_IFNAME", repr(request.ifname))


def is_interface_name(name: str) -> bool:
    """Whether the kernel takes it as the name of a link."""
    return (
        0 < len(name.encode()) <= MAX_IFNAME_BYTES
        and name not in (".", "..")
        and not any(character in "/:" or character.isspace() for character in name)
    )


def _decode(config: bytes) -> Mapping[str, object]:
    try:
        document = json.loads(config)
    except (ValueError, RecursionError) as error:
        raise CniError(Code.UNDECODABLE, "the configuration is no JSON", str(error)) from error
    if not isinstance(document, dict):
        raise CniError(Code.UNDECODABLE, "the configuration is no JSON object")
    return document


def _check_version(config: Mapping[str, object], command: str) -> str:
    # A configuration without a version is of 0.1.0, says the specification; we do not speak that.
    version = config.get("cniVersion", "0.1.0")
    if not isinstance(version, str) or not VERSION.fullmatch(version):
        raise CniError(Code.UNDECODABLE, "malformed cniVersion", repr(version))
    if version not in SUPPORTED_VERSIONS:
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f"cniVersion {version} is not supported",
            f"supported: {', '.join(SUPPORTED_VERSIONS)}",
        )
    since = SINCE.get(command)
    if since is not None and tuple(int(part) for part in version.split(".")) < since:
        raise CniError(
            Code.INCOMPATIBLE_VERSION, f"config version {version} does not allow {command}"
        )
    return version


def _parse_args(args: str) -> PodName | None:
    pairs: dict[str, str] = {}
    for pair in args.split(";") if args else ():
        key, equals, value = pair.partition("=")
        if not equals:
            raise CniError(Code.INVALID_ENVIRONMENT, "CNI_ARGS: invalid pair", repr(pair))
        pairs[key] = value
    ignore = pairs.pop(IGNORE_UNKNOWN, "0").lower() in ("1", "true")
    unknown = sorted(pairs.keys() - KNOWN_ARGS)
    if unknown and not ignore:
        raise CniError(Code.INVALID_ENVIRONMENT, "CNI_ARGS: unknown args", ", ".join(unknown))
    namespace, name = pairs.get(POD_NAMESPACE, ""), pairs.get(POD_NAME, "")
    if not namespace or not name:
        return None
    return PodName(namespace=namespace, name=name, uid=pairs.get(POD_UID, ""))


def _previous(config: Mapping[str, object], command: str) -> Result | None:
    document = config.get("prevResult")
    if document is None or command not in ("ADD", "CHECK"):
        return None
    return conversion.decode(document)


def _host_ports(config: Mapping[str, object]) -> tuple[HostPort, ...]:
    runtime = config.get("runtimeConfig")
    listed = runtime.get("portMappings") if isinstance(runtime, dict) else None
    if not listed:
        return ()
    if not isinstance(listed, list):
        raise CniError(Code.INVALID_CONFIG, "portMappings is no list")
    # A mapping without a host port maps nothing: so does the reference plugin.
    ports = sorted(
        {_host_port(item) for item in listed if not isinstance(item, dict) or item.get("hostPort")}
    )
    for place, port in enumerate(ports):
        if any(port.overlaps(other) for other in ports[:place]):
            raise CniError(Code.INVALID_CONFIG, "portMappings names a port twice", str(port))
    if len({port.host_address for port in ports}) > MAX_HOST_ADDRESSES:
        raise CniError(Code.INVALID_CONFIG, "portMappings names too many host addresses")
    return tuple(ports)


def _host_port(item: object) -> HostPort:
    if not isinstance(item, dict):
        raise _no_mapping(item, "no object")
    host_port, container_port = (_port(item, name) for name in ("hostPort", "containerPort"))
    protocol = TRANSPORTS.get(str(item.get("protocol") or "tcp").lower())
    if protocol is None:
        raise _no_mapping(item, f"protocols are {', '.join(TRANSPORTS)}")
    try:
        address = parse_address(str(item["hostIP"])) if item.get("hostIP") else b""
    except ValueError as error:
        raise _no_mapping(item, str(error)) from error
    if address and ipaddress.ip_address(address).is_loopback:
        raise _no_mapping(item, "pods have loopback addresses of their own")
    return HostPort(
        host_address=address,
        protocol=protocol,
        host_port=host_port,
        container_port=container_port,
    )


def _port(item: Mapping[str, object], name: str) -> int:
    number = item.get(name)
    if type(number) is not int or not 0 < number < 65536:
        raise _no_mapping(item, f"{name} is no port")
    return number


def _no_mapping(item: object, reason: str) -> CniError:
    return CniError(Code.INVALID_CONFIG, "invalid portMappings", f"{item!r}: {reason}")


def _valid_attachments(config: Mapping[str, object]) -> frozenset[tuple[str, str]] | None:
    listed = config.get("cni.dev/valid-attachments")
    if listed is None:
        return None
    if not isinstance(listed, list):
        raise CniError(Code.INVALID_CONFIG, "cni.dev/valid-attachments is no list")
    kept = set()
    for item in listed:
        container = item.get("containerID") if isinstance(item, dict) else None
        ifname = item.get("ifname") if isinstance(item, dict) else None
        if not isinstance(container, str) or not isinstance(ifname, str):
            raise CniError(
                Code.INVALID_CONFIG, "cni.dev/valid-attachments lacks containerID or ifname"
            )
        kept.add((container, ifname))
    return frozenset(kept)
