"""`make soak-tighten`: many policies are tightened under traffic, and nothing may pass afterwards.

Real: etcd, services, slicer, agent, programs, on a lab of its own. It stops at the first packet
that passes after a receipt.
"""

import argparse
import os
import random
import secrets
import signal
import sys
import time
from collections.abc import Sequence

from bench.summary import summarize
from deltaplane.errors import DeltaplaneError
from lab import Lab, LabConfig, lifecycle, programs
from lab.tightening import Broken, Ground, Pair, in_lab

EVERY = 500
"""Changes between two lines of progress."""


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.tighten", description=__doc__)
    parser.add_argument("--changes", type=int, default=10_000, help="how often it is tightened")
    parser.add_argument("--seed", type=int, default=None, help="repeats the order of policies")
    return parser.parse_args(arguments)


def campaign(ground: Ground, pair: Pair, *, changes: int, chance: random.Random) -> list[float]:
    """Tightens so often; milliseconds from each write to its receipt.

    Raises:
        Broken: a packet passed that should not have.
    """
    took: list[float] = []
    started = time.monotonic()
    for number in range(1, changes + 1):
        ground.loosen(chance.choice(pair.loose()))
        took.append(ground.tighten(chance.choice(pair.tight())).milliseconds)
        if number % EVERY == 0:
            minutes = (time.monotonic() - started) / 60
            print(f"{number} changes, {minutes:.1f} min, nothing passed", flush=True)
    return took


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    given = _options(arguments)
    seed = secrets.randbits(32) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    # Ended from outside, it still takes its lab down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    config = LabConfig(name=f"tight{os.getpid() % 100000}", nodes=1, trace_ratio=0.0)
    with Lab.up(config) as lab, in_lab(lab) as (ground, pair):
        try:
            took = campaign(ground, pair, changes=given.changes, chance=random.Random(seed))
        except (Broken, DeltaplaneError) as error:
            print(f"seed {seed}: {error}")
            for name in ("slicer", programs.agent_name(lab.topology.nodes[0].name)):
                print(lifecycle.log_tail(lab.layout, name))
            return 1
    found = summarize("", [milliseconds / 1000 for milliseconds in took])
    print(
        f"{found.count} policies tightened under traffic, no packet let through after a receipt; "
        f"from the write to the receipt p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
