"""The short form of `make fuzz`: what broke once, and a few new inputs for each target."""

import random
from importlib import import_module
from pathlib import Path

import pytest

import deltaplane.v1
from tests.fuzz import agent, campaign, services
from tests.fuzz.draw import Draw
from tests.fuzz.mutation import LONGEST, mutated
from tests.fuzz.templates import templates

COUNTS = {
    "services": 60,
    "agent": 100,
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


def test_every_service_of_ours_is_fuzzed() -> None:
    """Their methods are found by the descriptors; a new service has to be written down."""
    folder = Path(deltaplane.v1.__path__[0])
    modules = [import_module(f"deltaplane.v1.{file.stem}") for file in folder.glob("*_pb2.py")]
    known = [name for _, name in (*services.SERVICES, *agent.SERVICES)]

    assert sorted(known) == sorted(
        name for module in modules for name in module.DESCRIPTOR.services_by_name
    )


def test_every_request_that_makes_something_begins_with_a_fine_one() -> None:
    """Made of anything, it would be refused by the first check, for ever."""
    names = {
        f"{service}.{method.name}"
        for module, service in services.SERVICES
        for method in module.DESCRIPTOR.services_by_name[service].methods
        if method.name.startswith(services.MAKING)
    }

    assert names - set(templates()) == {"Registry.RegisterEndpoints"}


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
