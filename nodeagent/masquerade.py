"""Whose packets take this node's address on their way to the world, and which keep their own.

Pods' addresses mean nothing outside the cluster. A packet from a pool keeps its source if it goes
to a pool, to a node, or to a range that the configuration spares. Pure.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from deltaplane.model.addresses import Prefix


class Role(enum.Enum):
    """What a prefix is; the value names it in the kernel's sets."""

    POOL = "pools"
    NODE = "nodes"


@dataclass(frozen=True, slots=True)
class Member:
    """A pool, or a node's address (/32 or /128)."""

    role: Role
    prefix: Prefix

    def __str__(self) -> str:
        return f"{self.prefix} of {self.role.value}"


class Masquerade(Protocol):
    """The address translation of one node. Blocking. tests/contract/masquerade is the contract."""

    def add(self, members: Iterable[Member]) -> None:
        """Makes members known, all or none. Raises OSError."""
        ...

    def delete(self, members: Iterable[Member]) -> None:
        """Forgets members, absent ones are fine. Raises OSError."""
        ...

    def dump(self) -> frozenset[Member]:
        """All that are known, by an earlier agent, too."""
        ...


class NoMasquerade:
    """Implements Masquerade where nothing is translated."""

    def add(self, members: Iterable[Member]) -> None:
        """Does nothing."""

    def delete(self, members: Iterable[Member]) -> None:
        """Does nothing."""

    def dump(self) -> frozenset[Member]:
        """Nothing."""
        return frozenset()
