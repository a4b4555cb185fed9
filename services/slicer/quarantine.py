"""Released addresses that wait for the watermark, as far as this replica saw them go."""

from collections import Counter, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import islice

LISTED_AT_MOST = 100_000
"""Addresses that are remembered; of those beyond only how many there are: 20 MB are enough."""


@dataclass(frozen=True, slots=True)
class Release:
    """Addresses that nobody holds any more: of an endpoint of this node, gone at a revision."""

    addresses: tuple[bytes, ...]
    node_index: int
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One address. seen_ns: when this replica saw its release, Unix nanoseconds."""

    address: bytes
    node_index: int
    revision: int
    seen_ns: int


class Quarantine:
    """First in, first out: releases come in revision order, and the watermark only grows.

    Attributes:
        newest: revision of the newest release, lost block or claimed fixed address; 0: none was
            seen. The watermark is to reach it soon.
    """

    def __init__(self, listed_at_most: int = LISTED_AT_MOST) -> None:
        self.newest = 0
        self._listed_at_most = listed_at_most
        self._waiting: deque[Waiting] = deque()
        # Behind the listed ones, as (revision, addresses), merged so that they stay as few.
        self._beyond: deque[tuple[int, int]] = deque()
        self._of_node: Counter[int] = Counter()

    @property
    def total(self) -> int:
        """Addresses that wait, those beyond the list included."""
        return len(self._waiting) + sum(count for _, count in self._beyond)

    @property
    def nodes(self) -> frozenset[int] | None:
        """Numbers of the nodes whose addresses wait; None: too many wait to know."""
        return None if self._beyond else frozenset(self._of_node)

    def expect(self, revision: int) -> None:
        """Something that waits for this revision, but is no address."""
        self.newest = max(self.newest, revision)

    def add(self, releases: Collection[Release], seen_ns: int) -> None:
        """Takes what has been released."""
        for release in sorted(releases, key=lambda r: r.revision):
            self.expect(release.revision)
            for address in release.addresses:
                self._add(
                    Waiting(
                        address=address,
                        node_index=release.node_index,
                        revision=release.revision,
                        seen_ns=seen_ns,
                    )
                )

    def _add(self, waiting: Waiting) -> None:
        if len(self._waiting) < self._listed_at_most and not self._beyond:
            self._waiting.append(waiting)
            self._of_node[waiting.node_index] += 1
            return
        count = 1
        if len(self._beyond) >= self._listed_at_most // 100 + 1:
            count += self._beyond.pop()[1]
        self._beyond.append((waiting.revision, count))

    def free(self, watermark: int) -> None:
        """Forgets what the watermark has reached."""
        while self._waiting and self._waiting[0].revision <= watermark:
            node_index = self._waiting.popleft().node_index
            self._of_node[node_index] -= 1
            if not self._of_node[node_index]:
                del self._of_node[node_index]
        while self._beyond and self._beyond[0][0] <= watermark:
            self._beyond.popleft()

    def oldest(self, limit: int) -> Iterable[Waiting]:
        """Those that wait for longest."""
        return islice(self._waiting, limit)
