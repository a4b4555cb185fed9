from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.model.addresses import Prefix
from nodeagent import addressing
from nodeagent.addressing import Block, Progress, Released

LINEAGE = b"L" * 16
EMPTY = Block(ordinal=1, pool="pods", prefix=Prefix.parse("10.0.0.0/29"))
AT_50 = Progress(lineage=LINEAGE, head=90, watermark=50, strict=40)


def released(offset: int, revision: int, lineage: bytes = LINEAGE) -> Released:
    return Released(offset, revision, lineage, 0.0)


@pytest.mark.parametrize(
    ("held", "rested", "gone"),
    [(1, 1, (released(0, 5),)), (0, 3, (released(0, 5),)), (1 << 8, 0, ())],
)
def test_a_block_that_contradicts_itself_cannot_be_built(
    held: int, rested: int, gone: tuple[Released, ...]
) -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/29"):
        Block(ordinal=1, pool="p", prefix=EMPTY.prefix, held=held, rested=rested, released=gone)


def test_an_address_is_taken_once() -> None:
    with pytest.raises(ValueError, match="address 3 is held"):
        addressing.take(addressing.take(EMPTY, 3), 3)


def test_an_address_belongs_to_its_block_only() -> None:
    assert EMPTY.offset(b"\x0a\0\0\x07") == 7
    assert EMPTY.offset(b"\x0a\0\0\x08") is None
    assert EMPTY.offset(b"\x09\xff\xff\xff") is None
    assert EMPTY.offset(bytes(16)) is None


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((), 0),
        (("10.0.0.0/8",), 0xFF),
        (("10.0.0.4/31", "10.0.0.7/32"), 0b10110000),
        (("10.0.0.8/29", "fd00::/64"), 0),
    ],
)
def test_masks_of_parts(parts: tuple[str, ...], expected: int) -> None:
    found = addressing.mask(EMPTY.prefix, map(Prefix.parse, parts))
    assert found == expected
    assert sum(1 << offset for offset in addressing.offsets(found)) == expected


def test_nothing_is_free_before_the_first_barrier() -> None:
    block = addressing.give(addressing.take(EMPTY, 0), released(0, 1, b""))
    assert addressing.first_free(block, Progress()) is None
    assert not block.is_idle(Progress())


def test_the_lowest_revision_goes_first_unless_it_is_held_back() -> None:
    block = EMPTY
    for offset, revision in ((4, 30), (2, 20), (6, 20), (1, 60)):
        block = addressing.give(block, released(offset, revision))
    assert [old.offset for old in block.released] == [2, 6, 4, 1]
    found = addressing.first_free(block, AT_50)
    assert found is not None
    assert found.offset == 2
    held_back = addressing.first_free(replace(block, reserved=1 << 2, foreign=1 << 6), AT_50)
    assert held_back is not None
    assert held_back.offset == 4
    assert addressing.counts(block, AT_50) == (0, 1, 0, 0, 7)


def test_giving_an_address_again_replaces_what_was_known() -> None:
    block = addressing.give(addressing.give(EMPTY, released(1, 9)), released(1, 5))
    assert block.released == (released(1, 5),)
    assert addressing.find_released(block, 1) == released(1, 5)
    assert addressing.find_released(block, 0) is None


bits = st.integers(0, 255)


@given(bits, bits, bits, bits, st.lists(st.integers(1, 100), min_size=8, max_size=8))
def test_the_places_of_addresses_add_up(
    held: int, rested: int, reserved: int, foreign: int, revisions: list[int]
) -> None:
    block = EMPTY
    for offset in addressing.offsets(held):
        block = addressing.take(block, offset)
    for offset in addressing.offsets(rested & ~held):
        block = addressing.give(block, released(offset, revisions[offset]))
    block = replace(block, reserved=reserved, foreign=foreign)
    found = addressing.counts(block, AT_50)
    assert sum(found) == 8
    gone = {old.offset for old in block.released if old.revision > 50}
    assert found.quarantined == len(gone)
    away = reserved | foreign | held
    assert found.free == sum(not away >> n & 1 and n not in gone for n in range(8))
    fresh = addressing.first_fresh(block)
    assert fresh == next((n for n in range(8) if not (away | rested) >> n & 1), None)
