"""Masquerading in memory, for tests of what stands above the port. No packet passes through it."""

import errno
from collections.abc import Iterable

from nodeagent.masquerade import Member


class FakeMasquerade:
    """Implements Masquerade. It plays both the kernel and the adapter: it survives `close`.

    Attributes:
        refuses: members that the kernel would not take.
    """

    def __init__(self) -> None:
        self._held: set[Member] = set()
        self.refuses: set[Member] = set()

    def add(self, members: Iterable[Member]) -> None:
        """Makes members known, all or none. Raises OSError."""
        wanted = set(members)
        if wanted & self.refuses:
            raise OSError(errno.EINVAL, "refused")
        self._held |= wanted

    def delete(self, members: Iterable[Member]) -> None:
        """Forgets members, absent ones are fine."""
        self._held -= set(members)

    def dump(self) -> frozenset[Member]:
        """All that are known."""
        return frozenset(self._held)

    def close(self) -> None:
        """What is known stays."""
