"""2,000 stories of the delta stream, and what is planted in its cores: each mutant breaks a story.

Told by `python -m tests.sim`, a process for each share: sets need a fixed order there.
"""

import os
import subprocess
import sys

import pytest

from tests.sim.stream_mutants import MUTANTS

SEEDS = 2000
SHARE = 100

MUTANTS_SHARE = 12
"""Mutants that one process hunts."""


def tell(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.sim", "--processes", "1", *map(str, arguments)]
    # As it would set it itself, by starting a second time.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("first", range(0, SEEDS, SHARE))
@pytest.mark.timeout(600)
def test_every_invariant_holds_at_every_step(first: int) -> None:
    told = tell("--first", first, "--seeds", SHARE)
    assert told.returncode == 0, told.stdout


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(6417, id="a_stream_ends_after_digests_of_a_spoiled_generation"),
        pytest.param(15395, id="a_policy_is_spoiled_twice_and_is_what_it_was"),
        pytest.param(17629, id="what_came_by_itself_goes_by_itself"),
        pytest.param(4699, id="a_node_is_fenced_while_its_repair_waits"),
        pytest.param(8263, id="a_stream_ends_between_a_barrier_and_the_buckets"),
        pytest.param(201265, id="a_policy_undoes_what_a_new_identity_did"),
    ],
)
def test_what_broke_once_holds(seed: int) -> None:
    told = tell("--first", seed, "--seeds", 1)
    assert told.returncode == 0, told.stdout


@pytest.mark.parametrize("first", range(0, len(MUTANTS), MUTANTS_SHARE))
@pytest.mark.timeout(300)
def test_every_mutant_is_found(first: int) -> None:
    names = [mutant.name for mutant in MUTANTS[first : first + MUTANTS_SHARE]]
    told = tell("--mutants", *names, "--known")
    assert told.returncode == 0, told.stdout
