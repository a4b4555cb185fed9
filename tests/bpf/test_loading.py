"""Objects, pins, adoption, and what waiting for running programs means."""

import os
import platform
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.dataplane import abi, bpffs, cgroups, libbpf, loader, testrun
from nodeagent.dataplane.config import Capacities, DataPlaneConfig
from nodeagent.dataplane.grace import GracePeriod
from nodeagent.dataplane.kernel import KernelDataPlane
from nodeagent.dataplane.maps import KernelMap
from nodeagent.dataplane.port import Mapping
from tests.bpf.conftest import SMALL
from tests.bpf.packets import Flow

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def pins(private_bpffs: Path) -> Iterator[Path]:
    folder = private_bpffs / "loading"
    yield folder
    bpffs.remove_pins(folder)


def make(
    pins: Path,
    capacities: Capacities = SMALL,
    *,
    node_index: int = 0,
    tunnel_ifindex: int = 0,
    direct_ifindex: int = 0,
) -> KernelDataPlane:
    config = DataPlaneConfig(
        node_index=node_index,
        tunnel_ifindex=tunnel_ifindex,
        direct_ifindex=direct_ifindex,
        hands_over=direct_ifindex != 0,
    )
    return KernelDataPlane(pins, config=config, capacities=capacities)


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_every_source_is_an_object_that_is_loaded() -> None:
    sources = {path.name.removesuffix(".bpf.c") for path in REPOSITORY.glob("bpf/*.bpf.c")}
    assert sources == set(loader.OBJECTS)


@pytest.mark.parametrize("tunnels", [False, True])
def test_every_program_passes_the_verifier(pins: Path, *, tunnels: bool) -> None:
    plane = make(
        pins,
        tunnel_ifindex=7 if tunnels else 0,
        direct_ifindex=8 if tunnels else 0,
    )
    left_out = {"sock"} if tunnels else {"sock", loader.TUNNEL_OBJECT, loader.DIRECT_OBJECT}
    of_links = set(loader.OBJECTS) - left_out
    assert set(plane._loaded.programs) == of_links | cgroups.KINDS.keys()
    for name in of_links:
        testrun.run(plane._loaded.programs[name], Flow("10.0.0.1", "10.0.0.2").tcp())
    plane.close()


def test_maps_are_pinned_and_constants_are_not(pins: Path) -> None:
    plane = make(pins)
    assert {path.name for path in (pins / f"v{abi.SCHEMA_VERSION}").iterdir()} == {
        *plane._loaded.maps
    }
    assert not any("rodata" in name for name in plane._loaded.maps)
    plane.close()


def test_sizes_in_the_kernel_are_those_of_the_twin(pins: Path) -> None:
    plane = make(pins)
    sizes = {name: (m.shape.key_size, m.shape.value_size) for name, m in plane._maps.items()}
    plane.close()
    assert sizes == {
        "mappings": (abi.ADDRESS_SIZE, abi.MAPPING_SIZE),
        "ranges": (abi.RANGE_KEY_SIZE, abi.MAPPING_SIZE),
        "nodes": (4, abi.NODE_SIZE),
        "policy_entries": (abi.POLICY_KEY_SIZE, abi.POLICY_ENTRY_SIZE),
        "policy_prefixes": (abi.PREFIX_KEY_SIZE, abi.PREFIX_ENTRY_SIZE),
        "subjects": (4, abi.SUBJECT_SIZE),
        "endpoints": (4, abi.ENDPOINT_SIZE),
        "addresses": (abi.ADDRESS_SIZE, abi.ENDPOINT_SIZE),
        "connections": (abi.CONNECTION_KEY_SIZE, abi.CONNECTION_SIZE),
        "fragments": (abi.FRAGMENT_KEY_SIZE, abi.FRAGMENT_SIZE),
        "denials": (abi.DENIAL_KEY_SIZE, abi.DENIAL_SIZE),
        "rules": (abi.RULE_KEY_SIZE, abi.RULE_SIZE),
        "frontends": (abi.FRONTEND_KEY_SIZE, abi.FRONTEND_SIZE),
        "service_counts": (4, abi.SERVICE_COUNT_SIZE),
        "slots": (abi.SLOT_KEY_SIZE, abi.BACKEND_SIZE),
        "members": (abi.MEMBER_KEY_SIZE, 4),
        "sources": (abi.SOURCE_KEY_SIZE, 4),
        "affinities": (abi.AFFINITY_KEY_SIZE, abi.AFFINITY_SIZE),
        "sockets": (abi.SOCKET_KEY_SIZE, abi.SOCKET_SIZE),
        "translations": (abi.TRANSLATION_KEY_SIZE, abi.TRANSLATION_SIZE),
        "tables": (4, 4),
        "frontend_ports": (4, 4),
        "itself_ports": (4, 4),
        "outcomes": (4, abi.COUNT_SIZE),
        "settings": (4, abi.SETTINGS_SIZE),
        "applied": (4, abi.APPLIED_SIZE),
    }


