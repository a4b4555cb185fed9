"""The loop around a compare-and-swap: read, decide, write; and again if somebody was faster."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from deltaplane.errors import Unavailable

DEADLINE_SECONDS = 4.0
"""Below the deadline of a call between our processes, so that the caller hears why."""

_FIRST_PAUSE_SECONDS = 0.002
_LONGEST_PAUSE_SECONDS = 0.2

T = TypeVar("T")


async def compare_and_swap(
    attempt: Callable[[], Awaitable[T | None]],
    *,
    deadline_seconds: float = DEADLINE_SECONDS,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """Repeats an attempt until it succeeds or fails for good; gives its result.

    An attempt that ends with Unavailable is repeated, too, although its transaction may have been
    applied: it has to recognise its own write by an owner token.

    Args:
        attempt: reads, decides and transacts; None says that the compares did not hold.
        deadline_seconds: for all attempts together.
        pause: waits that many seconds; a test may not want to.

    Raises:
        Unavailable: no attempt succeeded in time.
    """
    longest = _FIRST_PAUSE_SECONDS
    failure: Unavailable | None = None
    try:
        async with asyncio.timeout(deadline_seconds):
            while True:
                try:
                    result = await attempt()
                except Unavailable as error:
                    failure = error
                else:
                    if result is not None:
                        return result
                    failure = None
                # Full jitter: rivals that collided once should not collide again.
                await pause(random.uniform(0, longest))  # noqa: S311 - no secret
                longest = min(2 * longest, _LONGEST_PAUSE_SECONDS)
    except TimeoutError:
        reason = str(failure) if failure else "others kept writing the same keys"
        raise Unavailable(f"gave up after {deadline_seconds:g} s: {reason}") from failure
