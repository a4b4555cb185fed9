"""`make soak-ipam`: a million interleavings, two processes at a time.

    python -m tests.soak [COUNT] [--seed N] [--play NAME] [--processes N] [--no-systematic]
    python -m tests.soak --real N [--seed N]

A run that breaks something is printed with its name; `--play NAME` repeats it.
"""

import argparse
import asyncio
import gc
import itertools
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from deltaplane.store.embedded import EtcdProcess, find_etcd
from tests.soak.real import Etcd, Machines
from tests.soak.speed import remember
from tests.soak.stories import LAYOUTS, Outcome, at_rest, play, systematic

CHUNK = 500
SHOWN = 10
"""Broken runs that are printed in full."""


@dataclass
class Sum:
    """What came of many runs."""

    runs: int = 0
    interleavings: int = 0
    steps: int = 0
    points: int = 0
    broken: list[Outcome] = field(default_factory=list)

    def add(self, other: "Sum") -> None:
        """Takes over another."""
        self.runs += other.runs
        self.interleavings += other.interleavings
        self.steps += other.steps
        self.points += other.points
        self.broken += other.broken


def prepare() -> None:
    """What a process does once: the worlds, and no garbage collection while it counts."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    remember()
    for layout in LAYOUTS:
        at_rest(layout)
    gc.collect()
    gc.freeze()
    gc.disable()


def run(names: list[str]) -> Sum:
    """Plays a chunk."""
    found = Sum()
    for name in names:
        outcome = play(name)
        found.runs += 1
        found.interleavings += outcome.counts
        found.steps += outcome.steps
        found.points += outcome.points
        if outcome.broken:
            found.broken.append(outcome)
    gc.collect()
    return found


def _names(seed: int, *, with_systematic: bool) -> Iterator[str]:
    if with_systematic:
        yield from systematic()
    yield from (f"r{number}" for number in itertools.count(seed))


def _chunks(names: Iterator[str]) -> Iterator[list[str]]:
    while True:
        yield list(itertools.islice(names, CHUNK))


def _show(outcome: Outcome) -> None:
    print(f"BROKEN {outcome.name}: {outcome.told}")
    for text in outcome.broken:
        print(f"    {text}")


def _soak(count: int, seed: int, processes: int, *, with_systematic: bool) -> int:
    started = time.monotonic()
    total = Sum()
    prepare()
    chunks = _chunks(_names(seed, with_systematic=with_systematic))
    with multiprocessing.Pool(processes, prepare) as pool:
        told = 0.0
        for part in pool.imap_unordered(run, _bounded(chunks, total, count), chunksize=1):
            total.add(part)
            for outcome in part.broken[: max(0, SHOWN - len(total.broken) + len(part.broken))]:
                _show(outcome)
            if time.monotonic() - told > 10 or total.interleavings >= count:
                told = time.monotonic()
                _progress(total, count, told - started)
            if total.interleavings >= count:
                break
        pool.terminate()
    print(
        f"{total.interleavings:,} interleavings ({total.runs:,} runs, {total.steps:,} steps, "
        f"{total.points:,} fault points passed) from seed {seed}: {len(total.broken)} broken"
    )
    return 1 if total.broken else 0


def _real(count: int, seed: int) -> int:
    """The same on a real etcd and journal files, one after another."""
    prepare()
    total, told = Sum(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dp-soak-") as folder:
        process = EtcdProcess(find_etcd(), Path(folder) / "etcd")
        asyncio.run(process.start())
        try:
            with Etcd(process.endpoint) as etcd:
                machines = Machines(etcd, Path(folder))
                for number in itertools.count(seed):
                    outcome = play(f"r{number}", make=machines)
                    total.runs += 1
                    total.interleavings += outcome.counts
                    if outcome.broken:
                        total.broken.append(outcome)
                        _show(outcome)
                    if time.monotonic() - told > 10 or total.interleavings == count:
                        told = time.monotonic()
                        print(f"{total.interleavings} of {count} on etcd and SQLite", flush=True)
                    if total.interleavings == count:
                        break
        finally:
            asyncio.run(process.stop())
    print(f"{total.interleavings} interleavings on etcd and SQLite: {len(total.broken)} broken")
    return 1 if total.broken else 0


def _bounded(chunks: Iterator[list[str]], total: Sum, count: int) -> Iterator[list[str]]:
    """Chunks until there is enough, with a little to spare: not every run is an interleaving."""
    for given, chunk in enumerate(chunks):
        if given * CHUNK > 1.5 * count + 4 * CHUNK or total.interleavings >= count:
            return
        yield chunk


def _progress(total: Sum, count: int, seconds: float) -> None:
    rate = total.interleavings / max(seconds, 0.001)
    print(
        f"{total.interleavings:>12,} of {count:,}  {rate:,.0f}/s  {len(total.broken)} broken",
        flush=True,
    )


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="soak")
    parser.add_argument("count", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--play", metavar="NAME")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--no-systematic", action="store_true")
    parser.add_argument("--real", metavar="N", type=int, default=0)
    options = parser.parse_args()
    if options.real:
        return _real(options.real, options.seed)
    if options.play:
        prepare()
        outcome = play(options.play)
        _show(outcome) if outcome.broken else print(outcome)
        return 1 if outcome.broken else 0
    return _soak(
        options.count,
        options.seed,
        options.processes,
        with_systematic=not options.no_systematic,
    )


if __name__ == "__main__":
    sys.exit(main())
