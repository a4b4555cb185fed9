"""`make chaos`: everything fails while everything changes; at the end it must all agree.

    story (pure, from the seed) ─► faults ─► processes, links, a disk, clocks
    world (pure, from the seed) ─► churn ──► pods, policies, services
    pings, spray ─► what was lost, and what arrived that must not ─► checks

    python -m tests.chaos [--minutes M] [--seed N] [--nodes N] [--tls]

Real: three members of etcd, two replicas of each service, agents, programs, on a lab of its own.
The same seed gives the same faults and changes in the same order.
"""

import argparse
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.chaos.campaign import Campaign, run

LOGS = Path("build/chaos")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long faults begin")
    parser.add_argument("--seed", type=int, default=None, help="repeats faults and changes")
    parser.add_argument("--nodes", type=int, default=5, help="of the lab, two at least")
    parser.add_argument("--tls", action="store_true", help="with certificates between all of them")
    parser.add_argument("--short", action="store_true", help="what the test suite runs")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    given = _options(arguments)
    seed = secrets.randbits(32) if given.seed is None else given.seed
    name = f"chaos{os.getpid() % 100000}"
    # Ended from outside, it still takes its lab down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = LOGS / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(seed=seed, name=name, nodes=given.nodes, seconds=60 * given.minutes)
    if given.short:
        campaign = Campaign.short(seed, name)
    campaign = replace(campaign, logs=folder, tls=given.tls)
    with (folder / "story.log").open("w") as log:

        def write(line: str) -> None:
            for out in (sys.stdout, log):
                print(line, file=out, flush=True)

        outcome = run(campaign, write)
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
