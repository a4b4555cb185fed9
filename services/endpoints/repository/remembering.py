"""What registrations read again and again: nodes, namespaces, blocks. Remembered as it was read.

It may be old, and is never ahead of etcd. Whoever relies on it compares it in the transaction, and
forgets it when that fails; nothing is refused on its account.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from deltaplane.store.port import Compare, KeyValue

LIMIT = 20_000
"""Records of one kind: each takes about 300 bytes."""

AGE_SECONDS = 10.0
"""Less than it takes to restore a backup, after which the same revision can be another write."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fact(Generic[T]):
    """What a record says, and the compare that holds while it says that."""

    value: T
    compare: Compare


class Memory(Generic[T]):
    """Records of one kind by key; the one that has been here for longest goes first.

    Args:
        read: what a record says.
        limit: most records.
        now: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        read: Callable[[KeyValue], Fact[T]],
        *,
        limit: int = LIMIT,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._limit = limit
        self._now = now
        self._facts: dict[str, tuple[Fact[T], float]] = {}

    def get(self, key: str) -> Fact[T] | None:
        """What is remembered; None: nothing, or nothing that was read lately."""
        fact, until = self._facts.get(key, (None, 0.0))
        return fact if self._now() < until else None

    def learn(self, stored: KeyValue) -> None:
        """Takes what has just been read."""
        self._facts.pop(stored.key, None)
        self._facts[stored.key] = (self._read(stored), self._now() + AGE_SECONDS)
        if len(self._facts) > self._limit:
            del self._facts[next(iter(self._facts))]

    def forget(self, key: str) -> None:
        """Reads it again next time."""
        self._facts.pop(key, None)
