"""`make fuzz`: bytes from outside, changed at random, into everything that reads such.

    python -m tests.fuzz [--seconds N] [--seed N] [--engine auto|atheris|own] [TARGET…]
    python -m tests.fuzz TARGET --play FILE

Whatever breaks is written to build/fuzz/TARGET/ and printed; --play repeats it. With atheris the
inputs that reach new code are kept there, too, and a later run goes on with them.
"""

import argparse
import importlib.util
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz import campaign

FOLDER = Path("build/fuzz")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(campaign.TARGETS))
    parser.add_argument("--seconds", type=float, default=600.0, help="for each target")
    parser.add_argument("--seed", type=int, default=None, help="repeats a run of the own engine")
    parser.add_argument("--engine", choices=("auto", "atheris", "own"), default="auto")
    parser.add_argument("--play", type=Path, default=None, help="an input to repeat")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    given = _options(arguments)
    names = given.targets or list(campaign.TARGETS)
    unknown = set(names) - set(campaign.TARGETS)
    if unknown:
        known = ", ".join(campaign.TARGETS)
        print(f"there is no target {', '.join(sorted(unknown))}; there are {known}")
        return 2
    if given.play is not None:
        return campaign.play(names[0], given.play.read_bytes())
    seed = secrets.randbits(32) if given.seed is None else given.seed
    if len(names) == 1:
        return campaign.run(names[0], given.seconds, seed, _engine(given.engine), FOLDER / names[0])
    # A process each: one that breaks, or that atheris ends, leaves the others alone.
    failed = 0
    for name in names:
        command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(given.seconds)]
        command += ["--seed", str(seed), "--engine", given.engine]
        failed += subprocess.run(command, check=False).returncode != 0
    return 1 if failed else 0


def _engine(chosen: str) -> str:
    if chosen != "auto":
        return chosen
    return "atheris" if importlib.util.find_spec("atheris") else "own"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
