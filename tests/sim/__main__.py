"""`make sim SEEDS=n`: stories of the delta stream, two processes at a time.

    python -m tests.sim [--seeds N] [--first N] [--processes N]
    python -m tests.sim --seed N [-v]
    python -m tests.sim --mutants [NAME …] [--seeds N | --known]

A story that breaks something is printed with its seed; `--seed N -v` tells it again, step by step.
"""

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence

from tests.sim.found_by import FOUND_BY
from tests.sim.stream_mutants import MUTANTS, named
from tests.sim.stream_story import tell
from tests.sim.violation import Violation

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


def hunt(task: tuple[str, int, int]) -> tuple[str, int, str]:
    """Plants a mutant and tells stories until one breaks: after how many (0: none did), and how."""
    name, first, count = task
    named(name).plant()
    for number in range(count):
        try:
            tell(first + number)
        except Violation as error:
            return name, number + 1, str(error)
        if number % CHUNK == CHUNK - 1:
            gc.collect()
    return name, 0, ""


def hunt_all(names: Sequence[str], first: int, count: int, processes: int) -> int:
    """Hunts mutants, those without a name too; the exit code is 1 when one survives."""
    return hunted(
        [(name, first, count) for name in names or [mutant.name for mutant in MUTANTS]], processes
    )


def hunted(tasks: Sequence[tuple[str, int, int]], processes: int) -> int:
    """Carries hunts out, each in a process of its own."""
    survivors = []
    with multiprocessing.Pool(processes, prepare, maxtasksperchild=1) as pool:
        for name, seeds, how in pool.imap_unordered(hunt, tasks):
            if not seeds:
                survivors.append(name)
            say(f"{name:45} {seeds or 'survives':>8}  {how[:200]}")
    say(f"{len(tasks) - len(survivors)} of {len(tasks)} mutants found")
    return 1 if survivors else 0


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many stories")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--seed", type=int, help="tell this one")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("-v", "--verbose", action="store_true", help="tell its steps")
    parser.add_argument("--mutants", nargs="*", metavar="NAME", help="hunt these, or all")
    parser.add_argument(
        "--known", action="store_true", help="hunt each mutant with the seed that found it before"
    )
    options = parser.parse_args()
    if options.known:
        names = options.mutants or [mutant.name for mutant in MUTANTS]
        return hunted([(name, FOUND_BY.get(name, 0), 1) for name in names], options.processes)
    if options.mutants is not None:
        return hunt_all(options.mutants, options.first, options.seeds, options.processes)
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
