"""What the wheel takes from a built tree."""

from pathlib import Path

import pytest

from tools.wheel_hook import built_files


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("bpf/from_pod.bpf.c", "bpf/to_pod.bpf.c", "bpf/include/abi.h"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def build(tree: Path, *names: str) -> None:
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()


def test_a_tree_that_is_not_built_gives_nothing(tree: Path) -> None:
    assert built_files(tree) == {}


def test_objects_and_plugin_lie_side_by_side_in_the_wheel(tree: Path) -> None:
    build(tree, "bpf/build/from_pod.bpf.o", "bpf/build/to_pod.bpf.o", "build/bin/deltaplane-cni")
    assert built_files(tree) == {
        f"{tree}/bpf/build/from_pod.bpf.o": "nodeagent/prebuilt/from_pod.bpf.o",
        f"{tree}/bpf/build/to_pod.bpf.o": "nodeagent/prebuilt/to_pod.bpf.o",
        f"{tree}/build/bin/deltaplane-cni": "nodeagent/prebuilt/deltaplane-cni",
    }


def test_what_is_built_of_a_source_that_is_gone_is_left_out(tree: Path) -> None:
    build(tree, "bpf/build/removed.bpf.o", "bpf/build/from_pod.bpf.d", "bpf/build/to_pod.bpf.o")
    assert set(built_files(tree).values()) == {"nodeagent/prebuilt/to_pod.bpf.o"}
