"""Time as a value that a test can replace."""

import time
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from."""

    def now(self) -> float:
        """Seconds of a clock that never goes back; only differences mean something."""
        ...

    def wall_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC; it may jump."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        """Seconds since some point in the past."""
        return time.monotonic()

    def wall_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC."""
        return time.time_ns()
