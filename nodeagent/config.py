"""Options of the node agent."""

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from deltaplane.errors import Invalid
from deltaplane.model.addresses import AddressPair, Prefix, parse_address
from deltaplane.runtime import address
from deltaplane.runtime.config import ProcessConfig

NODE_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
"""A Kubernetes node name: a DNS subdomain."""


def _node_name(text: str) -> str:
    if not NODE_NAME.fullmatch(text):
        raise ValueError("a DNS subdomain of at most 253 characters is needed")
    return text


def _targets(text: str) -> str:
    try:
        return ",".join(str(address.parse(part.strip())) for part in text.split(","))
    except Invalid as error:
        raise ValueError(error.reason) from None


def _prefixes(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        Prefix.parse(text)
    return texts


def _family(size: int) -> AfterValidator:
    def check(text: str) -> str:
        if text and len(parse_address(text)) != size:
            raise ValueError(f"an IPv{4 if size == 4 else 6} address is needed")
        return text

    return AfterValidator(check)


def _cgroup(text: str) -> str:
    if text not in (FOUND_CGROUP, NO_CGROUP) and not Path(text).is_absolute():
        raise ValueError(f"{FOUND_CGROUP}, {NO_CGROUP} or the path of a folder is needed")
    return text


FOUND_CGROUP, NO_CGROUP = "auto", "none"

Targets = Annotated[str, AfterValidator(_targets)]
"""One or more addresses of a service, separated by commas."""


Routing = Literal["native", "vxlan"]
"""How packets reach other nodes."""

DataPlaneKind = Literal["kernel", "memory"]
"""Where the tables of the data path are."""

ExternalMode = Literal["snat", "ready", "dsr"]
"""Who answers clients outside that have asked a node for a backend on another one."""


class AgentConfig(ProcessConfig):
    """Options of `python -m nodeagent`."""

    EXAMPLES: ClassVar[str] = (
        "  python -m nodeagent --node-name n1 --uplink eth0 --node-ipv4 192.0.2.1 \\\n"
        "      --registry 192.0.2.9:4002 --ipam 192.0.2.9:4001 --slicer 192.0.2.9:4003"
    )

    node_name: Annotated[str, AfterValidator(_node_name)] = Field(
        description="Kubernetes name of this node"
    )
    registry: Targets = Field(description="endpoints service, host:port,… or unix:/path")
    ipam: Targets = Field(description="ipam service, host:port,… or unix:/path")
    slicer: Targets = Field(description="slicer service, host:port,… or unix:/path")
    uplink: str = Field(description="link to the other nodes", min_length=1, max_length=15)
    node_ipv4: Annotated[str, _family(4)] = Field(
        default="", description="IPv4 address of the uplink, next hop of this node's blocks"
    )
    node_ipv6: Annotated[str, _family(16)] = Field(
        default="", description="IPv6 address of the uplink, next hop of this node's blocks"
    )
    state_dir: Path = Field(
        default=Path("/var/lib/deltaplane"), description="where the journal and node.uid are kept"
    )
    socket: Path = Field(
        default=Path("/run/deltaplane/agent.sock"), description="unix socket of the CNI plugin"
    )
    spool_dir: Path | None = Field(
        default=None,
        description="where the CNI plugin leaves DELs while the agent is away; none: cni-spool in "
        "the state directory",
    )
    pin_dir: Path = Field(
        default=Path("/sys/fs/bpf/deltaplane"), description="folder of a BPF file system"
    )
    netns: Path | None = Field(
        default=None, description="network namespace to work in; none: the one it starts in"
    )
    pools: tuple[str, ...] = Field(
        default=(),
        description="pools that addresses come from, unless a pod or its namespace names others; "
        "none: all that are not on request",
    )
    reuse: Literal["strict", "fenced"] = Field(
        default="fenced",
        description="when a released address may be handed out again; fenced: once every live node "
        "has let go of it, strict: once every registered one has",
    )
    mtu: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="MTU of pods, bytes; 0: that of the uplink, less what the tunnel adds",
    )
    routing: Routing = Field(
        default="native",
        description="native: other nodes are next hops on the uplink's network; vxlan: packets to "
        "them are wrapped. The same on all nodes",
    )
    tunnel_port: int = Field(
        default=8472, ge=1, le=65535, description="UDP port of VXLAN, the same on all nodes"
    )
    external_mode: ExternalMode = Field(
        default="snat",
        description="how clients outside reach a service's backend on another node; snat: in the "
        "name of this node, dsr: that node answers them itself, ready: as snat, but takes what "
        "others hand over with dsr: a step in between while nodes change",
    )
    direct_port: int = Field(
        default=8473,
        ge=1,
        le=65535,
        description="UDP port by which nodes hand over packets with dsr, the same on all nodes",
    )

    add_waits_for: Literal["policy", "span"] = Field(
        default="policy",
        description="what ADD waits for; policy: the pod's own policies are in force, span: other "
        "nodes that need to know the pod do so, too (250 ms at most)",
    )

    cgroup: Annotated[str, AfterValidator(_cgroup)] = Field(
        default=FOUND_CGROUP,
        description="folder of the control group (version 2) whose sockets find services by "
        "themselves; auto: all of the machine, none: services are found packet by packet, and not "
        "by the node's own processes",
    )
    zone: str = Field(
        default="",
        description="zone of this node, as endpoints' hints name it; none: hints of zones do not "
        "count",
    )
    masquerade: bool = Field(
        default=True,
        description="true: what pods send to the world leaves with this node's address",
    )
    masquerade_exclude: Annotated[tuple[str, ...], AfterValidator(_prefixes)] = Field(
        default=(),
        description="prefixes to which pods keep their address, besides pools and nodes",
    )

    data_plane: DataPlaneKind = Field(
        default="kernel",
        description="kernel: BPF maps and programs; memory: tables in memory and in the state "
        "directory, without privileges, and no packet is carried: for demonstrations, with "
        "--insecure only",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.in_memory and not self.insecure:
            # A cluster that is locked down never takes such a node for one that enforces.
            raise ValueError("--data-plane memory enforces nothing: it needs --insecure")
        if not self.node_ipv4 and not self.node_ipv6:
            raise ValueError("--node-ipv4 or --node-ipv6 is needed: other nodes route to it")
        if 0 < self.mtu < 1280 and self.node_ipv6:
            raise ValueError("--mtu: IPv6 needs at least 1280 bytes")
        if self.wraps and self.answers_directly and self.tunnel_port == self.direct_port:
            raise ValueError("--direct-port: that is the port of the tunnel")
        return self

    @property
    def instance(self) -> str:
        """This node, in traces."""
        return self.node_name

    @property
    def in_memory(self) -> bool:
        """Whether no packet is carried."""
        return self.data_plane == "memory"

    @property
    def wraps(self) -> bool:
        """Whether packets to other nodes go through a tunnel."""
        return self.routing == "vxlan"

    @property
    def answers_directly(self) -> bool:
        """Whether this node answers clients that have asked others."""
        return self.external_mode != "snat"

    @property
    def addresses(self) -> AddressPair:
        """Of the uplink."""
        return AddressPair(
            ipv4=parse_address(self.node_ipv4) if self.node_ipv4 else None,
            ipv6=parse_address(self.node_ipv6) if self.node_ipv6 else None,
        )

    @property
    def spared(self) -> tuple[Prefix, ...]:
        """Ranges to which pods keep their address."""
        return tuple(map(Prefix.parse, self.masquerade_exclude))

    @property
    def spool(self) -> Path:
        """Directory of remembered DELs."""
        return self.spool_dir or self.state_dir / "cni-spool"

    @property
    def slicers(self) -> tuple[str, ...]:
        """Each slicer; the stream tries them in turn."""
        return tuple(self.slicer.split(","))
