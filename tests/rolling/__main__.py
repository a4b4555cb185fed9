"""`make soak-rolling`: connections to a service of 20 backends while they roll; none may fail.

Real: etcd, services, slicer, agents, programs, on a lab of three nodes. It stops at the first
failure.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.services.calling import build
from bench.summary import percentile
from deltaplane.errors import DeltaplaneError
from lab import Lab, LabConfig
from tests.e2e.outside import make_world
from tests.rolling.campaign import Failed, Rolled, Rolling, roll


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.rolling", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="calls, at least")
    parser.add_argument("--backends", type=int, default=20)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--routing", choices=("native", "vxlan"), default="native")
    parser.add_argument(
        "--interval", type=int, default=1000, help="microseconds between two calls of one client"
    )
    return parser.parse_args(arguments)


def _progress(calls: int, replaced: int) -> None:
    print(f"{calls} calls, {replaced} backends replaced, no failure", flush=True)


def _print(rolled: Rolled) -> None:
    for way, calls in rolled.calls.items():
        for place, (address, port) in enumerate(way.targets):
            times = sorted(call.took_ns / 1e6 for call in calls if call.target == place)
            print(
                f"{way.name}, [{address}]:{port}: {len(times)} connections, "
                f"p50 {percentile(times, 0.5):.2f} ms, p99 {percentile(times, 0.99):.2f} ms, "
                f"longest {times[-1]:.1f} ms"
            )
    total = sum(map(len, rolled.calls.values()))
    print(f"{total} connections while {rolled.replaced} backends were replaced: 0 failures")


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    given = _options(arguments)
    # Ended from outside, it still takes its lab down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    config = LabConfig(
        name=f"roll{os.getpid() % 100000}",
        nodes=given.nodes,
        routing=given.routing,
        trace_ratio=0.0,
    )
    with tempfile.TemporaryDirectory() as folder, Lab.up(config) as lab:
        try:
            rolled = roll(
                Rolling(lab, given.backends),
                build(Path(folder)),
                make_world(lab),
                count=given.count,
                interval_us=given.interval,
                progress=_progress,
            )
        except (Failed, DeltaplaneError) as error:
            print(error)
            return 1
    _print(rolled)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
