"""The watermark: a revision that every live node has passed. No I/O and no clock.

What a replica says of its agents is true for good: a node never goes back behind what it has
acknowledged, and one that lost its kernel state takes nothing older than its registration. So
reports may be old, and come from replicas that are gone: they make the watermark late, never wrong.
"""

import re
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from deltaplane.errors import Invalid

_HEAD = struct.Struct(">16sB")
_GROUP = struct.Struct(">QI")
_WATERMARK = struct.Struct(">16sQQ")
_NEVER = float("-inf")
_SOME_BITS = re.compile(rb"[^\0]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All these nodes (numbers) have passed a revision."""

    revision: int
    nodes: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What one replica vouches for.

    Attributes:
        lineage: of the revisions, 16 bytes.
        groups: live agents, then fenced ones: a fenced node that lags holds nobody back.
    """

    lineage: bytes
    groups: tuple[Group, ...]

    @property
    def nodes(self) -> frozenset[int]:
        """All nodes that are covered."""
        return frozenset().union(*(group.nodes for group in self.groups))


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermark:
    """Revisions that every live node, and every registered node, has passed; 0: none is known.

    live is never below strict.
    """

    live: int = 0
    strict: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """A fence in the store. joining: it came with the registration; created: at which revision."""

    node: str
    node_index: int
    node_uid: str
    joining: bool
    created: int


# --- records -------------------------------------------------------------------------------------


def encode_coverage(coverage: Coverage) -> bytes:
    """Each group as revision and deflated bitmap: 5,000 nodes of one replica are 30 bytes."""
    parts = [_HEAD.pack(coverage.lineage, len(coverage.groups))]
    for group in coverage.groups:
        bitmap = bytearray(max(group.nodes, default=0) // 8 + 1)
        for node in group.nodes:
            bitmap[node // 8] |= 1 << node % 8
        packed = zlib.compress(bitmap)
        parts += [_GROUP.pack(group.revision, len(packed)), packed]
    return b"".join(parts)


def decode_coverage(data: bytes) -> Coverage:
    """Reads what `encode_coverage` wrote.

    Raises:
        Invalid: it did not.
    """
    try:
        lineage, count = _HEAD.unpack_from(data)
        position, groups = _HEAD.size, []
        for _ in range(count):
            revision, length = _GROUP.unpack_from(data, position)
            position += _GROUP.size
            bitmap = zlib.decompress(data[position : position + length])
            groups.append(Group(revision=revision, nodes=frozenset(_set_bits(bitmap))))
            position += length
    except (struct.error, zlib.error) as error:
        raise Invalid("coverage", str(error)) from error
    if position != len(data):
        raise Invalid("coverage", "something follows its last group")
    return Coverage(lineage=lineage, groups=tuple(groups))


def _set_bits(bitmap: bytes) -> Iterator[int]:
    # After a restore numbers begin at 2^20: a loop over all those zeros takes milliseconds.
    for found in _SOME_BITS.finditer(bitmap):
        position, byte = found.start(), bitmap[found.start()]
        for bit in range(8):
            if byte >> bit & 1:
                yield 8 * position + bit


def encode_watermark(lineage: bytes, watermark: Watermark) -> bytes:
    """The value of the watermark's key."""
    return _WATERMARK.pack(lineage, watermark.live, watermark.strict)


def decode_watermark(data: bytes | None, lineage: bytes) -> Watermark:
    """The watermark as stored; of another lineage, unreadable or absent: none."""
    if data is None or len(data) != _WATERMARK.size:
        return Watermark()
    found, live, strict = _WATERMARK.unpack(data)
    return Watermark(live=live, strict=strict) if found == lineage else Watermark()


# --- decisions -----------------------------------------------------------------------------------


def reach(coverages: Iterable[Coverage]) -> dict[int, int]:
    """The revision that each covered node has passed: the highest that anybody vouches for."""
    found: dict[int, int] = {}
    for coverage in coverages:
        for group in coverage.groups:
            for node in group.nodes:
                found[node] = max(found.get(node, 0), group.revision)
    return found


def advance(
    coverages: Iterable[Coverage],
    *,
    nodes: Collection[int],
    fenced: Collection[int],
    epoch: int,
    scanned: int,
    current: Watermark,
) -> Watermark | None:
    """The next watermark; None: it stays.

    Whoever writes it compares that the current one and the epoch are unchanged: a fence that goes
    at the same time either sees this watermark, or this computation is repeated without that fence.

    Args:
        coverages: of this lineage.
        nodes: numbers of the registered nodes, as of scanned. Nodes that register later take no
            view older than their registration, so they need not be counted.
        fenced: those of them with a fence, as of scanned.
        epoch: revision at which the last fence went; 0: none ever did.
        scanned: revision of nodes and fences.
        current: the watermark now.
    """
    if scanned < epoch:
        return None  # a node that counts as fenced here is live again
    passed = reach(coverages)
    strict = _lowest(nodes, passed, scanned)
    live = _lowest(set(nodes) - set(fenced), passed, scanned)
    following = Watermark(live=max(current.live, live), strict=max(current.strict, strict))
    return None if following == current else following


def _lowest(nodes: Iterable[int], passed: Mapping[int, int], scanned: int) -> int:
    """What all nodes have passed, not above scanned; one that nobody covers has passed nothing."""
    return min(scanned, min((passed.get(node, 0) for node in nodes), default=scanned))


def may_unfence(*, effective: int, renewed: bool, watermark: int) -> bool:
    """Whether a fence may go.

    Args:
        effective: revision that the node provably agrees with.
        renewed: it has acknowledged a snapshot that was begun while it was fenced.
        watermark: the live one. Whoever deletes the fence compares that it is unchanged.
    """
    return renewed and effective >= watermark


class Patience:
    """How long each live node has not been known to be up to date; one replica's view of it."""

    LONGEST_GAP_SECONDS = 5.0
    """A replica that did not look for longer than this was stalled: it counts anew."""

    def __init__(self, stale_after: float) -> None:
        """stale_after: seconds."""
        self._stale_after = stale_after
        self._since: dict[int, float] = {}
        self._looked_at = float("-inf")

    def rest(self, now: float) -> None:
        """Nothing waits for the watermark, so nobody is counted."""
        self._since.clear()
        self._looked_at = now

    def fences_due(
        self,
        *,
        now: float,
        live: Collection[int],
        covered: Collection[int],
        current: Mapping[int, float],
    ) -> tuple[int, ...]:
        """Live nodes that the watermark, which is waited for, need not wait for, ascending.

        Whoever writes the fences compares that no replica has begun to cover a node meanwhile.

        Args:
            now: seconds.
            live: numbers of registered nodes without fence.
            covered: by other replicas; those say themselves when their agents lag.
            current: for own agents, when they were last up to date, seconds.
        """
        if now > self._looked_at + self.LONGEST_GAP_SECONDS:
            self._since.clear()
        self._looked_at = now
        since = {
            node: now
            if node in covered
            else max(self._since.get(node, now), current.get(node, _NEVER))
            for node in live
        }
        self._since = since
        return tuple(sorted(n for n, then in since.items() if now - then > self._stale_after))
