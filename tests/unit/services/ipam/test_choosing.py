from collections import Counter
from dataclasses import replace
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from deltaplane.model.addresses import Prefix
from services.ipam.choosing import WINDOW, candidates, choose, claimable, start
from services.ipam.pools import Pool

SMALL = Pool.of("small", Prefix.parse("10.0.0.0/22"), 26)
HUGE = Pool.of("huge", Prefix.parse("fd00::/48"), 122)
names = st.text("abc-0123456789", min_size=1, max_size=8)


@given(names)
def test_every_block_is_a_candidate_once(node: str) -> None:
    tried = list(candidates(SMALL, start(SMALL, node)))
    assert sorted(tried) == list(range(16))
    assert tried[0] == start(SMALL, node)


@given(names, st.sets(st.integers(0, 15)))
def test_the_first_free_candidate_is_chosen(node: str, taken: set[int]) -> None:
    free = [block for block in candidates(SMALL, start(SMALL, node)) if block not in taken]
    assert choose(SMALL, start(SMALL, node), taken) == (free[0] if free else None)


@given(names, st.sets(st.integers(0, 15)), st.sets(st.integers(0, 15)))
def test_what_nobody_owned_comes_first(node: str, taken: set[int], owned: set[int]) -> None:
    free = [block for block in candidates(SMALL, start(SMALL, node)) if block not in taken]
    new = [block for block in free if block not in owned]
    assert choose(SMALL, start(SMALL, node), taken, owned) == next(iter([*new, *free]), None)


@given(names)
def test_beyond_the_window_the_first_free_one_is_taken(node: str) -> None:
    large = Pool.of("large", Prefix.parse("10.0.0.0/20"), 26)
    order = list(candidates(large, start(large, node)))
    assert choose(large, start(large, node), (), order[: WINDOW - 1]) == order[WINDOW - 1]
    assert choose(large, start(large, node), (), order[:WINDOW]) == order[0]


@given(names, st.sets(st.integers(0, 15), max_size=15))
def test_a_block_that_is_reserved_is_no_candidate(node: str, numbers: set[int]) -> None:
    pool = replace(SMALL, reserved=tuple(SMALL.block(number) for number in sorted(numbers)))
    assert sorted(candidates(pool, start(pool, node))) == sorted(set(range(16)) - numbers)
    assert claimable(pool) == 16 - len(numbers)


@given(names)
def test_a_pool_of_2_to_the_74_blocks_is_no_problem(node: str) -> None:
    first, second = islice(candidates(HUGE, start(HUGE, node)), 2)
    assert choose(HUGE, start(HUGE, node), {first}) == second
    half = replace(HUGE, reserved=(Prefix.parse("fd00::/49"), Prefix.parse("fd00:0:0:8000::/50")))
    number = choose(half, start(half, node), ())
    assert number is not None
    assert not any(held.contains(half.block(number)) for held in half.reserved)


def test_nodes_begin_all_over_the_pool() -> None:
    starts = Counter(start(SMALL, f"node-{number}") for number in range(1600))
    assert set(starts) == set(range(16))
    assert max(starts.values()) < 200  # 100 expected, 10 is the standard deviation


class Claims(RuleBasedStateMachine):
    """Claims and releases against a set: what ipam does, without etcd."""

    @initialize(length=st.integers(24, 26))
    def begin(self, length: int) -> None:
        self.pool = Pool.of("pool", Prefix.parse("10.0.0.0/24"), length)
        self.owners: dict[int, str] = {}

    @rule(node=names)
    def claim(self, node: str) -> None:
        block = choose(self.pool, start(self.pool, node), self.owners)
        if block is None:
            assert len(self.owners) == self.pool.blocks
        else:
            assert block not in self.owners
            self.owners[block] = node

    @precondition(lambda self: bool(getattr(self, "owners", None)))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        del self.owners[data.draw(st.sampled_from(sorted(self.owners)))]

    @invariant()
    def free_and_held_make_the_pool(self) -> None:
        if hasattr(self, "pool"):
            every = set(range(self.pool.blocks))
            assert set(self.owners) <= every
            free = every - set(self.owners)
            assert len(free) + len(self.owners) == self.pool.blocks
            assert (choose(self.pool, 0, self.owners) is None) == (not free)


TestClaims = Claims.TestCase
