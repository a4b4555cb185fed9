"""From rules that overlap to entries of a longest-match table that do not need each other. Pure.

Several rules may match one port, and the kernel's table answers with one entry: each entry must
hold what all rules together say there. The port space of a protocol is cut where rules begin and
end, and covered with the fewest aligned prefixes whose longest match gives the answer everywhere.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from deltaplane.model.ports import MAX_PORT, PortRange, Protocol
from nodeagent.dataplane.port import Decisions
from nodeagent.verdict import NOTHING, PORT_BITS, highest

Choices = frozenset[Decisions]
"""Answers of which any will do."""

Cut = tuple[tuple[int, Decisions], ...]
"""(first port, what is said) of ranges that reach to the next; ascending, the first begins at 0."""


@dataclass(frozen=True, slots=True)
class Said:
    """What one rule says, and to which ports.

    Attributes:
        decisions: nothing but in the rule's own tier.
        ports: empty: every port of every protocol.
    """

    decisions: Decisions
    ports: tuple[PortRange, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """What some rules say together.

    Attributes:
        anywhere: to protocols that none of them names.
        ports: to the ports of the others.
    """

    anywhere: Decisions
    ports: Mapping[Protocol, Cut]


@dataclass(frozen=True, slots=True, order=True)
class Piece:
    """One entry without its peer. protocol, port: -1: every."""

    protocol: int
    port: int
    port_bits: int
    decisions: Decisions


@dataclass(frozen=True, slots=True)
class _Block:
    """An aligned range of ports, and what may be answered everywhere in it.

    Attributes:
        choices: answers with which it takes the fewest entries.
        halves: empty: all of it has the same answer.
    """

    first: int
    bits: int
    choices: Choices
    halves: tuple["_Block", ...] = ()


def profile(rules: Sequence[Said]) -> Profile:
    """What rules say together, everywhere."""
    anywhere = _union((rule.decisions for rule in rules if not rule.ports), NOTHING)
    by_protocol: defaultdict[Protocol, list[tuple[PortRange, Decisions]]] = defaultdict(list)
    for rule in rules:
        for item in rule.ports:
            by_protocol[item.protocol].append((item, rule.decisions))
    return Profile(anywhere, {p: _cut(ranges, anywhere) for p, ranges in by_protocol.items()})


def flatten(own: Profile, others: Profile) -> tuple[Piece, ...]:
    """The fewest entries that say what one peer's rules say, ascending.

    Args:
        own: the rules of the peer.
        others: those that are asked about the same packets anyway: what they overrule need not be
            said again.
    """
    anywhere = _reduced(own.anywhere, others.anywhere)
    pieces = [Piece(-1, -1, 0, anywhere)] if anywhere != NOTHING else []
    for protocol in sorted(own.ports.keys() | others.ports.keys()):
        choices = _merged(
            own.ports.get(protocol, ((0, own.anywhere),)),
            others.ports.get(protocol, ((0, others.anywhere),)),
        )
        pieces += [
            Piece(protocol, first if bits else -1, bits, said)
            for first, bits, said in _entries(_tree(choices, 0, 0), anywhere)
        ]
    return tuple(sorted(pieces))


def _union(decisions: Iterable[Decisions], least: Decisions) -> Decisions:
    return reduce(highest, decisions, least)


def _reduced(said: Decisions, others: Decisions) -> Decisions:
    """Without what the others overrule."""
    admin, normal, baseline = (a if a > b else 0 for a, b in zip(said, others, strict=True))
    return admin, normal, baseline


def _cut(ranges: Sequence[tuple[PortRange, Decisions]], anywhere: Decisions) -> Cut:
    begins: defaultdict[int, list[Decisions]] = defaultdict(list)
    ends: defaultdict[int, list[Decisions]] = defaultdict(list)
    for item, decisions in ranges:
        begins[item.first].append(decisions)
        ends[item.last + 1].append(decisions)
    open_: Counter[Decisions] = Counter()
    found: list[tuple[int, Decisions]] = []
    for first in sorted({0, *begins, *ends} - {MAX_PORT + 1}):
        open_.subtract(ends.get(first, ()))
        open_.update(begins.get(first, ()))
        said = _union((decisions for decisions, count in open_.items() if count), anywhere)
        if not found or found[-1][1] != said:
            found.append((first, said))
    return tuple(found)


def _merged(own: Cut, others: Cut) -> list[tuple[int, Choices]]:
    """The answers in each range; neighbours differ."""
    found: list[tuple[int, Choices]] = []
    mine = theirs = 0
    for first in sorted({first for first, _ in (*own, *others)}):
        if mine + 1 < len(own) and own[mine + 1][0] == first:
            mine += 1
        if theirs + 1 < len(others) and others[theirs + 1][0] == first:
            theirs += 1
        said = own[mine][1]
        choices = frozenset({said, _reduced(said, others[theirs][1])})
        if not found or found[-1][1] != choices:
            found.append((first, choices))
    return found


def _tree(cut: Sequence[tuple[int, Choices]], first: int, bits: int) -> _Block:
    """The block of ports that begin with `bits` bits of `first`, from the ranges that meet it."""
    if len(cut) == 1:
        return _Block(first, bits, cut[0][1])
    middle = first + (1 << (PORT_BITS - bits - 1))
    after = next((i for i, item in enumerate(cut) if item[0] >= middle), len(cut))
    lower, upper = cut[:after], cut[after:]
    if not upper or upper[0][0] > middle:
        upper = [lower[-1], *upper]
    halves = (_tree(lower, first, bits + 1), _tree(upper, middle, bits + 1))
    both, either = halves[0].choices & halves[1].choices, halves[0].choices | halves[1].choices
    return _Block(first, bits, both or either, halves)


def _entries(block: _Block, inherited: Decisions) -> Iterator[tuple[int, int, Decisions]]:
    """(first port, leading bits, decisions) where the answer is not that of the wider entry."""
    if inherited not in block.choices:
        inherited = min(block.choices)
        yield block.first, block.bits, inherited
    for half in block.halves:
        yield from _entries(half, inherited)
