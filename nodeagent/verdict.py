"""What the kernel says of a packet, in Python: the twin of bpf/include/policy.h. Pure."""

from typing import Protocol as TypingProtocol

from deltaplane.model.addresses import to_mapped
from deltaplane.model.identity import FIRST_IDENTITY, Reserved
from deltaplane.model.tiers import Action, Tier
from nodeagent.dataplane.port import Decisions, PolicyEntry, PrefixEntry, Verdict

EVERY_PEER = 0
EVERY_POD = int(Reserved.OTHER_POD)
"""Entries for it are for every pod, whether this node knows its identity or not."""

CLASS_BIT = 0x80000000
"""Set in class numbers; identities stay below."""

NOTHING: Decisions = (0, 0, 0)
NOBODY = 0
"""The ruling when no rule decides: denied."""

PORT_BITS = 16
_ACTION_BITS = 2
_TIER_SHIFT = 30


class PolicyTables(TypingProtocol):
    """The two tables of a policy set: a ResolvedDirection or a dataplane.port.PolicySet."""

    @property
    def entries(self) -> tuple[PolicyEntry, ...]:
        """Entries of the policy table."""
        ...

    @property
    def prefixes(self) -> tuple[PrefixEntry, ...]:
        """Entries of the prefix table."""
        ...


def decision(order: int, action: Action) -> int:
    """What a rule says. order: within its tier, 0..2^28-1; the highest that matches counts."""
    return order << _ACTION_BITS | action


def action_of(number: int) -> Action:
    """Of a decision or a ruling other than NOBODY."""
    return Action(number & 3)


def ruling_of(tier: Tier, said: int) -> int:
    """The ruling of a decision of a tier."""
    return tier << _TIER_SHIFT | said


def allows(ruling: int) -> bool:
    """Whether a packet passes."""
    return ruling != NOBODY and action_of(ruling) is Action.ALLOW


def highest(one: Decisions, other: Decisions) -> Decisions:
    """Tier by tier."""
    return (max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2]))


def verdict(
    tables: PolicyTables | None, peer_identity: int, remote_address: bytes, protocol: int, port: int
) -> Verdict:
    """Judges the first packet of a connection as the kernel does.

    Args:
        tables: of the subject's set for the direction; None: everything is allowed.
        peer_identity: identity of the other side.
        remote_address: address of the other side, 4 or 16 bytes.
        protocol: IP protocol number.
        port: destination port, or type of an ICMP message; 0 for protocols without ports.
    """
    if tables is None:
        return Verdict.ALLOW
    ruling = Judge(tables).ruling(peer_identity, remote_address, protocol, port)
    return Verdict.ALLOW if allows(ruling) else Verdict.DENY


class Judge:
    """One policy set, ready to be asked many times."""

    def __init__(self, tables: PolicyTables) -> None:
        # Per peer: (protocol, leading bits of the port, those bits) → decisions.
        self._entries: dict[int, dict[tuple[int | None, int, int], Decisions]] = {}
        for entry in tables.entries:
            bits = entry.port_bits
            head = 0 if entry.port is None else entry.port >> (PORT_BITS - bits)
            of_peer = self._entries.setdefault(entry.peer, {})
            of_peer[entry.protocol, bits, head] = entry.decisions
        self._prefixes: dict[tuple[int, int], PrefixEntry] = {
            (prefix.length, int.from_bytes(prefix.address) >> (128 - prefix.length)): prefix
            for prefix in tables.prefixes
        }
        self._lengths = sorted({prefix.length for prefix in tables.prefixes}, reverse=True)

    def ruling(self, peer_identity: int, remote_address: bytes, protocol: int, port: int) -> int:
        """Tier and decision of who decides, or NOBODY. Arguments as of `verdict`."""
        if peer_identity == Reserved.UNKNOWN:
            return NOBODY
        peers = [peer_identity]
        if peer_identity >= FIRST_IDENTITY:
            peers.append(EVERY_POD)
        if peer_class := self._class_of(to_mapped(remote_address), peer_identity):
            peers.append(peer_class)
        found = NOTHING
        for peer in (*peers, EVERY_PEER):
            found = highest(found, self._longest(peer, protocol, port))
        for tier, said in zip(Tier, found, strict=True):
            if said and action_of(said) is not Action.PASS:
                return ruling_of(tier, said)
        return NOBODY

    def _longest(self, peer: int, protocol: int, port: int) -> Decisions:
        entries = self._entries.get(peer)
        if entries is None:
            return NOTHING
        for bits in range(PORT_BITS, -1, -1):
            found = entries.get((protocol, bits, port >> (PORT_BITS - bits)))
            if found is not None:
                return found
        return entries.get((None, 0, 0), NOTHING)

    def _class_of(self, address: bytes, identity: int) -> int:
        number = int.from_bytes(address)
        for length in self._lengths:
            found = self._prefixes.get((length, number >> (128 - length)))
            if found is not None:
                return found.outside_class if identity == Reserved.WORLD else found.peer_class
        return 0
