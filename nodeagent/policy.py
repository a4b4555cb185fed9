"""From subject policies to entries of kernel policy sets, and the verdict that the kernel reaches.

Pure. `resolve` is the compiler's last step: peer sets become identities, address blocks become
classes with their exceptions compiled out, port ranges become aligned prefixes. `verdict` is the
twin of the BPF lookup and judges a packet by the entries alone.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Protocol as TypingProtocol

from deltaplane.model.addresses import V4_MAPPED, Prefix, to_mapped
from deltaplane.model.objects import DirectionPolicy, DirectionRule, PeerSet, SubjectPolicy
from deltaplane.model.policy import IPBlock
from deltaplane.model.ports import MAX_PORT, PortRange, merge_ranges
from nodeagent.dataplane.port import PolicyEntry, PrefixEntry, Verdict

EVERY_PEER = 0
CLASS_BIT = 0x80000000
"""Set in class numbers; identities stay below."""

_PORT_BITS = 16
_V4_SPACE = (V4_MAPPED + bytes(4), 96)
"""Where IPv4 lives among 16-byte addresses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedDirection:
    """What one direction of a subject allows.

    Attributes:
        entries: ascending by (peer, protocol, port, port_bits), "every" before a number.
        prefixes: ascending.
    """

    entries: tuple[PolicyEntry, ...]
    prefixes: tuple[PrefixEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedPolicy:
    """Both directions of a subject.

    Attributes:
        ingress: None: not isolated.
        egress: None: not isolated.
        missing: keys of peer sets that are not there, ascending; rules that name one allow nothing.
    """

    ingress: ResolvedDirection | None
    egress: ResolvedDirection | None
    missing: tuple[bytes, ...]


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


@dataclass(frozen=True, slots=True)
class _Ports:
    """A set of (protocol, port).

    Attributes:
        every: every port of every protocol; ranges is empty then.
        ranges: ascending, neither overlapping nor adjacent.
    """

    every: bool = False
    ranges: tuple[PortRange, ...] = ()

    def __or__(self, other: "_Ports") -> "_Ports":
        if self.every or other.every:
            return _Ports(every=True)
        return _Ports(ranges=merge_ranges((*self.ranges, *other.ranges)))

    def __bool__(self) -> bool:
        return self.every or bool(self.ranges)

    def covers(self, item: PortRange) -> bool:
        """Whether a whole range lies inside."""
        return self.every or any(
            own.protocol == item.protocol and own.first <= item.first and item.last <= own.last
            for own in self.ranges
        )


_NOTHING = _Ports()


def resolve(policy: SubjectPolicy, peer_sets: Mapping[bytes, PeerSet]) -> ResolvedPolicy:
    """Resolves what a subject policy allows.

    Args:
        policy: the policy.
        peer_sets: by key; a rule that names an absent one allows nothing.
    """
    missing: set[bytes] = set()
    ingress = _resolve_direction(policy.ingress, peer_sets, missing)
    egress = _resolve_direction(policy.egress, peer_sets, missing)
    return ResolvedPolicy(ingress=ingress, egress=egress, missing=tuple(sorted(missing)))


def verdict(
    tables: PolicyTables | None, peer_identity: int, remote_address: bytes, protocol: int, port: int
) -> Verdict:
    """Judges the first packet of a connection as the kernel does.

    Args:
        tables: of the subject's set for the direction; None: not isolated.
        peer_identity: identity of the other side.
        remote_address: address of the other side, 4 or 16 bytes.
        protocol: IP protocol number.
        port: destination port; 0 for protocols without ports.
    """
    if tables is None:
        return Verdict.ALLOW
    found = _longest(tables.entries, peer_identity, protocol, port)
    if found is not None:
        return found
    peer_class = _class_of(tables.prefixes, to_mapped(remote_address))
    if peer_class:
        found = _longest(tables.entries, peer_class, protocol, port)
        if found is not None:
            return found
    found = _longest(tables.entries, EVERY_PEER, protocol, port)
    return Verdict.DENY if found is None else found


# --- the kernel's lookups -------------------------------------------------------------------------


def _longest(entries: Iterable[PolicyEntry], peer: int, protocol: int, port: int) -> Verdict | None:
    best: tuple[int, Verdict] | None = None
    for entry in entries:
        if entry.peer != peer or entry.protocol not in (None, protocol):
            continue
        shift = _PORT_BITS - entry.port_bits
        if entry.port is not None and entry.port >> shift != port >> shift:
            continue
        # The part of the key that counts, in bits beyond the peer: protocol (8), then port.
        length = 0 if entry.protocol is None else 8 + entry.port_bits
        if best is None or length > best[0]:
            best = (length, entry.verdict)
    return None if best is None else best[1]


def _class_of(prefixes: Iterable[PrefixEntry], address: bytes) -> int:
    number = int.from_bytes(address)
    best = (-1, 0)
    for entry in prefixes:
        shift = 128 - entry.length
        if entry.length > best[0] and int.from_bytes(entry.address) >> shift == number >> shift:
            best = (entry.length, entry.peer_class)
    return best[1]


# --- rules to entries -----------------------------------------------------------------------------


def _resolve_direction(
    direction: DirectionPolicy, peer_sets: Mapping[bytes, PeerSet], missing: set[bytes]
) -> ResolvedDirection | None:
    if not direction.isolated:
        return None
    absent = {key for rule in direction.rules for key in rule.peer_sets if key not in peer_sets}
    missing |= absent
    rules = [rule for rule in direction.rules if absent.isdisjoint(rule.peer_sets)]
    by_peer = _ports_by_peer(rules, peer_sets)
    for_everyone = by_peer.get(EVERY_PEER, _NOTHING)
    prefixes, classes = _classes(rules, for_everyone)
    entries: list[PolicyEntry] = []
    for peer, ports in (*sorted(by_peer.items()), *classes):
        kept = ports if peer == EVERY_PEER else _without(ports, for_everyone)
        entries.extend(_entries(peer, kept))
    return ResolvedDirection(entries=tuple(entries), prefixes=prefixes)


def _ports_by_peer(
    rules: Sequence[DirectionRule], peer_sets: Mapping[bytes, PeerSet]
) -> dict[int, _Ports]:
    """What each identity, and EVERY_PEER, may reach; address blocks are left out."""
    allowing: defaultdict[int, list[int]] = defaultdict(list)
    for number, rule in enumerate(rules):
        for peer in _peers_of(rule, peer_sets):
            allowing[peer].append(number)
    # Thousands of peers, few combinations of rules: each union is made once.
    ports = [_ports_of(rule) for rule in rules]
    unions = {
        combination: reduce(or_, (ports[number] for number in combination))
        for combination in {tuple(numbers) for numbers in allowing.values()}
    }
    return {peer: unions[tuple(numbers)] for peer, numbers in allowing.items()}


def _peers_of(rule: DirectionRule, peer_sets: Mapping[bytes, PeerSet]) -> set[int]:
    if rule.all_peers:
        return {EVERY_PEER}
    return {number for key in rule.peer_sets for number in peer_sets[key].identities}


def _ports_of(rule: DirectionRule) -> _Ports:
    return _Ports(ranges=merge_ranges(rule.ports)) if rule.ports else _Ports(every=True)


def _without(ports: _Ports, covered: _Ports) -> _Ports:
    """Leaves out the ranges that are allowed to everyone anyway; entries only ever allow."""
    if ports.every:
        return _NOTHING if covered.every else ports
    return _Ports(ranges=tuple(item for item in ports.ranges if not covered.covers(item)))


def _entries(peer: int, ports: _Ports) -> Iterator[PolicyEntry]:
    if ports.every:
        yield PolicyEntry(peer=peer)
    for item in ports.ranges:
        for first, bits in _aligned(item.first, item.last):
            port = first if bits else None
            yield PolicyEntry(peer=peer, protocol=item.protocol, port=port, port_bits=bits)


def _aligned(first: int, last: int) -> Iterator[tuple[int, int]]:
    """The fewest aligned ranges that make up first..last, as (first port, leading bits)."""
    while first <= last:
        size = first & -first or MAX_PORT + 1
        while first + size - 1 > last:
            size >>= 1
        yield first, _PORT_BITS - size.bit_length() + 1
        first += size


# --- address blocks to classes --------------------------------------------------------------------


def _classes(
    rules: Sequence[DirectionRule], for_everyone: _Ports
) -> tuple[tuple[PrefixEntry, ...], list[tuple[int, _Ports]]]:
    """Classes of the addresses that blocks name.

    Between two neighbouring boundaries (a cidr or an exception) every address is covered by the
    same rules, so each boundary gets the class of the union of what covers it. The kernel finds the
    longest prefix, hence the innermost boundary.

    Returns:
        The prefixes, and (class number, ports) ascending.
    """
    blocks: defaultdict[Prefix, list[tuple[IPBlock, _Ports]]] = defaultdict(list)
    for rule in rules:
        ports = _ports_of(rule)
        for block in rule.blocks:
            blocks[block.cidr].append((block, ports))
    holes = {hole for rule in rules for block in rule.blocks for hole in block.except_}
    boundaries = {*blocks, *holes}
    # Rules may list thousands of prefixes but few lengths.
    lengths = sorted({cidr.length for cidr in blocks})
    allowed: dict[tuple[bytes, int], _Ports] = {}
    if any(not prefix.is_ipv4 for prefix in boundaries):
        # A wide IPv6 prefix such as ::/0 holds the IPv4-mapped addresses but does not mean them.
        allowed[_V4_SPACE] = _NOTHING
    for boundary in boundaries:
        union = _NOTHING
        for cidr in _wider(boundary, lengths):
            for block, ports in blocks.get(cidr, ()):
                if not any(hole.contains(boundary) for hole in block.except_):
                    union |= ports
        allowed[boundary.mapped] = _without(union, for_everyone)
    kept = _without_repeats(allowed)
    distinct = sorted({ports for _, _, ports in kept if ports}, key=_canonical)
    numbers = {ports: CLASS_BIT | index for index, ports in enumerate(distinct, start=1)}
    prefixes = tuple(
        PrefixEntry(address=address, length=length, peer_class=numbers.get(ports, 0))
        for address, length, ports in kept
    )
    return prefixes, [(number, ports) for ports, number in numbers.items()]


def _wider(prefix: Prefix, lengths: Iterable[int]) -> Iterator[Prefix]:
    """The prefix itself and those around it, of the given lengths."""
    bits = len(prefix.address) * 8
    number = int.from_bytes(prefix.address)
    for length in lengths:
        if length > prefix.length:
            return
        network = number >> (bits - length) << (bits - length)
        yield Prefix(network.to_bytes(len(prefix.address)), length)


def _without_repeats(
    allowed: Mapping[tuple[bytes, int], _Ports],
) -> list[tuple[bytes, int, _Ports]]:
    """Leaves out prefixes that say what the next wider one says; ascending.

    In ascending order of (address, length) a wider prefix comes before those inside it, and the
    prefixes around the current one form a stack.
    """
    kept: list[tuple[bytes, int, _Ports]] = []
    around: list[tuple[bytes, int, _Ports]] = []
    for (address, length), ports in sorted(allowed.items(), key=lambda item: item[0]):
        while around and not _inside(address, around[-1]):
            around.pop()
        wider = around[-1][2] if around else _NOTHING
        if ports != wider:
            kept.append((address, length, ports))
            around.append(kept[-1])
    return kept


def _inside(address: bytes, wider: tuple[bytes, int, _Ports]) -> bool:
    shift = 128 - wider[1]
    return int.from_bytes(address) >> shift == int.from_bytes(wider[0]) >> shift


def _canonical(ports: _Ports) -> tuple[bool, tuple[PortRange, ...]]:
    return (not ports.every, ports.ranges)
