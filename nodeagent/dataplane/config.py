"""What a node's data plane is told when it is made."""

import time
from dataclasses import dataclass, field

from nodeagent.dataplane import abi
from nodeagent.dataplane.records import NO_ADDRESS, V4_MAPPED

_CLOCK_MONOTONIC_COARSE = 6
"""Of linux/time.h; it goes by ticks."""

_BOOT_SECONDS = 300
"""So long before their low 32 bits run over Linux begins to count ticks (INITIAL_JIFFIES)."""


def tick_ns() -> int:
    """Length of a tick of this kernel, nanoseconds: 4,000,000 where CONFIG_HZ is 250."""
    return round(time.clock_getres(_CLOCK_MONOTONIC_COARSE) * 1e9)


def first_tick(tick: int) -> int:
    """What the kernel's 64-bit counter of ticks was at boot. tick: nanoseconds."""
    return 2**32 - _BOOT_SECONDS * round(1e9 / tick)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPlaneConfig:
    """Constants of one node.

    Attributes:
        uplink_ifindex: link to the other nodes; 0: there is none, the stack routes everything.
        uplink_mtu: bytes of an IP packet that fit; 0: not checked. Larger ones go to the stack,
            which tells the sender.
        tunnel_ifindex: link that wraps what goes to other nodes; 0: native routing.
        node_index: number of this node; 0: not registered yet, or as an earlier agent has set it.
        node_ipv4: 4 bytes, own address as other nodes see it, or None.
        node_ipv6: 16 bytes, own address as other nodes see it, or None.
        tick_ns: length of the kernel's ticks, nanoseconds.
        refusal: errno that a socket gets whose service nobody answers for; 0: EPERM, all that
            kernels before 6.1 can say.
        netns_cookie: of the node's own network namespace, whose sockets always talk to a backend
            directly; 0: the first one of the machine.
        direct_ifindex: link by which nodes hand over packets of clients outside to the node of the
            backend, which answers; 0: none.
        hands_over: this node does so; else it only takes what others hand over.
    """

    uplink_ifindex: int = 0
    uplink_mtu: int = 0
    tunnel_ifindex: int = 0
    node_index: int = 0
    node_ipv4: bytes | None = None
    node_ipv6: bytes | None = None
    tick_ns: int = field(default_factory=tick_ns)
    refusal: int = 0
    netns_cookie: int = 0
    direct_ifindex: int = 0
    hands_over: bool = False

    def to_abi(self) -> abi.Config:
        """What goes into the programs' read-only data; the node index lives in a map."""
        return abi.Config(
            uplink_ifindex=self.uplink_ifindex,
            uplink_mtu=self.uplink_mtu,
            tunnel_ifindex=self.tunnel_ifindex,
            tick_ns=self.tick_ns,
            first_tick=first_tick(self.tick_ns),
            node_ipv4=NO_ADDRESS if self.node_ipv4 is None else V4_MAPPED + self.node_ipv4,
            node_ipv6=self.node_ipv6 or NO_ADDRESS,
            refusal=self.refusal,
            netns_cookie=self.netns_cookie,
            direct_ifindex=self.direct_ifindex,
            hands_over=int(self.hands_over),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacities:
    """Entries that fit into each map.

    Those that make room by forgetting (the least recently used entry) take memory in advance:
    connections, fragments, denials, affinities, sockets and translations.

    Attributes:
        mappings: addresses with an identity, of the whole cluster.
        ranges: blocks.
        nodes: next hops.
        policy_entries: over all policy sets.
        policy_prefixes: over all policy sets.
        subjects: identities with policies in force.
        endpoints: pods of this node; `addresses` holds twice as many.
        connections: about 130 bytes each.
        fragments: datagrams on their way in pieces.
        denials: kinds of denied packets.
        rules: rulings of policy sets that are counted.
        services: those that are counted.
        frontends: addresses and ports of services.
        slots: places in the lists of backends, over all lists.
        members: backends that clients may keep, over all lists.
        tables: lists of clients outside, 48 KiB each with up to 30 backends, see maglev.SIZES.
        sources: ranges from which load balancers' addresses may be used.
        affinities: clients that keep their backend.
        sockets: two per UDP socket and service, one per TCP connection.
        translations: two per connection that is translated packet by packet.
    """

    mappings: int = abi.MAX_MAPPINGS
    ranges: int = abi.MAX_RANGES
    nodes: int = abi.MAX_NODES
    policy_entries: int = abi.MAX_ENTRIES
    policy_prefixes: int = abi.MAX_PREFIXES
    subjects: int = abi.MAX_SUBJECTS
    endpoints: int = abi.MAX_ENDPOINTS
    connections: int = abi.MAX_CONNECTIONS
    fragments: int = abi.MAX_FRAGMENTS
    denials: int = abi.MAX_DENIALS
    rules: int = abi.MAX_RULES
    services: int = abi.MAX_SERVICES
    frontends: int = abi.MAX_FRONTENDS
    slots: int = abi.MAX_SLOTS
    members: int = abi.MAX_MEMBERS
    tables: int = abi.MAX_TABLES
    sources: int = abi.MAX_SOURCES
    affinities: int = abi.MAX_AFFINITIES
    sockets: int = abi.MAX_SOCKETS
    translations: int = abi.MAX_TRANSLATIONS

    def by_map(self) -> dict[str, int]:
        """Map name → entries."""
        return {
            "mappings": self.mappings,
            "ranges": self.ranges,
            "nodes": self.nodes,
            "policy_entries": self.policy_entries,
            "policy_prefixes": self.policy_prefixes,
            "subjects": self.subjects,
            "endpoints": self.endpoints,
            "addresses": 2 * self.endpoints,
            "connections": self.connections,
            "fragments": self.fragments,
            "denials": self.denials,
            "rules": self.rules,
            "service_counts": self.services,
            "frontends": self.frontends,
            "slots": self.slots,
            "members": self.members,
            "tables": self.tables,
            "sources": self.sources,
            "affinities": self.affinities,
            "sockets": self.sockets,
            "translations": self.translations,
        }
