"""The short form of `make soak-ipam`; and every wrong system is found out."""

import asyncio
import random
from functools import partial
from pathlib import Path

import pytest
import structlog

from deltaplane.store.embedded import EtcdProcess, find_etcd
from tests.soak.faults import FATES, Fate, Point
from tests.soak.mutants import MUTANTS, AnyRelease
from tests.soak.real import Etcd, Machines
from tests.soak.speed import remember
from tests.soak.stories import PAIRS, play, play_alone, renew, systematic
from tests.soak.world import World

RUNS = 400
REAL_RUNS = 20
SYSTEMATIC = 400
FOUND_WITHIN = 4000
"""Runs in which each mutant must be found; most are within 300."""


@pytest.fixture(autouse=True, scope="module")
def quick() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    remember()


def test_no_interleaving_breaks_anything() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    counted = 0
    for number in range(seed, seed + RUNS):
        outcome = play(f"r{number}")
        counted += outcome.counts
        assert not outcome.broken, (outcome.name, outcome.told, outcome.broken)
    assert counted > RUNS / 2


def test_the_same_on_a_real_etcd_and_journal_files(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    counted = 0
    process = EtcdProcess(find_etcd(), tmp_path / "etcd")
    asyncio.run(process.start())
    try:
        with Etcd(process.endpoint) as etcd:
            machines = Machines(etcd, tmp_path)
            for number in range(seed, seed + REAL_RUNS):
                outcome = play(f"r{number}", make=machines)
                counted += outcome.counts
                assert not outcome.broken, (outcome.name, outcome.told, outcome.broken)
    finally:
        asyncio.run(process.stop())
    assert counted > REAL_RUNS / 4


def test_a_sample_of_the_systematic_search_breaks_nothing() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    names = list(systematic())
    assert len({name.split("-")[2] for name in names}) == len(PAIRS)
    for name in random.Random(seed).sample(names, SYSTEMATIC):
        outcome = play(name)
        assert not outcome.broken, (outcome.name, outcome.told, outcome.broken)


def test_a_name_repeats_a_run() -> None:
    for number in range(40):
        once, again = play(f"r{number}"), play(f"r{number}")
        assert once == again


def test_a_block_is_not_lost_to_a_release_that_comes_late() -> None:
    def play_late(seed: int, kind: type[World]) -> bool:
        work = partial(renew, node=0, slot=0)
        outcome = play_alone(
            work, "idle", {seed % 8: FATES[Point.CALL].index(Fate.LATE)}, seed, kind
        )
        return bool(outcome.broken)

    assert not any(play_late(seed, World) for seed in range(300))
    assert any(play_late(seed, AnyRelease) for seed in range(300))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda kind: kind.__name__)
def test_a_wrong_system_is_found_out(mutant: type[World]) -> None:
    for number in range(FOUND_WITHIN):
        if play(f"r{number}", mutant).broken:
            print(f"found by r{number}")
            return
    pytest.fail(f"{mutant.__doc__}: not found in {FOUND_WITHIN} runs")
