from pathlib import Path

import pytest

from lab import cgroups

MOUNTS = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 {} cgroup2 rw 0 0\n"


def mounted(tmp_path: Path, place: Path) -> Path:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS.format(place))
    return mounts


def test_the_second_version_is_found_wherever_it_is_mounted(tmp_path: Path) -> None:
    assert cgroups.root(mounted(tmp_path, tmp_path)) == tmp_path
    assert cgroups.root(mounted(tmp_path, tmp_path / "absent")) is None
    (tmp_path / "none").touch()
    assert cgroups.root(tmp_path / "none") is None


def test_groups_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "root", lambda: tmp_path)
    one, two = (cgroups.make(lab, ["node-1", "node-2"]) for lab in ("one", "two"))

    assert one != two
    assert cgroups.make("one", ["node-1", "node-2"]) == one
    assert {path.name for path in Path(one).iterdir()} == {"node-1", "node-2"}
    cgroups.remove(one)
    cgroups.remove(one)
    assert list(tmp_path.iterdir()) == [Path(two)]


def test_a_machine_without_them_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "root", lambda: None)
    assert cgroups.make("lab", ["node-1"]) == ""
    cgroups.remove("")
    cgroups.enter("")
