"""The short form of `make fuzz`: what broke once, and a few new inputs for each target."""

import random

import pytest

from tests.fuzz import campaign
from tests.fuzz.draw import Draw
from tests.fuzz.mutation import LONGEST, mutated

COUNTS = {
    "services": 60,
    "stream": 300,
    "cni": 400,
    "shim": 8,
    "maglev": 20,
    "manifests": 40,
    "apiserver": 60,
    "kubeconfig": 10,
    "disk": 30,
    "names": 400,
    "http2": 400,
    "frames": 300,
    "wrapped": 300,
}


ROOT = ("frames", "wrapped")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.root if name in ROOT else ()) for name in COUNTS],
)
def test_nothing_from_outside_breaks_it(name: str, pytestconfig: pytest.Config) -> None:
    seed = int(pytestconfig.option.hypothesis_seed)

    assert campaign.short(name, seed, COUNTS[name]) > COUNTS[name]


def test_every_target_is_in_the_suite() -> None:
    assert COUNTS.keys() == campaign.TARGETS.keys()


def test_a_seed_always_makes_the_same_inputs() -> None:
    corpus, words = [b"hello", b"world"], [b"word"]

    def made(seed: int) -> list[bytes]:
        chance = random.Random(seed)
        return [mutated(chance, corpus, words) for _ in range(200)]

    assert made(1) == made(1) != made(2)
    assert max(map(len, made(3))) <= LONGEST


def test_decisions_go_on_after_the_end() -> None:
    draw = Draw(b"\x05")

    assert draw.below(4) == 1
    assert draw.is_empty
    assert [draw.below(10), draw.pick("abc"), draw.take(3)] == [0, "a", b""]
