import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nodeagent.cni import protocol, server
from nodeagent.cni.netconf import Call
from nodeagent.cni.protocol import Request
from nodeagent.cni.result import CniError, Code
from nodeagent.cni.server import CniServer

STATUS = Request(
    command="STATUS",
    container_id="",
    netns="",
    ifname="",
    args="",
    path="/bin",
    config=b'{"cniVersion":"1.1.0","name":"net"}',
)


class Story:
    """A handler that does as the network name says, and remembers."""

    def __init__(self) -> None:
        self.namespaces: list[os.stat_result | None] = []
        self.descriptors: list[int] = []
        self.running = 0
        self.most = 0
        self.go_on = asyncio.Event()

    async def handle(self, call: Call, netns: int | None) -> bytes:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            match call.attachment.network:
                case "refuses":
                    raise CniError(Code.TRY_AGAIN, "later")
                case "breaks":
                    raise ZeroDivisionError
                case "waits":
                    await self.go_on.wait()
                case _:
                    pass
            self.namespaces.append(os.fstat(netns) if netns is not None else None)
            if netns is not None:
                self.descriptors.append(netns)
            return b"done"
        finally:
            self.running -= 1


@pytest.fixture
async def story(tmp_path: Path) -> AsyncIterator[Story]:
    told = Story()
    listening = asyncio.Event()
    running = asyncio.ensure_future(
        CniServer(tmp_path / "run" / "cni.sock", told.handle).run(listening)
    )
    await listening.wait()
    yield told
    running.cancel()
    await asyncio.wait([running])
    assert not (tmp_path / "run" / "cni.sock").exists()


async def call(path: Path, data: bytes, *fds: int) -> tuple[int, bytes]:
    """What the shim does."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        await loop.sock_connect(client, str(path))
        if fds:
            socket.send_fds(client, [data], list(fds))
        else:
            await loop.sock_sendall(client, data)
        answer = b""
        while part := await loop.sock_recv(client, 65536):
            answer += part
    if not answer:
        return -1, b""
    code, length = protocol.ANSWER_HEAD.unpack_from(answer)
    assert len(answer) == protocol.ANSWER_HEAD.size + length
    return code, answer[protocol.ANSWER_HEAD.size :]


def encoded(network: str = "net") -> bytes:
    config = STATUS.config.replace(b"net", network.encode())
    return protocol.encode_request(
        Request(
            command="STATUS", container_id="", netns="", ifname="", args="", path="/", config=config
        )
    )


async def test_a_call_is_answered_and_its_descriptor_is_closed(
    story: Story, tmp_path: Path
) -> None:
    path = tmp_path / "run" / "cni.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    with (tmp_path / "namespace").open("w") as file:
        assert await call(path, encoded(), file.fileno()) == (0, b"done")
        assert story.namespaces[0] is not None
        assert os.path.samestat(story.namespaces[0], os.fstat(file.fileno()))

    assert await call(path, encoded()) == (0, b"done")
    assert story.namespaces[1] is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(story.descriptors[0])


async def test_errors_of_the_caller_the_handler_and_ours(story: Story, tmp_path: Path) -> None:
    path = tmp_path / "run" / "cni.sock"
    del story
    for network, code in (("refuses", 11), ("breaks", 999), ("bad/name", 7)):
        exit_code, document = await call(path, encoded(network))
        assert exit_code == 1
        assert json.loads(document)["code"] == code


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x1c" + b"\xff" * 28])
async def test_noise_gets_no_answer_and_harms_nobody(
    story: Story, tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "run" / "cni.sock"
    assert await call(path, data) == (-1, b"")
    assert await call(path, encoded()) == (0, b"done")
    assert len(story.namespaces) == 1


async def test_who_does_not_speak_is_hung_up_on(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.05)
    assert await call(tmp_path / "run" / "cni.sock", b"\0\0") == (-1, b"")
    assert not story.namespaces


async def test_so_many_calls_at_once_and_no_more(story: Story, tmp_path: Path) -> None:
    path = tmp_path / "run" / "cni.sock"
    calls = [
        asyncio.ensure_future(call(path, encoded("waits"))) for _ in range(server.MAX_CALLS + 20)
    ]
    async with asyncio.timeout(5):
        while story.running < server.MAX_CALLS - 1:  # noqa: ASYNC110 - polls with a deadline
            await asyncio.sleep(0)
    story.go_on.set()
    assert set(await asyncio.gather(*calls)) == {(0, b"done")}
    assert story.most <= server.MAX_CALLS
