"""Runs a command again and again: once an hour while it succeeds, sooner when it fails.

    python -m deltaplane.certs.keeping deltaplane certs request --out /etc/deltaplane/tls …

It stands beside the agent on each node, so it is small: what it runs comes, looks, and is gone.
"""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

EVERY_SECONDS = 3600.0
FIRST_SECONDS, LONGEST_SECONDS = 10.0, 600.0
"""After failures: twice as long each time."""


def keep(
    command: Callable[[], int], pause: Callable[[float], None], chance: Callable[[], float]
) -> NoReturn:
    """Runs it for ever.

    Args:
        command: its exit code.
        pause: waits that many seconds.
        chance: gives numbers in [0, 1): nodes that start together do not come together.
    """
    failures = 0
    while True:
        if command() == 0:
            failures = 0
            pause(EVERY_SECONDS * (0.9 + 0.2 * chance()))
        else:
            seconds = min(FIRST_SECONDS * 2.0 ** min(failures, 30), LONGEST_SECONDS)
            failures += 1
            pause(seconds * (1 + chance()))


def main(argv: Sequence[str]) -> NoReturn:
    """Until it is told to end."""
    # The first process of a container is not ended by a signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    command = list(argv)
    keep(lambda: subprocess.run(command, check=False).returncode, time.sleep, random.random)


if __name__ == "__main__":
    main(sys.argv[1:])
