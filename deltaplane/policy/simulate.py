"""What a change of policies would change: which connections between those who are there now.

Pods that no policy tells apart are looked at once, and so are ports: what grows is the number of
kinds of pods, not of pods.

    changed policies ──► their subjects ──► peers, ports ──► what both sides say ──► Change
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from deltaplane.model.addresses import Prefix
from deltaplane.model.identity import FIRST_IDENTITY, Identity, LabelSet
from deltaplane.model.ports import MAX_PORT, TRANSPORTS, PortRange, Protocol
from deltaplane.model.tiers import Policy, Rule
from deltaplane.policy.explain import Party, Way, rules_of, side, way
from deltaplane.policy.index import MatchIndex
from deltaplane.policy.rules import term
from deltaplane.policy.terms import Term

MAX_CHANGES = 1000
MAX_PAIRS = 200_000
"""Tens of seconds: a pair took 60 to 200 us of CPU among 6,000 identities and 30,000 policies."""

_MAX_ICMP_TYPE = 255
_V4_SIZE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Connections that one set of policies allows and the other does not.

    Attributes:
        sources: parties that the change applies to, all of one identity and one address family.
        destinations: the same at the other end.
        ports: destination ports, or types of ICMP messages.
        allowed: whether they pass afterwards; before it is the other way round.
    """

    sources: tuple[Party, ...]
    destinations: tuple[Party, ...]
    ports: PortRange
    allowed: bool

    @property
    def source(self) -> int:
        """Identity of the sources."""
        return self.sources[0].identity

    @property
    def destination(self) -> int:
        """Identity of the destinations."""
        return self.destinations[0].identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What would change.

    Attributes:
        changes: ascending by identity of source and destination, then ports.
        complete: False: there may be more; the search ended at one of its limits.
        pairs: pairs of classes that were looked at.
    """

    changes: tuple[Change, ...]
    complete: bool
    pairs: int


def simulate(
    before: Iterable[Policy],
    after: Iterable[Policy],
    parties: Iterable[Party],
    *,
    max_changes: int = MAX_CHANGES,
    max_pairs: int = MAX_PAIRS,
) -> Simulation:
    """Compares two sets of policies. Policies under audit count as if they were not there.

    Args:
        before: all policies as they are; `translate.of_network_policy` is for NetworkPolicies.
        after: all policies as they would be: the same ones but for those that change.
        parties: everybody, one for each address: pods with number and label set of their identity;
            nodes and what is outside with a reserved identity, as far as one wants to know.
        max_changes: ends the search; more than 0.
        max_pairs: ends the search, too: pairs of classes to look at.

    Returns:
        What changes for TCP, UDP, SCTP, ICMP and ICMPv6. What no side asks policies of (from a
        pod's own node, between addresses of no pod) never changes.
    """
    search = _Search(tuple(before), tuple(after), parties)
    changes: list[Change] = []
    pairs = 0
    for source, destination in search.suspects():
        if pairs >= max_pairs or len(changes) >= max_changes:
            return Simulation(changes=_sorted(changes[:max_changes]), complete=False, pairs=pairs)
        pairs += 1
        changes.extend(search.differences(source, destination))
    complete = len(changes) <= max_changes
    return Simulation(changes=_sorted(changes[:max_changes]), complete=complete, pairs=pairs)


@dataclass(frozen=True, slots=True, eq=False)
class _Class:
    """Parties that no policy tells apart. one: any of them."""

    number: int
    one: Party
    parties: list[Party] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Subject:
    """Policies that apply to a class in one direction. differs: not the same before and after."""

    before: tuple[Policy, ...]
    after: tuple[Policy, ...]
    differs: bool
    rules: tuple[Rule, ...]


_Piece = tuple[int, int, bool, bool]
"""First port, last port, and whether they pass before and after."""
_Table = Mapping[Protocol, tuple[_Piece, ...]]


class _Search:
    def __init__(
        self, before: tuple[Policy, ...], after: tuple[Policy, ...], parties: Iterable[Party]
    ) -> None:
        self._before, self._after = before, after
        old = {policy.reference: policy for policy in before}
        new = {policy.reference: policy for policy in after}
        self._changed = {name for name in old | new if old.get(name) != new.get(name)}
        self._classes = _classes(parties, (*before, *after))
        label_sets = {c.one.label_set for c in self._classes if c.one.label_set is not None}
        self._old = _Selection(before, label_sets)
        self._new = _Selection(after, label_sets)
        self._subjects: dict[tuple[LabelSet, bool], _Subject] = {}
        self._tables: dict[tuple[object, ...], _Table] = {}

    def suspects(self) -> Iterator[tuple[_Class, _Class]]:
        """Pairs of a source and a destination of which one side's verdict differs somewhere."""
        by_family: defaultdict[int, list[_Class]] = defaultdict(list)
        for item in self._classes:
            by_family[len(item.one.address)].append(item)
        for family in by_family.values():
            leaving = {c.number for c in family if self._differs(c, outgoing=True)}
            entering = [c for c in family if self._differs(c, outgoing=False)]
            for source in family:
                yield from (
                    (source, destination)
                    for destination in (family if source.number in leaving else entering)
                )

    def differences(self, source: _Class, destination: _Class) -> Iterator[Change]:
        """What changes between two classes."""
        egress = self._table(source, destination, outgoing=True)
        if not (_differs(egress) or self._differs(destination, outgoing=False)):
            return
        ingress = self._table(destination, source, outgoing=False)
        for protocol, pieces in egress.items():
            for first, last, allowed in _joined(_changed(pieces, ingress[protocol])):
                yield Change(
                    sources=tuple(source.parties),
                    destinations=tuple(destination.parties),
                    ports=PortRange(protocol, first, last),
                    allowed=allowed,
                )

    def _differs(self, item: _Class, *, outgoing: bool) -> bool:
        label_set = item.one.label_set
        return label_set is not None and self._subject(label_set, outgoing=outgoing).differs

    def _subject(self, label_set: LabelSet, *, outgoing: bool) -> _Subject:
        if (found := self._subjects.get((label_set, outgoing))) is None:
            before = self._old.applying(label_set, outgoing=outgoing)
            after = self._new.applying(label_set, outgoing=outgoing)
            found = _Subject(
                before=before,
                after=after,
                differs=any(p.reference in self._changed for p in (*before, *after)),
                rules=tuple(
                    rule for p in (*before, *after) for rule in rules_of(p, outgoing=outgoing)
                ),
            )
            self._subjects[label_set, outgoing] = found
        return found

    def _table(self, item: _Class, peer: _Class, *, outgoing: bool) -> _Table:
        """What one side says. Peers that all of its rules treat alike share a table."""
        label_set = item.one.label_set
        if label_set is None:
            return _everything(peer.one)
        subject = self._subject(label_set, outgoing=outgoing)
        ways: tuple[Way, ...] = tuple(way(rule, peer.one) for rule in subject.rules)
        destination = (peer if outgoing else item).one.label_set
        ports = destination.named_ports if destination is not None else ()
        # To the host's own traffic no rule applies.
        reserved = peer.one.identity if peer.one.label_set is None else FIRST_IDENTITY
        key = (label_set, outgoing, ways, ports, reserved, len(peer.one.address))
        if (found := self._tables.get(key)) is None:
            cuts = _cuts(subject.rules, destination, peer.one)
            ends = (item.one, peer.one)
            found = self._tables[key] = {
                protocol: tuple(
                    self._piece(subject, ends, PortRange(protocol, *piece), outgoing=outgoing)
                    for piece in pieces
                )
                for protocol, pieces in cuts.items()
            }
        return found

    @staticmethod
    def _piece(
        subject: _Subject, ends: tuple[Party, Party], ports: PortRange, *, outgoing: bool
    ) -> _Piece:
        before, after = (
            side(
                policies,
                *ends,
                protocol=ports.protocol,
                port=ports.first,
                outgoing=outgoing,
            ).allowed
            for policies in (subject.before, subject.after)
        )
        return ports.first, ports.last, before, after


class _Selection:
    """Which policies select which label sets."""

    def __init__(self, policies: Iterable[Policy], label_sets: Iterable[LabelSet]) -> None:
        self._index = MatchIndex()
        self._policies: defaultdict[Term, list[Policy]] = defaultdict(list)
        self._numbers: dict[LabelSet, int] = {}
        for number, label_set in enumerate(label_sets, start=FIRST_IDENTITY):
            self._numbers[label_set] = number
            self._index.add_identity(Identity(number, label_set))
        for policy in policies:
            subject = term(policy.subject)
            if subject not in self._policies:
                self._index.add_term(subject)
            self._policies[subject].append(policy)

    def applying(self, label_set: LabelSet, *, outgoing: bool) -> tuple[Policy, ...]:
        """Policies that apply to a label set in a direction, ascending by reference."""
        found = (
            policy
            for subject in self._index.terms(self._numbers[label_set])
            for policy in self._policies[subject]
            if rules_of(policy, outgoing=outgoing)
            or (policy.isolates_egress if outgoing else policy.isolates_ingress)
        )
        return tuple(sorted(found, key=lambda policy: policy.reference))


# --- classes of parties ---------------------------------------------------------------------------


def _classes(parties: Iterable[Party], policies: Iterable[Policy]) -> list[_Class]:
    """One class for each identity, family and set of prefixes of policies around the address."""
    lengths = _prefixes(policies)
    found: dict[tuple[object, ...], _Class] = {}
    ordered = sorted(parties, key=lambda party: (party.identity, party.address))
    for party in ordered:
        around = tuple(_around(party.address, lengths[len(party.address)]))
        key = (party.identity, party.label_set, len(party.address), around)
        if key not in found:
            found[key] = _Class(len(found), party)
        found[key].parties.append(party)
    return list(found.values())


_Lengths = dict[int, set[int]]
"""Network numbers of the prefixes of each length."""


def _prefixes(policies: Iterable[Policy]) -> defaultdict[int, _Lengths]:
    """By size of the address, then by length."""
    found: defaultdict[int, _Lengths] = defaultdict(dict)
    for policy in policies:
        for rule in (*policy.ingress, *policy.egress):
            for block in rule.blocks:
                for prefix in (block.cidr, *block.except_):
                    size = len(prefix.address)
                    found[size].setdefault(prefix.length, set()).add(_network(prefix))
    return found


def _network(prefix: Prefix) -> int:
    return int.from_bytes(prefix.address) >> (8 * len(prefix.address) - prefix.length)


def _around(address: bytes, lengths: _Lengths) -> Iterator[tuple[int, int]]:
    value, bits = int.from_bytes(address), 8 * len(address)
    for length, networks in lengths.items():
        if (network := value >> (bits - length)) in networks:
            yield length, network


# --- pieces of ports ------------------------------------------------------------------------------


def _protocols(peer: Party) -> tuple[tuple[Protocol, int], ...]:
    """Protocols of the family, and their last port."""
    icmp = Protocol.ICMP if len(peer.address) == _V4_SIZE else Protocol.ICMPV6
    return (*((protocol, MAX_PORT) for protocol in TRANSPORTS), (icmp, _MAX_ICMP_TYPE))


def _everything(peer: Party) -> _Table:
    return {protocol: ((0, last, True, True),) for protocol, last in _protocols(peer)}


def _cuts(
    rules: Iterable[Rule], destination: LabelSet | None, peer: Party
) -> dict[Protocol, list[tuple[int, int]]]:
    """Ranges of ports inside which no rule tells one from another."""
    last_of = dict(_protocols(peer))
    starts: dict[Protocol, set[int]] = {protocol: {0} for protocol in last_of}
    named = {name for rule in rules for name in rule.port_names}
    ranges = [item for rule in rules for item in rule.ranges]
    if destination is not None:
        ranges += [
            PortRange(port.protocol, port.number, port.number)
            for port in destination.named_ports
            if (port.name, port.protocol) in named
        ]
    for item in ranges:
        if (found := starts.get(item.protocol)) is not None:
            found.update((item.first, item.last + 1))
    return {
        protocol: [
            (first, following - 1)
            for first, following in zip(ordered, (*ordered[1:], last_of[protocol] + 1), strict=True)
        ]
        for protocol, found in starts.items()
        if (ordered := sorted(start for start in found if start <= last_of[protocol]))
    }


def _differs(table: _Table) -> bool:
    return any(before != after for pieces in table.values() for _, _, before, after in pieces)


def _changed(
    egress: tuple[_Piece, ...], ingress: tuple[_Piece, ...]
) -> Iterator[tuple[int, int, bool]]:
    """First port, last port and verdict afterwards, where both sides together change."""
    one = other = 0
    while one < len(egress) and other < len(ingress):
        first, last, egress_before, egress_after = egress[one]
        low, high, ingress_before, ingress_after = ingress[other]
        before, after = egress_before and ingress_before, egress_after and ingress_after
        if before != after:
            yield max(first, low), min(last, high), after
        one += last <= high
        other += high <= last


def _joined(pieces: Iterable[tuple[int, int, bool]]) -> Iterator[tuple[int, int, bool]]:
    waiting: tuple[int, int, bool] | None = None
    for piece in pieces:
        if waiting is not None and waiting[1] + 1 == piece[0] and waiting[2] == piece[2]:
            waiting = waiting[0], piece[1], piece[2]
            continue
        if waiting is not None:
            yield waiting
        waiting = piece
    if waiting is not None:
        yield waiting


def _sorted(changes: Iterable[Change]) -> tuple[Change, ...]:
    return tuple(sorted(changes, key=lambda c: (c.source, c.destination, c.ports, c.allowed)))
