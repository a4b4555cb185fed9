"""2,000 stories of the delta stream, and what is planted in its cores: each mutant breaks a story.

Told by `python -m tests.sim`, a process for each share: sets need a fixed order there.
"""

import subprocess
import sys

import pytest

from tests.sim.stream_mutants import MUTANTS

SEEDS = 2000
SHARE = 100

FOUND_BY: dict[str, int] = {}
"""Seeds that find a mutant, where the first few do not: what `--mutants` printed."""

HUNTED = 3
"""Stories that a mutant has to survive, from that seed on, before it counts as not found."""


def tell(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.sim", "--processes", "1", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("first", range(0, SEEDS, SHARE))
@pytest.mark.timeout(600)
def test_every_invariant_holds_at_every_step(first: int) -> None:
    told = tell("--first", first, "--seeds", SHARE)
    assert told.returncode == 0, told.stdout


@pytest.mark.parametrize("name", [mutant.name for mutant in MUTANTS])
@pytest.mark.timeout(120)
def test_a_mutant_is_found(name: str) -> None:
    told = tell("--mutants", name, "--first", FOUND_BY.get(name, 0), "--seeds", HUNTED)
    assert told.returncode == 0, told.stdout
