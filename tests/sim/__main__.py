"""`make sim SEEDS=n`: stories of the delta stream, two processes at a time.

    python -m tests.sim [--seeds N] [--first N] [--processes N]
    python -m tests.sim --seed N [-v]
    python -m tests.sim --mutants [NAME …] [--seeds N]

A story that breaks something is printed with its seed; `--seed N -v` tells it again, step by step.
"""

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator

from tests.sim.stream_story import tell
from tests.sim.stream_world import Violation

CHUNK = 100
SHOWN = 20


def prepare() -> None:
    """What a process does once: a story leaves little garbage, so none is looked for inside."""
    gc.collect()
    gc.freeze()
    gc.disable()


def tell_many(span: tuple[int, int]) -> tuple[int, float, list[str]]:
    """Tells the stories first..first+count-1: how many, in how much CPU time, what was broken."""
    first, count = span
    broken = []
    started = time.process_time()
    for seed in range(first, first + count):
        try:
            tell(seed)
        except Violation as error:
            broken.append(str(error))
    gc.collect()
    return count, time.process_time() - started, broken


def spans(first: int, count: int) -> Iterator[tuple[int, int]]:
    for start in range(first, first + count, CHUNK):
        yield start, min(CHUNK, first + count - start)


def run(first: int, count: int, processes: int) -> int:
    """Tells stories and their sum; the exit code."""
    started, done, cpu = time.monotonic(), 0, 0.0
    broken: list[str] = []
    with multiprocessing.Pool(processes, prepare) as pool:
        for number, seconds, found in pool.imap_unordered(tell_many, spans(first, count)):
            done, cpu = done + number, cpu + seconds
            broken += found
            for text in found:
                sys.stderr.write(f"{text}\n")
            sys.stderr.write(
                f"{done} of {count} seeds, {len(broken)} broken, {cpu / done * 1000:.1f} ms each, "
                f"{time.monotonic() - started:.0f} s\n"
            )
            if len(broken) >= SHOWN:
                break
    sys.stdout.write(f"{done} seeds from {first}, {len(broken)} broken, {cpu:.0f} s of CPU\n")
    for text in sorted(broken):
        sys.stdout.write(f"  {text}\n")
    return 1 if broken else 0


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many stories")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--seed", type=int, help="tell this one")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("-v", "--verbose", action="store_true", help="tell its steps")
    options = parser.parse_args()
    if options.seed is not None:
        tell(options.seed, say if options.verbose else None)
        return 0
    return run(options.first, options.seeds, options.processes)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets have an order of their own in each process; a seed must tell the same story in all.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]])  # noqa: S606
    sys.exit(main())
