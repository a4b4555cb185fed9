"""Addresses of the blocks that this node owns: a block and `now` in, a block and an address out.

Pure.

Every address of a block is in exactly one of four places:

    fresh ──allocate──► held ──release──► cooling ──60 s──► (head of the queue) ──allocate──► held

Fresh addresses go first, then the one that has cooled longest: an address rests as long as the
block allows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from deltaplane.model.addresses import Prefix

COOLING_SECONDS = 60.0
"""How long a released address rests. Peers' maps and connections forget its old owner in that time.
"""


@dataclass(frozen=True, slots=True)
class Cooling:
    """A released address. since: wall clock seconds of the release."""

    address: bytes
    since: float

    def ends(self, now: float) -> float:
        """When it may be handed out.

        A clock that was set back does not prolong the rest beyond now + 60 s.
        """
        return min(self.since, now) + COOLING_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockState:
    """A block and where its addresses are.

    Attributes:
        prefix: the block.
        fresh: offset of the first address that was never handed out, 0..prefix.size.
        held: address → owner, whatever names an owner.
        cooling: oldest release first.
    """

    prefix: Prefix
    fresh: int = 0
    held: Mapping[bytes, str]
    cooling: tuple[Cooling, ...] = ()

    def __post_init__(self) -> None:
        if len(self.held) + len(self.cooling) != self.fresh:
            out = f"{len(self.held)} held, {len(self.cooling)} cooling"
            message = f"{self.prefix}: {out}, but {self.fresh} were handed out"
            raise ValueError(message)

    def available(self, now: float) -> int:
        """How many addresses could be handed out at once."""
        cooled = sum(1 for resting in self.cooling if resting.ends(now) <= now)
        return self.prefix.size - self.fresh + cooled


def allocate(block: BlockState, owner: str, now: float) -> tuple[BlockState, bytes] | None:
    """Hands out an address, or None while there is none."""
    if block.fresh < block.prefix.size:
        address = block.prefix.nth(block.fresh)
        taken = replace(block, fresh=block.fresh + 1, held={**block.held, address: owner})
        return taken, address
    if not block.cooling or block.cooling[0].ends(now) > now:
        return None
    first, *rest = block.cooling
    taken = replace(block, cooling=tuple(rest), held={**block.held, first.address: owner})
    return taken, first.address


def release(block: BlockState, address: bytes, owner: str, now: float) -> BlockState:
    """Takes an address back; nothing happens if the owner does not hold it (any more)."""
    if block.held.get(address) != owner:
        return block
    held = {other: holder for other, holder in block.held.items() if other != address}
    return replace(block, held=held, cooling=(*block.cooling, Cooling(address, now)))
