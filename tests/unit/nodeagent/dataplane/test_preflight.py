"""What is missing is named with the way to get it. On a sound machine nothing is."""

from pathlib import Path

import pytest

from nodeagent.dataplane import bpffs, libbpf, loader, preflight
from nodeagent.dataplane.config import DataPlaneConfig
from nodeagent.dataplane.kernel import KernelDataPlane
from nodeagent.dataplane.preflight import Missing

MOUNTS = """\
22 1 0:21 / /sys rw,relatime shared:7 - sysfs sysfs rw
30 22 0:27 / /sys/fs/bpf rw,nosuid shared:9 - bpf bpf rw,mode=700
31 30 0:28 / /sys/fs/bpf/deep rw - tmpfs none rw
40 1 0:30 / /over rw - tmpfs none rw
41 1 0:31 / /over rw - bpf none rw
"""


def test_mount_types_name_what_is_on_top() -> None:
    assert bpffs.mount_types(MOUNTS) == {
        "/sys": "sysfs",
        "/sys/fs/bpf": "bpf",
        "/sys/fs/bpf/deep": "tmpfs",
        "/over": "bpf",
    }


def test_innermost_mount_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpffs, "_types", lambda: bpffs.mount_types(MOUNTS))
    answers = {
        path: bpffs.holds(Path(path))
        for path in ("/sys/fs/bpf", "/sys/fs/bpf/a/b", "/sys/fs/bpf/deep/a", "/sys/fs", "/none")
    }
    assert answers == {
        "/sys/fs/bpf": True,
        "/sys/fs/bpf/a/b": True,
        "/sys/fs/bpf/deep/a": False,
        "/sys/fs": False,
        "/none": False,
    }


def test_pins_need_a_bpffs(tmp_path: Path) -> None:
    with pytest.raises(loader.NoBpffs, match="mount -t bpf"):
        KernelDataPlane(tmp_path / "pins", config=DataPlaneConfig())
    assert list(tmp_path.iterdir()) == []


def test_removing_pins_takes_the_whole_tree(tmp_path: Path) -> None:
    (tmp_path / "node" / "v1").mkdir(parents=True)
    (tmp_path / "node" / "v1" / "map").touch()
    (tmp_path / "other").mkdir()
    bpffs.remove_pins(tmp_path / "node")
    bpffs.remove_pins(tmp_path / "absent")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_folder_that_is_no_mount_is_not_released(tmp_path: Path) -> None:
    assert not bpffs.release(tmp_path)


@pytest.mark.parametrize(
    ("release", "sound"),
    [("5.10.0-28-amd64", True), ("6.1.0", True), ("5.9.16", False), ("4.19.0-x", False)],
)
def test_kernel_release(release: str, *, sound: bool) -> None:
    missing = list(preflight._check_release(release))
    assert (missing == []) is sound
    assert all(release in item.what for item in missing)


@pytest.mark.parametrize(
    ("mask", "privileged"),
    [("000001ffffffffff", True), ("0000000000201000", True), ("0000000000200000", False),
     ("0000000000000000", False)],
)  # fmt: skip
def test_privilege_is_read_from_the_capability_mask(mask: str, *, privileged: bool) -> None:
    assert preflight._is_privileged(f"Name:\tx\nCapEff:\t{mask}\nUid:\t0\n") is privileged


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libbpf, "LIBRARY", "libbpf.so.0-absent")
    libbpf.library.cache_clear()
    try:
        assert Missing("libbpf.so.0-absent", "apt-get install libbpf1") in preflight.check()
    finally:
        libbpf.library.cache_clear()


def test_missing_objects_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loader, "OBJECT_FOLDERS", (tmp_path,))
    for program in ("from_pod", "to_pod", "from_net", "sock"):
        assert Missing(f"{program}.bpf.o", "make build") in preflight.check()


@pytest.mark.root
def test_sound_machine_lacks_nothing_and_is_left_alone() -> None:
    def state() -> tuple[Path, str, list[str]]:
        return (
            Path("/proc/thread-self/ns/net").readlink(),
            Path("/proc/self/mountinfo").read_text(),
            sorted(path.name for path in Path("/sys/class/net").iterdir()),
        )

    before = state()
    assert preflight.check() == ()
    assert state() == before


@pytest.mark.root
def test_missing_kernel_features_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_MAP_TYPES", {"of tomorrow": 9999})
    monkeypatch.setattr(preflight, "_HELPERS", {"bpf_tomorrow": 9999})
    monkeypatch.setattr(preflight, "_SOCKET_HELPERS", {"bpf_next_week": 9998})
    assert [missing.what for missing in preflight.check()] == [
        "BPF maps of type of tomorrow",
        "BPF helper bpf_next_week",
        "BPF helper bpf_tomorrow",
    ]
