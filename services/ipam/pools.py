"""Pools: which ones can exist, and what their blocks are.

A pool is cut into equal blocks, numbered from 0. Blocks of a pool stay where they are when it
grows, but their numbers change.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from deltaplane.errors import Invalid
from deltaplane.model.addresses import Prefix
from deltaplane.model.names import dns_label_mistake

DEFAULT_BLOCK_LENGTH = {4: 26, 16: 122}
"""By bytes of an address: 64 addresses in either family; a node of 110 pods takes two blocks."""

BLOCK_LENGTHS = {4: range(20, 31), 16: range(112, 127)}
"""By bytes of an address. Longer ones leave no room for pods, shorter ones waste addresses."""

DEFAULT_MIN_FREE_PERCENT = 50
"""A node with half a block of free addresses takes pods without waiting for ipam."""

MAX_RESERVED = 1000
"""Reserved ranges of a pool; every agent keeps them, and looks at them for each address."""

UNUSABLE = tuple(
    Prefix.parse(text)
    for text in (
        *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"),
        *("::/8", "fe80::/10", "ff00::/8"),
    )
)
"""Ranges that are never routed between nodes: this host, loopback, link-local, multicast, reserved.
::/8 holds the IPv4-mapped addresses, a second spelling that no address of ours may have."""


class Mode(enum.Enum):
    """How nodes take blocks."""

    DEMAND = "demand"
    """As many as the addresses in use ask for."""
    STATIC = "static"
    """One for each node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A range of addresses that is cut into blocks.

    Attributes:
        name: DNS label.
        prefix: the whole range.
        block_length: prefix length of each block.
        reserved: ranges inside prefix, ascending, apart from each other: only who asks for an
            address of them by number gets it.
        mode: how nodes take blocks.
        draining: no new blocks and addresses.
        min_free_percent: share of a node's addresses that should be free, 1..100 with DEMAND; 0
            with STATIC, where it has no meaning.
        on_request: only for who names the pool.

    Raises:
        Invalid: a field is out of its range, or they do not fit together.
    """

    name: str
    prefix: Prefix
    block_length: int
    reserved: tuple[Prefix, ...] = ()
    mode: Mode = Mode.DEMAND
    draining: bool = False
    min_free_percent: int = DEFAULT_MIN_FREE_PERCENT
    on_request: bool = False

    def __post_init__(self) -> None:
        if mistake := dns_label_mistake(self.name):
            raise Invalid("pool.name", f'"{self.name}" {mistake}')
        lengths = BLOCK_LENGTHS[len(self.prefix.address)]
        if self.block_length not in lengths:
            raise Invalid(
                "pool.block_length",
                f"/{self.block_length} is outside /{lengths[0]}../{lengths[-1]}",
            )
        if self.block_length < self.prefix.length:
            raise Invalid(
                "pool.block_length",
                f"a /{self.block_length} block is larger than the pool {self.prefix}; "
                f"/{max(self.prefix.length, lengths[0])}../{lengths[-1]} fit",
            )
        for unusable in UNUSABLE:
            if unusable.overlaps(self.prefix):
                raise Invalid(
                    "pool.prefix", f"{self.prefix} overlaps {unusable}, which is no unicast range"
                )
        self._check_share()
        self._check_reserved()

    def _check_share(self) -> None:
        percent = self.min_free_percent
        if self.mode is Mode.STATIC and percent:
            raise Invalid(
                "pool.min_free_percent", f"{percent}: a static pool has no such share; leave it out"
            )
        if self.mode is Mode.DEMAND and not 1 <= percent <= 100:
            raise Invalid("pool.min_free_percent", f"{percent} is outside 1..100")

    def _check_reserved(self) -> None:
        if len(self.reserved) > MAX_RESERVED:
            raise Invalid(
                "pool.reserved", f"{len(self.reserved)} ranges are more than {MAX_RESERVED}"
            )
        for item in self.reserved:
            if not self.prefix.contains(item):
                raise Invalid("pool.reserved", f"{item} is not inside the pool {self.prefix}")
        for before, after in pairwise(self.reserved):
            # Ascending and of one family: only neighbours can overlap.
            if before.overlaps(after):
                raise Invalid("pool.reserved", f"{after} overlaps {before}; give one of them")

    @classmethod
    def of(
        cls,
        name: str,
        prefix: Prefix,
        block_length: int = 0,
        *,
        reserved: Iterable[Prefix] = (),
        mode: Mode = Mode.DEMAND,
        draining: bool = False,
        min_free_percent: int = 0,
        on_request: bool = False,
    ) -> "Pool":
        """Builds one; 0 stands for the default, and reserved may come in any order."""
        default = DEFAULT_BLOCK_LENGTH[len(prefix.address)]
        share = DEFAULT_MIN_FREE_PERCENT if mode is Mode.DEMAND else 0
        return cls(
            name=name,
            prefix=prefix,
            block_length=block_length or default,
            reserved=tuple(sorted(reserved, key=lambda item: (item.address, item.length))),
            mode=mode,
            draining=draining,
            min_free_percent=min_free_percent or share,
            on_request=on_request,
        )

    @property
    def blocks(self) -> int:
        """Number of blocks, 1 or more."""
        return 1 << (self.block_length - self.prefix.length)

    def block(self, number: int) -> Prefix:
        """The block with a number, 0..blocks-1."""
        size = 1 << (len(self.prefix.address) * 8 - self.block_length)
        return Prefix(self.prefix.nth(number * size), self.block_length)

    def number(self, block: Prefix) -> int:
        """The number of a block of this pool: undoes `block`."""
        return self._number_at(int.from_bytes(block.address))

    def block_of(self, address: bytes) -> Prefix:
        """The block around an address of this pool."""
        return self.block(self._number_at(int.from_bytes(address)))

    def withheld(self) -> tuple[tuple[int, int], ...]:
        """Numbers (first, last) of the blocks of which every address is reserved, ascending.

        Runs neither touch nor overlap. Such blocks are never claimed: nothing could come of them.
        """
        spans: list[tuple[int, int]] = []
        for item in self.reserved:
            first = int.from_bytes(item.address)
            end = first + item.size
            if spans and spans[-1][1] == first:
                first = spans.pop()[0]
            spans.append((first, end))
        size = 1 << (len(self.prefix.address) * 8 - self.block_length)
        runs = ((self._number_at(first + size - 1), self._number_at(end)) for first, end in spans)
        return tuple((first, after - 1) for first, after in runs if first < after)

    def _number_at(self, address: int) -> int:
        shift = len(self.prefix.address) * 8 - self.block_length
        return (address - int.from_bytes(self.prefix.address)) >> shift


def check_overlap(pool: Pool, others: Iterable[Pool]) -> None:
    """Two pools never share an address, or one address could be in two blocks.

    Raises:
        Invalid: it shares addresses with one of the others.
    """
    for other in others:
        if other.prefix.overlaps(pool.prefix):
            raise Invalid(
                "pool.prefix",
                f"{pool.prefix} overlaps pool {other.name} ({other.prefix}); "
                "pools share no address",
            )
