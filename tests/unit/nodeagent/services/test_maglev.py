"""Tables: all nodes agree, everybody has a share, and few move when one leaves."""

import operator
from array import array
from collections import Counter
from random import Random

import pytest

from nodeagent import tables
from nodeagent.dataplane import abi
from nodeagent.dataplane.balancing import Backend
from nodeagent.services import maglev

FILL = tables.best_fill()
COUNTS = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 31, 60, 100, 200, 399, 400, 401, 700, 1000, 2000, 3972)
STEPS = [count for count, _ in maglev.SIZES]


def backends(chance: Random, count: int) -> list[Backend]:
    """As they come in a cluster: one port, addresses close to each other."""
    port, first = chance.randrange(1, 65536), chance.getrandbits(31)
    numbers = chance.sample(range(first, first + 2 * count), count)
    return [
        Backend(address=bytes(10) + b"\xff\xff" + number.to_bytes(4), port=port)
        for number in sorted(numbers)
    ]


def table(members: list[Backend], *without: int) -> "array[int]":
    """Backends by number, wherever they stand in it."""
    made = maglev.table(((b, n) for n, b in enumerate(members) if n not in without), FILL)
    assert made is not None
    return array("H", made)


def check_shares(found: "array[int]", count: int, seed: int) -> None:
    shares, even = Counter(found), len(found) / count
    assert len(shares) == count, f"seed {seed}"
    assert all(abs(n - even) <= 0.015 * even for n in shares.values()), f"seed {seed}"


@pytest.mark.parametrize("count", [*COUNTS, 4000])
def test_everybody_has_a_share_and_few_move(count: int) -> None:
    seed = Random().getrandbits(32)
    chance = Random(seed)
    for _ in range(4 if count <= 60 else 1):
        members = backends(chance, count)
        before = table(members)
        check_shares(before, count, seed)
        if count == 1:
            continue
        after = table(members, chance.randrange(count))
        if len(after) != len(before):
            assert count - 1 in STEPS
            continue
        moved = sum(map(operator.ne, before, after)) / len(before)
        assert moved <= 0.01 + 1 / count, f"seed {seed}"


def test_a_table_cannot_name_more_places_than_fit() -> None:
    (one,) = backends(Random(1), 1)
    assert maglev.table([(one, maglev.MAX_PLACES - 1)], FILL) is not None
    assert maglev.table([(one, maglev.MAX_PLACES)], FILL) is None
    assert maglev.size(maglev.MAX_PLACES) / maglev.MAX_PLACES >= 1 / 0.015


def test_places_do_not_matter() -> None:
    members = backends(Random(1), 20)
    one = maglev.table(((b, n) for n, b in enumerate(members)), FILL)
    other = maglev.table(((b, 100 - n) for n, b in enumerate(members)), FILL)
    assert one is not None
    assert other is not None
    assert [members[n] for n in array("H", one)] == [members[100 - n] for n in array("H", other)]


def test_a_walk_is_fixed() -> None:
    # Nodes of different versions share tables: this must never change.
    backend = Backend(address=bytes(10) + b"\xff\xff" + bytes((10, 244, 1, 2)), port=8080)
    assert maglev.WALK.unpack(maglev.walk(backend)) == WALK
    assert list(array("H", FILL(7, maglev.walk(backend) + OTHER, array("H", [3, 5])))) == TABLE


WALK = (2744923880, 2250231301, 3109619700)
OTHER = maglev.WALK.pack(0x12345678, 0x9ABCDEF1, 0x13579BDC)
TABLE = [5, 3, 5, 3, 3, 3, 5]


@pytest.mark.parametrize(
    ("count", "entries"), [(1, 7), (2, 1009), (7, 4093), (30, maglev.PART), (300, 299)]
)
def test_the_native_one_agrees(count: int, entries: int) -> None:
    path = tables.library()
    if path is None:
        pytest.skip("build/lib was not built")
    chance = Random(count)
    walks = b"".join(map(maglev.walk, backends(chance, count)))
    places = array("H", (chance.randrange(1 << 16) for _ in range(count)))
    native = tables.NativeFill(path)
    assert native(entries, walks, places) == maglev.fill(entries, walks, places)
    with pytest.raises(ValueError, match="no walks"):
        native(entries, walks[1:], places)


def test_tables_consist_of_parts() -> None:
    assert maglev.PART == abi.TABLE_PART_SLOTS
    assert all(maglev.size(n) % maglev.PART == 0 for n in (1, 30, 31, 400, 401, 65_536))
    assert [maglev.size(n) < maglev.size(n + 1) for n in STEPS[:-1]] == [True, True, True]
