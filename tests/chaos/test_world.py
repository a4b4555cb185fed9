import itertools

import pytest

from tests.chaos.world import FOE, NAMES, OPEN, VAULT, Act, Step, World, steps

NODES = ("node-1", "node-2")


def told(seed: int, count: int = 300) -> list[Step]:
    return list(itertools.islice(steps(seed, NODES), count))


def test_a_seed_always_makes_the_same_changes() -> None:
    assert told(1) == told(1) != told(2)


@pytest.mark.parametrize("seed", range(10))
def test_every_step_changes_the_world_and_fits_it(seed: int) -> None:
    world = World()
    acts = set()
    for step in told(seed):
        if step.guest is not None:
            there = step.guest.reference in world.guests
            assert there == (step.act is not Act.ADD), step
        after = world.after(step)
        assert after != world, step
        world = after
        acts.add(step.act)
        assert len(world.guests) <= sum(NAMES.values())
    assert acts == set(Act)


def test_the_vault_and_who_is_shut_may_not_be_reached() -> None:
    world = World()
    for step in told(4):
        world = world.after(step)
        for guest in world.guests.values():
            shut = guest.namespace == OPEN and guest.app in world.shut
            assert world.is_forbidden(guest) == (guest.namespace == VAULT or shut)


def test_half_of_the_guests_stay_what_they_are() -> None:
    changed, steady_foes = set(), set()
    for step in told(5, 1000):
        guest = step.guest
        if step.act is Act.RELABEL and guest is not None:
            changed.add(guest.name)
            assert not guest.is_steady
        if step.act is Act.ADD and guest is not None and guest.app == FOE and guest.is_steady:
            steady_foes.add(guest.name)
    assert len(changed) == len(steady_foes) == NAMES[OPEN] // 2
