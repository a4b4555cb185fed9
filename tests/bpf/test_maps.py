"""Tables of bytes on kernels that do less: no batches, small ones."""

import errno
from collections.abc import Callable
from typing import Any

import pytest

from nodeagent.dataplane import libbpf, maps
from nodeagent.dataplane.maps import KernelMap
from nodeagent.dataplane.port import CapacityError
from tests.bpf.conftest import SMALL, World

ITEMS = [(number.to_bytes(16), bytes(8)) for number in range(300)]


@pytest.fixture
def table(world: World) -> KernelMap:
    world.reset()
    return world.plane._maps["mappings"]


@pytest.fixture(params=[errno.EINVAL, maps.ENOTSUPP])
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A kernel that answers so to every batch; the names of the calls that it took."""
    real: Callable[..., Any] = libbpf.call
    taken: list[str] = []

    def call(name: str, *arguments: Any) -> Any:
        taken.append(name)
        return -request.param if name.endswith("_batch") else real(name, *arguments)

    monkeypatch.setattr(libbpf, "call", call)
    return taken


def test_without_batches_entries_go_one_by_one(table: KernelMap, calls: list[str]) -> None:
    table.update(ITEMS)
    assert calls.count("bpf_map_update_elem") == len(ITEMS)
    assert sorted(table.entries()) == ITEMS
    table.delete([key for key, _ in ITEMS[:299]] + [b"\xff" * 16])
    assert list(table.entries()) == ITEMS[299:]


def test_without_batches_a_full_map_is_the_same_error(table: KernelMap, calls: list[str]) -> None:
    with pytest.raises(CapacityError, match="mappings"):
        table.update([(number.to_bytes(16), bytes(8)) for number in range(SMALL.mappings + 100)])
    assert "bpf_map_update_elem" in calls


def test_bucket_larger_than_the_room_for_it_is_read(
    table: KernelMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.update(ITEMS)
    monkeypatch.setattr(maps, "CHUNK", 1)
    assert sorted(table.entries()) == ITEMS


def test_entry_is_read_by_key(table: KernelMap) -> None:
    table.update(ITEMS[:1])
    assert table.get(ITEMS[0][0]) == ITEMS[0][1]
    assert table.get(ITEMS[1][0]) is None


def test_other_errors_are_not_swallowed(table: KernelMap) -> None:
    broken = KernelMap.__new__(KernelMap)
    broken.name, broken.fd, broken.shape = "broken", 0x7FFFFFFF, table.shape
    for use in (
        lambda: broken.update(ITEMS),
        lambda: broken.delete([ITEMS[0][0]]),
        lambda: broken.get(ITEMS[0][0]),
        lambda: list(broken.entries()),
    ):
        with pytest.raises(OSError, match="broken") as caught:
            use()
        assert caught.value.errno == errno.EBADF
