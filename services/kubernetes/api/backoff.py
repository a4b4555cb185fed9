"""How long to wait after a failure: twice as long each time, and never all at once."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """Seconds; the defaults are those of Kubernetes' own clients.

    Attributes:
        first: after the first failure, before it is stretched.
        longest: never more than this, before it is stretched.
        spread: a pause is stretched by up to this share of itself, by chance: a thousand clients
            that lost the same server should not come back in the same second.
    """

    first: float = 0.8
    longest: float = 30.0
    spread: float = 1.0


class Backoff:
    """Counts failures in a row."""

    def __init__(self, pauses: Pauses, chance: Callable[[], float]) -> None:
        """Makes one.

        Args:
            pauses: how long.
            chance: gives numbers in [0, 1).
        """
        self._pauses = pauses
        self._chance = chance
        self.failures = 0

    def succeeded(self) -> None:
        """The next failure is a first one again."""
        self.failures = 0

    def failed(self) -> float:
        """Counts a failure; seconds to wait."""
        # The exponent is bounded, too: 2.0**1100 is an OverflowError.
        pause = min(self._pauses.first * 2.0 ** min(self.failures, 30), self._pauses.longest)
        self.failures += 1
        return pause * (1 + self._pauses.spread * self._chance())
