"""Who is sent a snapshot or a repair now, and when the others come back. Pure.

What resumes costs what has changed; it is always admitted. A snapshot costs its span, and holds
messages that nobody else needs in memory until its agent has taken them.
"""

from collections.abc import Hashable
from dataclasses import dataclass

from deltaplane.delta.log import CHUNK_BYTES
from deltaplane.delta.writer import POLL_MESSAGES

CHUNKS_PER_MIB = (1 << 20) // CHUNK_BYTES

MIB_DEFAULT = 512
"""1,000 agents, as many as a process serves, at 512 KiB each: some 8,000 objects in a span."""

CHUNKS_AT_MOST = POLL_MESSAGES
"""That one agent costs: as many are put together at a time, and its credit is about as much."""

SOONEST_SECONDS = 0.1
LATEST_SECONDS = 30.0
"""An appointment is no later than this, however many there are."""

FIRST_GUESS_SECONDS = 0.5
WEIGHT = 1 / 8
"""Of the newest delivery in the mean of how long they take."""

JITTER = 0.25
"""An appointment is kept this share earlier or later: other replicas give the same ones."""


@dataclass(slots=True)
class Delivery:
    """What an agent is sent. since: seconds."""

    chunks: int
    since: float


class Admission:
    """Chunks of memory that snapshots and repairs may hold; a chunk is 256 KiB.

    Who is admitted while one is free takes as many as it needs, so that what is held exceeds the
    limit by less than one snapshot. What connected agents are sent (they were fenced, or fell
    behind the log) is never refused, but counts.

    Attributes:
        limit: chunks.
        used: chunks.
    """

    def __init__(self, limit: int = MIB_DEFAULT * CHUNKS_PER_MIB) -> None:
        self.limit = limit
        self.used = 0
        self._deliveries: dict[Hashable, Delivery] = {}
        self._appointed = float("-inf")
        self._mean_seconds = FIRST_GUESS_SECONDS
        self._mean_chunks = 1.0

    @property
    def deliveries(self) -> int:
        """Agents that have not acknowledged theirs yet."""
        return len(self._deliveries)

    def postponed(self, now: float, chance: float) -> float | None:
        """In how many seconds one more may ask again; None: it is admitted now.

        Those who are told to wait get appointments one after the other, as fast as deliveries have
        ended lately.

        Args:
            now: seconds.
            chance: random, 0 to 1.
        """
        if self.used < self.limit:
            return None
        each = self._mean_seconds * self._mean_chunks / self.limit
        soonest = max(self._appointed, now + SOONEST_SECONDS)
        self._appointed = min(soonest + each, now + LATEST_SECONDS)
        return (self._appointed - now) * (1 - JITTER + 2 * JITTER * chance)

    def take(self, agent: Hashable, chunks: int, now: float) -> None:
        """Notes what is put together for an agent, instead of what was before."""
        self.forget(agent)
        chunks = max(1, min(chunks, CHUNKS_AT_MOST))
        self._deliveries[agent] = Delivery(chunks, now)
        self.used += chunks

    def give_back(self, agent: Hashable, now: float) -> None:
        """The agent has acknowledged it. Fine if there was nothing."""
        if (delivery := self.forget(agent)) is not None:
            self._mean_seconds += WEIGHT * (now - delivery.since - self._mean_seconds)
            self._mean_chunks += WEIGHT * (delivery.chunks - self._mean_chunks)

    def forget(self, agent: Hashable) -> Delivery | None:
        """The agent is gone; how long it was there says nothing of how long a delivery takes."""
        delivery = self._deliveries.pop(agent, None)
        if delivery is not None:
            self.used -= delivery.chunks
        return delivery
