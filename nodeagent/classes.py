"""From address blocks with exceptions to classes of addresses. Pure.

Between two neighbouring boundaries (a cidr or an exception) every address is covered by the same
rules, so each boundary gets the class of what covers it. The kernel finds the longest prefix, hence
the innermost boundary.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from deltaplane.model.addresses import V4_MAPPED, Prefix
from deltaplane.model.objects import DirectionRule
from nodeagent.dataplane.port import PrefixEntry
from nodeagent.flattening import Piece
from nodeagent.verdict import CLASS_BIT

Covering = tuple[int, ...]
"""Numbers of rules, ascending."""

Content = tuple[Piece, ...]
"""What the entries of a class say; two classes with the same content are one."""

_V4_SPACE = (V4_MAPPED + bytes(4), 96)
"""Where IPv4 lives among 16-byte addresses."""

_Both = tuple[Content, Content]
"""Of an address that somebody has, and of one that nobody has."""

_NONE: _Both = ((), ())


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule at one of its blocks."""

    number: int
    holes: frozenset[Prefix]
    hole_lengths: tuple[int, ...]
    outside_only: bool


def classes(
    rules: Sequence[tuple[int, DirectionRule]], content_of: Callable[[Covering], Content]
) -> tuple[tuple[PrefixEntry, ...], list[tuple[int, Content]]]:
    """Classes of the addresses that the rules' blocks name.

    Args:
        rules: with their numbers, ascending.
        content_of: what a combination of rules says.

    Returns:
        The prefixes, and (class number, content), both ascending.
    """
    blocks: defaultdict[Prefix, list[_Rule]] = defaultdict(list)
    for number, rule in rules:
        for block in rule.blocks:
            lengths = tuple(sorted({hole.length for hole in block.except_}))
            at_block = _Rule(number, frozenset(block.except_), lengths, rule.outside_only)
            blocks[block.cidr].append(at_block)
    boundaries = {*blocks, *(hole for at in blocks.values() for rule in at for hole in rule.holes)}
    found: dict[tuple[bytes, int], _Both] = {}
    if any(not prefix.is_ipv4 for prefix in boundaries):
        # A wide IPv6 prefix such as ::/0 holds the IPv4-mapped addresses but does not mean them.
        found[_V4_SPACE] = _NONE
    # Rules may list thousands of prefixes but few lengths.
    cidr_lengths = sorted({cidr.length for cidr in blocks})
    for boundary in boundaries:
        covering = [
            rule
            for cidr in _wider(boundary, cidr_lengths)
            for rule in blocks.get(cidr, ())
            if rule.holes.isdisjoint(_wider(boundary, rule.hole_lengths))
        ]
        found[boundary.mapped] = (
            content_of(_numbers(rule for rule in covering if not rule.outside_only)),
            content_of(_numbers(covering)),
        )
    return _numbered(_without_repeats(found))


def _numbers(rules: Iterable[_Rule]) -> Covering:
    return tuple(sorted({rule.number for rule in rules}))


def _numbered(
    kept: Sequence[tuple[bytes, int, _Both]],
) -> tuple[tuple[PrefixEntry, ...], list[tuple[int, Content]]]:
    distinct = sorted({content for _, _, both in kept for content in both if content})
    numbers = {content: CLASS_BIT | index for index, content in enumerate(distinct, start=1)}
    prefixes = tuple(
        PrefixEntry(
            address=address,
            length=length,
            peer_class=numbers.get(both[0], 0),
            outside_class=numbers.get(both[1], 0),
        )
        for address, length, both in kept
    )
    return prefixes, [(number, content) for content, number in numbers.items()]


def _wider(prefix: Prefix, lengths: Iterable[int]) -> Iterator[Prefix]:
    """The prefix itself and those around it, of the given lengths, ascending."""
    bits = len(prefix.address) * 8
    number = int.from_bytes(prefix.address)
    for length in lengths:
        if length > prefix.length:
            return
        network = number >> (bits - length) << (bits - length)
        yield Prefix(network.to_bytes(len(prefix.address)), length)


def _without_repeats(
    found: Mapping[tuple[bytes, int], _Both],
) -> list[tuple[bytes, int, _Both]]:
    """Leaves out prefixes that say what the next wider one says; ascending.

    In ascending order of (address, length) a wider prefix comes before those inside it, and the
    prefixes around the current one form a stack.
    """
    kept: list[tuple[bytes, int, _Both]] = []
    around: list[tuple[bytes, int, _Both]] = []
    for (address, length), both in sorted(found.items(), key=lambda item: item[0]):
        while around and not _inside(address, around[-1]):
            around.pop()
        wider = around[-1][2] if around else _NONE
        if both != wider:
            kept.append((address, length, both))
            around.append(kept[-1])
    return kept


def _inside(address: bytes, wider: tuple[bytes, int, _Both]) -> bool:
    shift = 128 - wider[1]
    return int.from_bytes(address) >> shift == int.from_bytes(wider[0]) >> shift
