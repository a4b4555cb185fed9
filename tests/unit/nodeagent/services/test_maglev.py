"""Tables: all nodes agree, everybody has a share, and few move when one leaves."""

from collections import Counter
from random import Random

import pytest

from nodeagent import tables
from nodeagent.dataplane import abi
from nodeagent.dataplane.balancing import Backend
from nodeagent.services import maglev


def backends(count: int, seed: int = 1) -> list[Backend]:
    chance = Random(seed)
    return sorted(
        Backend(
            address=bytes(10) + b"\xff\xff" + chance.randbytes(4), port=chance.randrange(1, 65536)
        )
        for _ in range(count)
    )


def table(members: list[Backend], size: int) -> list[Backend]:
    order = [maglev.permutation(backend, size) for backend in members]
    return [members[value] for value in maglev.fill(size, order, range(len(members)))]


@pytest.mark.parametrize(("count", "size"), [(3, 1009), (10, 1009), (100, 16381), (150, 16381)])
def test_everybody_has_a_share(count: int, size: int) -> None:
    shares = Counter(table(backends(count), size))
    even = size / count
    assert all(abs(shares[backend] - even) <= max(1.0, 0.015 * even) for backend in shares)
    assert len(shares) == count


@pytest.mark.parametrize(("count", "size"), [(2, 16381), (10, 16381), (20, 16381), (100, 65537)])
@pytest.mark.parametrize("leaving", [0, 1])
def test_few_move_when_one_leaves(count: int, size: int, leaving: int) -> None:
    # Maglev moves some more than the leaving one's share: the fewer places each has, the more.
    members = backends(count)
    before = table(members, size)
    after = table([b for n, b in enumerate(members) if n != leaving], size)
    moved = sum(old != new for old, new in zip(before, after, strict=True)) / size
    assert moved <= 0.01 + 1 / count


def test_places_do_not_matter() -> None:
    members = backends(20)
    one = maglev.table(((b, n) for n, b in enumerate(members)), maglev.fill)
    other = maglev.table(((b, 100 - n) for n, b in enumerate(members)), maglev.fill)
    assert [members[n] for n in one] == [members[100 - n] for n in other]


def test_a_permutation_is_fixed() -> None:
    # Nodes of different versions share tables: this must never change.
    backend = Backend(address=bytes(10) + b"\xff\xff" + bytes((10, 244, 1, 2)), port=8080)
    assert maglev.permutation(backend) == PERMUTATION


PERMUTATION = (8592, 6980)


@pytest.mark.parametrize("count", [1, 2, 7, 300, abi.TABLE_SIZE + 5])
def test_the_native_one_agrees(count: int) -> None:
    path = tables.library()
    if path is None:
        pytest.skip("build/lib was not built")
    chance = Random(count)
    order = [
        (chance.randrange(abi.TABLE_SIZE), chance.randrange(1, abi.TABLE_SIZE))
        for _ in range(count)
    ]
    values = [chance.randrange(1 << 20) for _ in range(count)]
    native = tables.NativeFill(path)(abi.TABLE_SIZE, order, values)
    assert list(native) == list(maglev.fill(abi.TABLE_SIZE, order, values))


def test_tables_are_as_large_as_the_kernel_expects() -> None:
    assert maglev.TABLE_SIZE == abi.TABLE_SIZE
