from collections import Counter
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from deltaplane.model.addresses import Prefix
from services.ipam.choosing import candidates, choose, start, window
from services.ipam.pools import Pool

SMALL = Pool.of("small", Prefix.parse("10.0.0.0/22"), 26)
HUGE = Pool.of("huge", Prefix.parse("fd00::/48"), 122)
names = st.text("abc-0123456789", min_size=1, max_size=8)


@given(names)
def test_every_block_is_a_candidate_once(node: str) -> None:
    tried = list(candidates(SMALL, node))
    assert sorted(tried) == [SMALL.block(number) for number in range(16)]
    assert SMALL.number(tried[0]) == start(SMALL, node)


@given(names, st.sets(st.integers(0, 15)))
def test_the_first_free_candidate_is_chosen(node: str, numbers: set[int]) -> None:
    taken = {SMALL.block(number) for number in numbers}
    free = [block for block in candidates(SMALL, node) if block not in taken]
    assert choose(SMALL, node, taken) == (free[0] if free else None)


@given(names)
def test_a_pool_of_2_to_the_74_blocks_is_no_problem(node: str) -> None:
    first, second = islice(candidates(HUGE, node), 2)
    assert choose(HUGE, node, {first}) == second
    assert window(HUGE, node, 2) == (first, second)


def test_a_window_ends_with_the_pool() -> None:
    assert len(window(SMALL, "node", 32)) == 16


def test_nodes_begin_all_over_the_pool() -> None:
    starts = Counter(start(SMALL, f"node-{number}") for number in range(1600))
    assert set(starts) == set(range(16))
    assert max(starts.values()) < 200  # 100 expected, 10 is the standard deviation


class Claims(RuleBasedStateMachine):
    """Claims and releases against a set: what ipam does, without etcd."""

    @initialize(length=st.integers(24, 26))
    def begin(self, length: int) -> None:
        self.pool = Pool.of("pool", Prefix.parse("10.0.0.0/24"), length)
        self.owners: dict[Prefix, str] = {}

    @rule(node=names)
    def claim(self, node: str) -> None:
        block = choose(self.pool, node, self.owners)
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
            every = {self.pool.block(number) for number in range(self.pool.blocks)}
            assert set(self.owners) <= every
            free = every - set(self.owners)
            assert len(free) + len(self.owners) == self.pool.blocks
            assert (choose(self.pool, "anyone", self.owners) is None) == (not free)


TestClaims = Claims.TestCase
