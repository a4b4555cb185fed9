"""The short form of `make chaos`: every kind of fault once, under churn."""

import secrets
from pathlib import Path

import pytest

from lab import lifecycle
from tests.chaos.campaign import Campaign, run
from tests.e2e.conftest import fresh_name

# Starting so many processes may take long where the machine has much else to do.
pytestmark = [pytest.mark.serial, pytest.mark.timeout(400)]


def test_all_holds_after_every_kind_of_fault(capsys: pytest.CaptureFixture[str]) -> None:
    seed = secrets.randbits(32)
    name = fresh_name()

    outcome = run(Campaign.short(seed, name), print)

    assert not outcome.problems, capsys.readouterr().out
    assert name not in lifecycle.labs()
    assert not lifecycle.own_namespaces(name)
    assert not [
        line for line in Path("/proc/self/mounts").read_text().splitlines() if f"/{name}/" in line
    ]
