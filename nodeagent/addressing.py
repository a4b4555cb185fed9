"""Addresses of one block: who has them, who had them, and when they may be somebody else's.

Pure.

Every address of a block is in exactly one of these places:

    fresh ──take──► held ──give──► quarantined ──watermark ≥ R──► free ──take──► held

or is held back, because its pool reserves it or because another node has claimed it for a pod that
asked for it by number. Sets of addresses are bit masks over their offsets: a block of 64 is one
machine word, and copying it costs nothing.
"""

from bisect import insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from deltaplane.model.addresses import Prefix

UNSCANNED_REVISIONS = 1_000_000
"""How far a revision that the registry has answered can be above what a slicer has scanned. A
revision further above comes from a store that is gone.
"""


class Released(NamedTuple):
    """What is remembered of an address that was held.

    Attributes:
        offset: which address of its block.
        revision: at it no endpoint has the address any more.
        lineage: of the revision; empty: not known, see `restamp`.
        since: wall clock seconds of the release, for people.
    """

    offset: int
    revision: int
    lineage: bytes
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the nodes of the cluster are, as the last barrier said.

    Attributes:
        lineage: of all revisions here; empty before the first barrier.
        head: newest revision that the slicer had scanned.
        watermark: every live node has passed it; 0: not known.
        strict: every registered node has passed it, fenced ones included; 0: not known.
        only_strict: addresses wait for fenced nodes, too (`--reuse strict`).
    """

    lineage: bytes = b""
    head: int = 0
    watermark: int = 0
    strict: int = 0
    only_strict: bool = False

    @property
    def limit(self) -> int:
        """What was released at this revision or before may be handed out."""
        return self.strict if self.only_strict else self.watermark

    def passed(self, lineage: bytes, revision: int) -> bool:
        """Whether every node that counts knows what happened at a revision."""
        return lineage == self.lineage != b"" and revision <= self.limit

    def stamp(self, lineage: bytes, revision: int) -> int:
        """The revision, in our lineage, for one of another lineage: the head.

        One of no known lineage shortly above the head stays: no slicer may have scanned it yet.
        """
        ahead = not lineage and self.head < revision <= self.head + UNSCANNED_REVISIONS
        return revision if ahead else self.head


class Counts(NamedTuple):
    """Where the addresses of a block are; they add up to its size.

    Attributes:
        held: interfaces have them.
        quarantined: released, and some node may not know it; or nobody knows yet when that was.
        reserved: held back by the pool.
        foreign: held back because another node has claimed them one by one.
        free: the rest. They can be handed out unless the block itself has to wait.
    """

    held: int = 0
    quarantined: int = 0
    reserved: int = 0
    foreign: int = 0
    free: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """The sum of both."""
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of this node.

    Attributes:
        ordinal: 1 or more, its number among all that this node ever claimed.
        pool: name of its pool.
        prefix: the block.
        fixed: a single address that a pod has asked for by number.
        releasing: it is being given back; nothing is handed out of it any more.
        network: of the IPAM-only mode that has it as a whole; empty: it is for pods of our own.
        usable_after: nothing is handed out before every node has passed this revision; 0: at once.
        lineage: of `usable_after`; empty: not known.
        since: wall clock seconds of the claim.
        held: mask of addresses that interfaces have.
        rested: mask of addresses in `released`.
        released: lowest revision first, then lowest offset.
        reserved: mask of addresses that the pool reserves.
        foreign: mask of addresses that other nodes have claimed one by one.
    """

    ordinal: int
    pool: str
    prefix: Prefix
    fixed: bool = False
    releasing: bool = False
    network: str = ""
    usable_after: int = 0
    lineage: bytes = b""
    since: float = 0.0
    held: int = 0
    rested: int = 0
    released: tuple[Released, ...] = ()
    reserved: int = 0
    foreign: int = 0

    def __post_init__(self) -> None:
        if self.held & self.rested:
            message = f"{self.prefix}: an address is held and released at once"
            raise ValueError(message)
        if self.rested.bit_count() != len(self.released):
            message = f"{self.prefix}: {len(self.released)} released, mask {self.rested:x}"
            raise ValueError(message)
        if (self.held | self.rested) >> self.prefix.size:
            message = f"{self.prefix} has no such address"
            raise ValueError(message)

    @property
    def full(self) -> int:
        """Mask of all its addresses."""
        return (1 << self.prefix.size) - 1

    def offset(self, address: bytes) -> int | None:
        """Which of its addresses one is; None: none of them."""
        if len(address) != len(self.prefix.address):
            return None
        offset = int.from_bytes(address) - int.from_bytes(self.prefix.address)
        return offset if 0 <= offset < self.prefix.size else None

    def is_usable(self, progress: Progress) -> bool:
        """Whether its addresses may be handed out at all."""
        waits = self.usable_after and not progress.passed(self.lineage, self.usable_after)
        return not self.releasing and not waits

    def is_idle(self, progress: Progress) -> bool:
        """Whether it holds nothing and waits for nothing: it may be given back.

        An address that another node has claimed is that node's affair.
        """
        return not self.held and all(
            progress.passed(gone.lineage, gone.revision) or self.foreign >> gone.offset & 1
            for gone in self.released
        )


def mask(prefix: Prefix, parts: Iterable[Prefix]) -> int:
    """Mask of the addresses of a block that lie in other prefixes."""
    found = 0
    for part in parts:
        if part.contains(prefix):
            return (1 << prefix.size) - 1
        if prefix.contains(part):
            first = int.from_bytes(part.address) - int.from_bytes(prefix.address)
            found |= ((1 << part.size) - 1) << first
    return found


def offsets(bits: int) -> Iterator[int]:
    """The offsets in a mask, ascending."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def first_fresh(block: Block) -> int | None:
    """The first offset that was never held and is not held back, or None."""
    bits = block.full & ~(block.held | block.rested | block.reserved | block.foreign)
    return (bits & -bits).bit_length() - 1 if bits else None


def first_free(block: Block, progress: Progress) -> Released | None:
    """The address that has been free for longest and is not held back, or None."""
    if not progress.lineage:
        return None
    away = block.reserved | block.foreign
    for gone in block.released:
        if gone.revision > progress.limit:
            return None
        if progress.passed(gone.lineage, gone.revision) and not away >> gone.offset & 1:
            return gone
    return None


def find_released(block: Block, offset: int) -> Released | None:
    """What is remembered of an address; None: it was never held, or is."""
    if not block.rested >> offset & 1:
        return None
    return next(gone for gone in block.released if gone.offset == offset)


def take(block: Block, offset: int) -> Block:
    """An interface has the address from now on. Whoever calls knows that it may."""
    bit = 1 << offset
    if block.held & bit:
        message = f"{block.prefix}: address {offset} is held"
        raise ValueError(message)
    if not block.rested & bit:
        return replace(block, held=block.held | bit)
    return replace(
        block,
        held=block.held | bit,
        rested=block.rested ^ bit,
        released=tuple(gone for gone in block.released if gone.offset != offset),
    )


def give(block: Block, gone: Released) -> Block:
    """Nobody has the address any more; what was remembered of it before is replaced."""
    bit = 1 << gone.offset
    released = list(block.released)
    if block.rested & bit:
        released = [other for other in released if other.offset != gone.offset]
    insort(released, gone, key=_order)
    return replace(
        block, held=block.held & ~bit, rested=block.rested | bit, released=tuple(released)
    )


def restamp(block: Block, progress: Progress) -> tuple[Block, tuple[Released, ...]]:
    """Gives revisions of other lineages one of ours; the block and what it has changed.

    An address that another node has keeps what it has: it is given one when it comes back.
    """
    stale = tuple(
        gone._replace(
            revision=progress.stamp(gone.lineage, gone.revision), lineage=progress.lineage
        )
        for gone in block.released
        if gone.lineage != progress.lineage and not block.foreign >> gone.offset & 1
    )
    if stale:
        by_offset = {gone.offset: gone for gone in (*block.released, *stale)}
        ordered = tuple(sorted(by_offset.values(), key=_order))
        block = replace(block, released=ordered)
    if block.usable_after and block.lineage != progress.lineage:
        revision = progress.stamp(block.lineage, block.usable_after)
        block = replace(block, usable_after=revision, lineage=progress.lineage)
    return block, stale


def counts(block: Block, progress: Progress) -> Counts:
    """Where its addresses are."""
    waiting = 0
    for gone in block.released:
        if not progress.passed(gone.lineage, gone.revision):
            waiting |= 1 << gone.offset
    busy = block.held | waiting
    foreign = block.foreign & ~busy
    reserved = block.reserved & ~(busy | foreign)
    found = Counts(
        held=block.held.bit_count(),
        quarantined=waiting.bit_count(),
        reserved=reserved.bit_count(),
        foreign=foreign.bit_count(),
    )
    return found._replace(free=block.prefix.size - sum(found))


def _order(gone: Released) -> tuple[int, int]:
    return gone.revision, gone.offset
