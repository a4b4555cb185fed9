"""What the agent does with each kind of file in its spool."""

import json
import os
import sqlite3
from pathlib import Path

import pytest

from nodeagent.cni import protocol
from nodeagent.cni.netconf import Attachment
from nodeagent.cni.protocol import Request
from nodeagent.cni.spool import Spool


def request(container: str = "c1", command: str = "DEL", name: str = "net") -> bytes:
    config = json.dumps({"cniVersion": "1.1.0", "name": name}).encode()
    return protocol.encode_request(
        Request(
            command=command,
            container_id=container,
            netns="",
            ifname="eth0",
            args="",
            path="/opt",
            config=config,
        )
    )


class Retired:
    """Remembers what was retired."""

    def __init__(self) -> None:
        self.containers: list[str] = []
        self.failure: Exception | None = None

    async def __call__(self, attachment: Attachment) -> None:
        if self.failure is not None:
            raise self.failure
        self.containers.append(attachment.container_id)


def put(directory: Path, name: str, data: bytes) -> Path:
    path = directory / name
    path.write_bytes(data)
    path.chmod(0o600)
    return path


async def test_files_are_replayed_in_order_and_once(tmp_path: Path) -> None:
    retired = Retired()
    spool = Spool(tmp_path / "spool", retired)
    for name, container in (("2.del", "b"), ("1.del", "a"), ("3.del", "a")):
        put(tmp_path / "spool", name, request(container))

    await spool.replay()
    await spool.replay()

    assert retired.containers == ["a", "b", "a"]
    assert not list((tmp_path / "spool").iterdir())


@pytest.mark.parametrize("failure", [sqlite3.OperationalError("full"), OSError("no disk")])
async def test_a_file_stays_until_its_interface_is_retired(
    tmp_path: Path, failure: Exception
) -> None:
    retired = Retired()
    spool = Spool(tmp_path, retired)
    put(tmp_path, "1.del", request())
    retired.failure = failure
    await spool.replay()
    assert (tmp_path / "1.del").exists()

    retired.failure = None
    await spool.replay()

    assert retired.containers == ["c1"]
    assert not (tmp_path / "1.del").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0",
        request()[:-1],
        request() + b"x",
        request(command="ADD"),
        request(name="bad/name"),
        request() + b"y" * (1 << 16),
    ],
)
async def test_what_no_shim_has_written_is_dropped(tmp_path: Path, data: bytes) -> None:
    retired = Retired()
    spool = Spool(tmp_path, retired)
    put(tmp_path, "1.del", data)
    put(tmp_path, "2.del", request("next"))

    await spool.replay()

    assert retired.containers == ["next"]
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - no path is needed


async def test_others_cannot_put_something_in(tmp_path: Path) -> None:
    retired = Retired()
    spool = Spool(tmp_path / "spool", retired)
    elsewhere = put(tmp_path, "elsewhere", request())
    (tmp_path / "spool/1.del").symlink_to(elsewhere)
    put(tmp_path / "spool", "2.del", request()).chmod(0o666)
    os.mkfifo(tmp_path / "spool/3.del", 0o600)

    await spool.replay()

    assert retired.containers == []


async def test_drafts_are_no_requests_and_go_at_the_start(tmp_path: Path) -> None:
    retired = Retired()
    spool = Spool(tmp_path, retired)
    draft = put(tmp_path, ".1.del", request())
    await spool.replay()
    assert os.listdir(tmp_path) == [draft.name]  # noqa: PTH208 - no path is needed

    Spool(tmp_path, retired)

    assert os.listdir(tmp_path) == []  # noqa: PTH208
    assert retired.containers == []
