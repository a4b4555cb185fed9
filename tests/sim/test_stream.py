"""2,000 stories of the delta stream, told by `python -m tests.sim` with sets in a fixed order."""

import subprocess
import sys

import pytest

SEEDS = 2000
SHARE = 100


@pytest.mark.parametrize("first", range(0, SEEDS, SHARE))
@pytest.mark.timeout(600)
def test_every_invariant_holds_at_every_step(first: int) -> None:
    command = [sys.executable, "-m", "tests.sim", "--first", str(first), "--seeds", str(SHARE)]
    told = subprocess.run(
        [*command, "--processes", "1"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout
