import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.model.addresses import Prefix
from nodeagent.addressing import COOLING_SECONDS, BlockState, allocate, release

EMPTY = BlockState(prefix=Prefix.parse("10.0.0.0/29"), held={})


def test_fresh_addresses_go_first_in_order() -> None:
    block, given_out = EMPTY, []
    for owner in "abc":
        taken = allocate(block, owner, 0)
        assert taken is not None
        block, address = taken
        given_out.append(address[3])
    assert given_out == [0, 1, 2]


def test_the_longest_rested_address_comes_after_the_fresh_ones() -> None:
    block = EMPTY
    for owner in "abcdefgh":
        taken = allocate(block, owner, 0)
        assert taken is not None
        block, _ = taken
    for owner, offset, now in (("c", 2, 10), ("a", 0, 20)):
        block = release(block, block.prefix.nth(offset), owner, now)

    assert allocate(block, "x", 10 + COOLING_SECONDS - 1) is None
    taken = allocate(block, "x", 10 + COOLING_SECONDS)
    assert taken is not None
    block, address = taken
    assert address[3] == 2
    assert allocate(block, "y", 10 + COOLING_SECONDS) is None


def test_only_the_owner_releases() -> None:
    taken = allocate(EMPTY, "a", 0)
    assert taken is not None
    block, address = taken

    assert release(block, address, "b", 1) is block
    assert release(block, block.prefix.nth(5), "a", 1) is block


def test_a_clock_that_was_set_back_does_not_lock_an_address_away() -> None:
    block = BlockState(prefix=Prefix.parse("10.0.0.0/32"), held={})
    taken = allocate(block, "a", 1000)
    assert taken is not None
    block = release(taken[0], taken[1], "a", 1000)

    # The clock is now an hour back: 60 s from its own point of view are enough, never more.
    assert block.cooling[0].ends(now=-2600) == -2600 + COOLING_SECONDS


def test_a_block_whose_numbers_do_not_add_up_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="were handed out"):
        BlockState(prefix=EMPTY.prefix, fresh=2, held={b"\x0a\0\0\0": "a"})


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 7), st.integers(0, 30))))
def test_every_address_is_in_exactly_one_place(actions: list[tuple[bool, int, int]]) -> None:
    block, now = EMPTY, 0.0
    held: dict[bytes, str] = {}
    rested: dict[bytes, float] = {}
    for number, (allocates, pick, seconds) in enumerate(actions):
        now += seconds
        if allocates:
            taken = allocate(block, str(number), now)
            free = block.prefix.size - len(held) - sum(t > now for t in rested.values())
            assert (taken is None) == (free == 0)
            if taken is not None:
                block, address = taken
                assert address not in held
                assert rested.pop(address, 0.0) <= now
                held[address] = str(number)
        elif held:
            address = sorted(held)[pick % len(held)]
            block = release(block, address, held.pop(address), now)
            rested[address] = now + COOLING_SECONDS
        assert block.held == held
        assert {resting.address for resting in block.cooling} == rested.keys()
        assert block.prefix.size - block.fresh + len(held) + len(rested) == block.prefix.size
