"""From the call that writes a policy to the node's kernel that enforces it, under traffic.

Measured at the verdict: the time of the first packet that the programs deny, or let through. The
source sends 2,000 packets a second, so a figure is up to half a millisecond too high.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from deltaplane.cli.enforcement import Receipt
from lab.steady import Verdicts
from lab.tightening import Ground, Pair, State

POLL_SECONDS = 0.0002


@dataclass(slots=True)
class Enforced:
    """Seconds from the start of the call, one for each change.

    Attributes:
        denied: until the first packet was denied, of changes that tighten.
        allowed: until the first was let through, of changes that loosen.
        receipts: until the receipt was complete.
    """

    denied: list[float] = field(default_factory=list)
    allowed: list[float] = field(default_factory=list)
    receipts: list[float] = field(default_factory=list)


def enforce(ground: Ground, pair: Pair, count: int) -> Enforced:
    """Tightens and loosens one policy so often: it isolates the destination, or lets all in.

    Raises:
        DeltaplaneError: a service is away, or a change is not in force in time.
        Broken: a packet passed after the receipt of a tighter policy.
    """
    found = Enforced()
    tight, loose = pair.tight()[0], pair.loose()[1]
    ground.loosen(loose)
    with ThreadPoolExecutor(1) as pool:

        def measure(change: Callable[[State], Receipt], state: State, times: list[float]) -> None:
            before = ground.judge.verdicts()
            started = time.perf_counter()
            changing = pool.submit(change, state)
            while not changing.done() and not _has_grown(before, ground.judge.verdicts(), state):
                time.sleep(POLL_SECONDS)
            times.append(time.perf_counter() - started)
            found.receipts.append(changing.result().milliseconds / 1000)

        def _has_grown(before: Verdicts, now: Verdicts, state: State) -> bool:
            return now.denied > before.denied if state is tight else now.allowed > before.allowed

        for _ in range(count):
            measure(ground.tighten, tight, found.denied)
            measure(ground.loosen, loose, found.allowed)
    return found
