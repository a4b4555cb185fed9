"""Decisions out of bytes: the same bytes always make the same decisions. Pure.

So a fuzzer that only knows bytes, whether it mutates them by chance or by coverage, can make whole
messages of them.
"""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """Reads decisions from the front of some bytes; after the end they are all zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        """Whether every byte has been used."""
        return self._at >= len(self._data)

    def take(self, count: int) -> bytes:
        """The next bytes; fewer at the end."""
        found = self._data[self._at : self._at + count]
        self._at += count
        return found

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))

    def below(self, bound: int) -> int:
        """A number of 0..bound-1; bound is 1 or more."""
        return int.from_bytes(self.take(1 if bound <= 1 << 8 else 2)) % bound

    def one_in(self, count: int) -> bool:
        """True for one of so many."""
        return self.below(count) == 1

    def pick(self, choices: Sequence[T]) -> T:
        """One of some."""
        return choices[self.below(len(choices))]