def test_capacities_are_taken_but_adopted_maps_keep_theirs(pins: Path) -> None:
    plane = make(pins, Capacities(mappings=100, endpoints=5, connections=64))
    plane.upsert_mappings([Mapping(address=bytes(16), identity=2, node_index=0)])
    assert plane._maps["mappings"].shape.capacity == 100
    assert plane._maps["addresses"].shape.capacity == 10
    plane.close()
    plane = make(pins, Capacities(mappings=200, endpoints=50, connections=64))
    assert plane._maps["mappings"].shape.capacity == 100
    assert len(plane.dump().mappings) == 1
    plane.close()


def test_pinned_map_of_another_layout_is_named(pins: Path) -> None:
    make(pins).close()
    folder = loader.schema_folder(pins)
    (folder / "settings").unlink()
    os.link(folder / "nodes", folder / "settings")
    with pytest.raises(loader.SchemaMismatch, match="settings"):
        make(pins)


def test_node_index_survives_until_it_is_set_again(pins: Path) -> None:
    def index(plane: KernelDataPlane) -> int:
        value = plane._maps["settings"].get(bytes(4))
        plane.close()
        assert value is not None
        return abi.Settings.unpack(value).node_index

    assert index(make(pins, node_index=7)) == 7
    assert index(make(pins)) == 7
    assert index(make(pins, node_index=8)) == 8


def test_closing_closes_every_descriptor(pins: Path) -> None:
    make(pins).close()
    before = descriptors()
    make(pins).close()
    assert descriptors() == before


def test_object_that_was_not_built_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loader, "OBJECT_FOLDERS", (tmp_path,))
    with pytest.raises(loader.ObjectsMissing, match="make build"):
        loader.find_object("from_pod")


@pytest.fixture(scope="module")
def slow_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("clang"):
        pytest.skip("clang is not installed")
    target = tmp_path_factory.mktemp("slow") / "slow.bpf.o"
    subprocess.run(
        ("clang", "-O2", "-g", "-target", "bpf", "-idirafter",
         f"/usr/include/{platform.machine()}-linux-gnu",
         "-c", Path(__file__).with_name("slow.c"), "-o", target),
        check=True, timeout=60,
    )  # fmt: skip
    return target


def test_grace_period_waits_for_a_running_program(slow_object: Path) -> None:
    """Three times: a program that ends by chance while we wait would pass once.

    A try in which the program had ended before we looked says nothing and is made again.
    """
    grace = GracePeriod()
    with loader._Object(slow_object) as opened:
        opened.load()
        program = dict(opened.programs())["slow"]
        (fd,) = (
            libbpf.call("bpf_map__fd", pointer)
            for name, pointer in opened._maps()
            if name == "progress"
        )
        progress = KernelMap("progress", os.dup(fd))
        caught = 0
        for _ in range(30):
            progress.update([(bytes(4), bytes(8))])
            thread = threading.Thread(target=testrun.run, args=(program, bytes(64)))
            thread.start()
            deadline = time.monotonic() + 10
            while progress.get(bytes(4)) == bytes(8):
                assert time.monotonic() < deadline
            running = progress.get(bytes(4)) == (1).to_bytes(8, "little")
            grace.wait()
            assert progress.get(bytes(4)) == (2).to_bytes(8, "little")
            thread.join()
            caught += running
            if caught == 3:
                break
        assert caught == 3
        progress.close()
    grace.close()
