"""When to cut a tick: at once while it is quiet, less often the longer a round of sending takes."""

SHORTEST_SECONDS = 0.005
LONGEST_SECONDS = 0.1

STRAGGLERS = 0.05
"""A round is over when all but this share have been written to: one that is slow keeps nobody."""

ROUNDS = 1.5
"""A tick lasts this many rounds: a third of the time is left for everything else."""


class Pacer:
    """Decides from when the last tick was cut and how long sending it took."""

    def __init__(self) -> None:
        self._cut_at = float("-inf")
        self._round_seconds = 0.0

    def cut_at(self, *, urgent: bool) -> float:
        """The earliest time for the next cut, seconds; it may be past.

        Args:
            urgent: something is taken away or tightened: nothing but the round is waited for.
        """
        rounds = 1.0 if urgent else ROUNDS
        tick = min(max(rounds * self._round_seconds, SHORTEST_SECONDS), LONGEST_SECONDS)
        return self._cut_at + tick

    def sent(self, *, cut_at: float, round_seconds: float) -> None:
        """Notes a cut and how long it took to hand it to every agent that keeps up."""
        self._cut_at = cut_at
        self._round_seconds = round_seconds
