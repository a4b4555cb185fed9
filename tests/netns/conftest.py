import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.dataplane import bpffs as bpffs_mount
from tests.netns.node import BPFFS, ROOT, Node
from tests.netns.services_thread import NAMES, Services


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin binary, compiled as `make build` does."""
    binary = tmp_path_factory.mktemp("shim") / "deltaplane-cni"
    source = ROOT / "nodeagent/cni/shim/deltaplane-cni.c"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-static"]
    subprocess.run(["gcc", *flags, str(source), "-o", str(binary)], check=True, timeout=60)
    return binary


@pytest.fixture
def bpffs() -> Iterator[Path]:
    """A BPF file system; unmounted afterwards if it was not there."""
    mounted = bpffs_mount.ensure()
    yield BPFFS
    if mounted:
        bpffs_mount.release()


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """A control plane with two pools."""
    control = Services(tmp_path)
    control.start(*NAMES)
    control.create_pool("pods4", "10.99.0.0/24", 28)
    control.create_pool("pods6", "fd00:99::/120", 124)
    yield control
    control.close()


@pytest.fixture
def node(tmp_path: Path, shim: Path, services: Services, bpffs: Path) -> Iterator[Node]:
    """A node whose agent has not been started."""
    made = Node("n1", tmp_path, shim, services, bpffs)
    try:
        made.create()
        yield made
    finally:
        made.remove()
