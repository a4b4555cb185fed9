"""Where control groups are, and which one an option means."""

from pathlib import Path

import pytest

from nodeagent import preflight
from nodeagent.dataplane import bpffs, cgroups

HYBRID = """\
30 22 0:27 / /sys/fs/cgroup rw,relatime shared:9 - tmpfs tmpfs rw
31 30 0:28 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
32 30 0:29 /kube /run/copy/of/a/part rw,relatime - cgroup2 cgroup2 rw
33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
UNIFIED = "30 22 0:27 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "found"),
    [
        (HYBRID, Path("/sys/fs/cgroup/unified")),
        (UNIFIED, Path("/sys/fs/cgroup")),
        (HYBRID.replace("cgroup2", "cgroup"), None),
    ],
    ids=["both versions", "version 2", "version 1"],
)
def test_mount_of_version_2(mountinfo: str, found: Path | None) -> None:
    assert cgroups.find_mount(mountinfo) == found


def test_option_means_a_cgroup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cgroups, "find_mount", lambda: tmp_path)
    assert preflight.socket_cgroup("none") is None
    assert preflight.socket_cgroup("auto") == tmp_path
    assert preflight.socket_cgroup("/some/where") == Path("/some/where")
    assert preflight._check_cgroup("none") == []
    (problem,) = preflight._check_cgroup("/some/where")
    assert "/some/where" in problem
    monkeypatch.setattr(bpffs, "_types", lambda: {"/": "ext4", str(tmp_path): "cgroup2"})
    assert preflight._check_cgroup("auto") == []
    monkeypatch.setattr(cgroups, "find_mount", lambda: None)
    (problem,) = preflight._check_cgroup("auto")
    assert "mount -t cgroup2" in problem


def test_nothing_is_detached_where_nothing_is(tmp_path: Path) -> None:
    assert not cgroups.detach(tmp_path)
