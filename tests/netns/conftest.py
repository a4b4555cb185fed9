import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def mounted() -> Iterator[Path]:
    """A BPF file system; unmounted afterwards if it was not there."""
    is_ours = bpffs_mount.ensure()
    yield BPFFS
    if is_ours:
        bpffs_mount.release()


@contextmanager
def serving(directory: Path) -> Iterator[Services]:
    """A control plane with two pools."""
    control = Services(directory)
    control.start(*NAMES)
    control.create_pool("pods4", "10.99.0.0/24", 28)
    control.create_pool("pods6", "fd00:99::/120", 124)
    yield control
    control.close()


@contextmanager
def created(name: str, directory: Path, shim: Path, services: Services) -> Iterator[Node]:
    """A node whose agent has not been started."""
    made = Node(name, directory, shim, services, BPFFS)
    try:
        made.create()
        yield made
    finally:
        made.remove()


@pytest.fixture
def bpffs() -> Iterator[Path]:
    with mounted() as path:
        yield path


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with serving(tmp_path) as control:
        yield control


@pytest.fixture
def node(tmp_path: Path, shim: Path, services: Services, bpffs: Path) -> Iterator[Node]:
    assert bpffs == BPFFS
    with created("n1", tmp_path, shim, services) as made:
        yield made


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, shim: Path) -> Iterator[Node]:
    """A node with an agent; starting one takes longer than a call of the plugin."""
    directory = tmp_path_factory.mktemp("running")
    with (
        mounted(),
        serving(directory) as services,
        created("shared", directory, shim, services) as made,
    ):
        made.start_ready()
        yield made


@pytest.fixture
def ready(running: Node) -> Iterator[Node]:
    """That node, for a test that leaves nothing but pods: they are taken off again."""
    yield running
    running.take_off_pods()
