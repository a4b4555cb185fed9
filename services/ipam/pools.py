"""Pools: which ones can exist, and what their blocks are.

A pool is cut into equal blocks, numbered from 0. It never changes once it exists, so everything
here can be computed from the value alone.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from deltaplane.errors import Invalid
from deltaplane.model.addresses import Prefix
from deltaplane.model.names import dns_label_mistake

DEFAULT_BLOCK_LENGTH = {4: 26, 16: 122}
"""By bytes of an address: 64 addresses in either family; a node of 110 pods takes two blocks."""

BLOCK_LENGTHS = {4: range(20, 31), 16: range(112, 127)}
"""By bytes of an address. Longer ones leave no room for pods, shorter ones waste addresses."""

UNUSABLE = tuple(
    Prefix.parse(text)
    for text in (
        *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"),
        *("::/8", "fe80::/10", "ff00::/8"),
    )
)
"""Ranges that are never routed between nodes: this host, loopback, link-local, multicast, reserved.
::/8 holds the IPv4-mapped addresses, a second spelling that no address of ours may have."""

_FLAG = re.compile(r"(?P<name>[^=]+)=(?P<prefix>[^/]+/\d+)(?:[:/](?P<block>\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A range of addresses that is cut into blocks.

    Attributes:
        name: DNS label.
        prefix: the whole range.
        block_length: prefix length of each block.

    Raises:
        Invalid: a field is out of its range, or the two do not fit together.
    """

    name: str
    prefix: Prefix
    block_length: int

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
                f"a /{self.block_length} block is larger than the pool {self.prefix}",
            )
        for unusable in UNUSABLE:
            if unusable.overlaps(self.prefix):
                raise Invalid(
                    "pool.prefix", f"{self.prefix} overlaps {unusable}, which is no unicast range"
                )

    @classmethod
    def of(cls, name: str, prefix: Prefix, block_length: int = 0) -> "Pool":
        """Builds one; block_length 0 stands for the default of the family."""
        default = DEFAULT_BLOCK_LENGTH[len(prefix.address)]
        return cls(name=name, prefix=prefix, block_length=block_length or default)

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
        shift = len(block.address) * 8 - self.block_length
        return (int.from_bytes(block.address) - int.from_bytes(self.prefix.address)) >> shift


def parse_flag(text: str) -> Pool:
    """Reads NAME=PREFIX[:BLOCK_LENGTH], for example "ipv6=fd00:10:244::/64:122".

    Raises:
        Invalid: the text has another form, or names no possible pool.
    """
    match = _FLAG.fullmatch(text)
    if match is None:
        raise Invalid(
            "pool", f"{text!r} is not NAME=PREFIX[:BLOCK_LENGTH], such as ipv4=10.244.0.0/16:26"
        )
    try:
        prefix = Prefix.parse(match["prefix"])
    except ValueError as error:
        raise Invalid("pool.prefix", str(error)) from error
    return Pool.of(match["name"], prefix, int(match["block"] or 0))


def check_overlap(pool: Pool, others: Iterable[Pool]) -> None:
    """Two pools never share an address, or one address could be in two blocks.

    Raises:
        Invalid: it shares addresses with one of the others.
    """
    for other in others:
        if other.prefix.overlaps(pool.prefix):
            raise Invalid(
                "pool.prefix", f"{pool.prefix} overlaps pool {other.name} ({other.prefix})"
            )
