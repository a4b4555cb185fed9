"""Who a process is to others: the one URI in its certificate.

    spiffe://deltaplane/slicer          a service, the bridge, etcd, or a person: `admin`
    spiffe://deltaplane/node/worker-7   the agent of a node

Whoever serves has the DNS name ROLE.deltaplane besides. Clients insist on it, whatever address they
have connected to: an agent's certificate, say, cannot pass for the slicer's.
"""

import enum
import re
from dataclasses import dataclass

from deltaplane.errors import Invalid

TRUST_DOMAIN = "spiffe://deltaplane/"
DOMAIN = "deltaplane"

STORE_CLIENT = f"store-client.{DOMAIN}"
"""DNS name in the certificates of those that may use etcd: it can be told to ask for a name."""

NODE_AUTHORITY = "deltaplane node ca"
"""How the name of a CA begins that makes nodes' certificates: those of others are not believed."""

_NODE = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


class Role(enum.StrEnum):
    """What a certificate is for."""

    IPAM = "ipam"
    ENDPOINTS = "endpoints"
    SLICER = "slicer"
    BRIDGE = "bridge"
    ADMIN = "admin"
    ETCD = "etcd"
    NODE = "node"

    @property
    def server_name(self) -> str:
        """The DNS name by which clients know a server of this role."""
        return f"{self}.{DOMAIN}"

    @property
    def uses_store(self) -> bool:
        """Whether it may use etcd itself. etcd asks itself, too."""
        return self in _STORE_CLIENTS


_STORE_CLIENTS = frozenset({Role.IPAM, Role.ENDPOINTS, Role.SLICER, Role.ADMIN, Role.ETCD})


@dataclass(frozen=True, slots=True)
class Peer:
    """The holder of a certificate. node: name of an agent's node; empty for all others."""

    role: Role
    node: str = ""

    def __post_init__(self) -> None:
        """Raises Invalid: an agent without a node, a node without an agent, or no node name."""
        if (self.role is Role.NODE) != bool(self.node):
            raise Invalid("node", f"role {self.role}: a node is named for {Role.NODE}, and only so")
        if self.node and not _NODE.fullmatch(self.node):
            raise Invalid("node", f"{self.node!r}: a DNS subdomain of at most 253 characters")

    @property
    def uri(self) -> str:
        """As it stands in the certificate."""
        return f"{TRUST_DOMAIN}{self}"

    def __str__(self) -> str:
        return f"{self.role}/{self.node}" if self.node else str(self.role)


def parse(uri: str) -> Peer | None:
    """Reads the URI of a certificate; None where it names none of our roles."""
    role, slash, node = uri.removeprefix(TRUST_DOMAIN).partition("/")
    if not uri.startswith(TRUST_DOMAIN) or bool(slash) != bool(node):
        return None
    try:
        return Peer(Role(role), node)
    except (ValueError, Invalid):
        return None


def is_node_authority(name: str) -> bool:
    """Whether a CA of this common name makes nodes' certificates only.

    Who verifies a chain takes names for the same that differ in case, spaces and encoding.
    """
    return " ".join(name.split()).casefold().startswith(NODE_AUTHORITY)
