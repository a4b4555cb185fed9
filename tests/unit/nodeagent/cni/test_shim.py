"""The compiled plugin binary against a listener that plays the agent."""

import array
import json
import os
import shutil
import socket
import stat
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.cni import protocol
from nodeagent.cni.protocol import Answer, Request

ROOT = Path(__file__).resolve().parents[4]
SOURCE = ROOT / "nodeagent/cni/shim/deltaplane-cni.c"
VARIABLES = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/proc/self/ns/net",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "A=b",
    "CNI_PATH": "/opt",
}


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    binary = tmp_path_factory.mktemp("shim") / "deltaplane-cni"
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined"]
    subprocess.run(["gcc", *flags, str(SOURCE), "-o", str(binary)], check=True, timeout=60)
    return binary


class FakeAgent:
    """Answers one call; says what it was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer = protocol.encode_answer(Answer(exit_code=0, stdout=b'{"ips":[]}'))
        self.request: Request | None = None
        self.namespace = ""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(5)
            head, fds, _, _ = socket.recv_fds(connection, 4, 1)
            if len(head) < 4:
                return
            (length,) = struct.unpack(">I", head)
            body = b""
            while len(body) < length:
                body += connection.recv(length - len(body))
            self.request = protocol.decode_request(body)
            for descriptor in array.array("i", fds):
                self.namespace = str(Path(f"/proc/self/fd/{descriptor}").readlink())
                os.close(descriptor)
            connection.sendall(self.answer)

    def close(self) -> None:
        if self._thread.is_alive():
            with socket.socket(socket.AF_UNIX) as waker:
                waker.connect(str(self.path))
        self._thread.join(5)
        self._listener.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    made = FakeAgent(tmp_path / "agent.sock")
    yield made
    made.close()


def run(
    shim: Path, config: str | bytes, **variables: str
) -> tuple[int, dict[str, object], subprocess.CompletedProcess[bytes]]:
    data = config.encode() if isinstance(config, str) else config
    done = subprocess.run(
        [str(shim)],
        env=VARIABLES | variables,
        input=data,
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert not done.stderr, done.stderr.decode()
    return done.returncode, json.loads(done.stdout), done


def test_a_call_is_forwarded_with_its_namespace(shim: Path, agent: FakeAgent) -> None:
    config = json.dumps({"cniVersion": "1.1.0", "agentSocket": str(agent.path), "x": [1, "é\n"]})

    code, document, _ = run(shim, config)

    assert (code, document) == (0, {"ips": []})
    assert agent.request == Request(
        command="ADD",
        container_id="c1",
        netns="/proc/self/ns/net",
        ifname="eth0",
        args="A=b",
        path="/opt",
        config=config.encode(),
    )
    assert agent.namespace == str(Path("/proc/self/ns/net").readlink())


def test_a_large_configuration_arrives_whole(shim: Path, agent: FakeAgent) -> None:
    config = json.dumps({"agentSocket": str(agent.path), "large": "y" * 1_000_000})
    assert run(shim, config)[0] == 0
    assert agent.request is not None
    assert len(agent.request.config) == len(config)


def test_the_agents_error_is_passed_on(shim: Path, agent: FakeAgent) -> None:
    agent.answer = protocol.encode_answer(Answer(exit_code=1, stdout=b'{"code":7}'))
    assert run(shim, json.dumps({"agentSocket": str(agent.path)}))[:2] == (1, {"code": 7})


@pytest.mark.parametrize(
    "answer", [b"", b"\0\0\0\0", b"\0\0\0\0\0\0\0\x09{}", b"\0\0\0\0\xff\xff\xff\xff"]
)
def test_a_broken_answer_means_try_again(shim: Path, agent: FakeAgent, answer: bytes) -> None:
    agent.answer = answer
    code, document, _ = run(shim, json.dumps({"agentSocket": str(agent.path)}))
    assert (code, document["code"]) == (1, 11)


def test_without_an_agent(shim: Path, tmp_path: Path) -> None:
    config = json.dumps({"cniVersion": "0.4.0", "agentSocket": str(tmp_path / "none")})
    for command, expected in (("ADD", 11), ("DEL", 11), ("STATUS", 50)):
        code, document, _ = run(shim, config, CNI_COMMAND=command)
        assert (code, document["code"], document["cniVersion"]) == (1, expected, "0.4.0")


def delete_with_spool(shim: Path, tmp_path: Path, spool: object, **config: object) -> int:
    """DEL without an agent: 0, or the error's code."""
    document = {"agentSocket": str(tmp_path / "none"), "spoolDir": str(spool)} | config
    done = subprocess.run(
        [str(shim)],
        env=VARIABLES | {"CNI_COMMAND": "DEL"},
        input=json.dumps(document).encode(),
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert not done.stderr, done.stderr.decode()
    if done.returncode:
        return int(json.loads(done.stdout)["code"])
    assert not done.stdout
    return 0


def test_a_delete_without_an_agent_is_remembered(shim: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"

    assert [delete_with_spool(shim, tmp_path, spool, x=n) for n in range(2)] == [0, 0]

    files = sorted(spool.iterdir())
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]
    assert stat.S_IMODE(spool.stat().st_mode) == 0o700
    for number, file in enumerate(files):
        data = file.read_bytes()
        request = protocol.decode_request(data[4:])
        assert protocol.request_length(data[:4]) == len(data) - 4
        assert (request.command, request.container_id, request.ifname) == ("DEL", "c1", "eth0")
        assert json.loads(request.config)["x"] == number


def test_only_a_whole_delete_is_remembered(shim: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    config = json.dumps({"agentSocket": str(tmp_path / "none"), "spoolDir": str(spool)})
    for command, expected in (("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)):
        assert run(shim, config, CNI_COMMAND=command)[1]["code"] == expected
    assert run(shim, config, CNI_COMMAND="DEL", CNI_IFNAME="")[1]["code"] == 11
    assert not spool.exists()


def test_a_delete_that_cannot_be_remembered_is_to_be_tried_again(
    shim: Path, tmp_path: Path
) -> None:
    open_to_all, full, real = tmp_path / "open", tmp_path / "full", tmp_path / "real"
    for folder in (open_to_all, full, real):
        folder.mkdir(mode=0o700)
    open_to_all.chmod(0o777)
    (tmp_path / "link").symlink_to(real)
    for number in range(1024):
        (full / str(number)).touch()

    for spool in (open_to_all, full, tmp_path / "link", tmp_path / "no/parent"):
        assert delete_with_spool(shim, tmp_path, spool) == 11
    assert delete_with_spool(shim, tmp_path, real, large="y" * (1 << 16)) == 11
    assert not list(open_to_all.iterdir())
    assert not list(real.iterdir())
    next(full.iterdir()).unlink()
    assert delete_with_spool(shim, tmp_path, full) == 0
    assert delete_with_spool(shim, tmp_path, full) == 11


@pytest.mark.parametrize("spool", ["", "relative", "/" + "a" * 255, "/a\\b"])
def test_a_spool_directory_that_is_none(shim: Path, tmp_path: Path, spool: str) -> None:
    assert delete_with_spool(shim, tmp_path, spool) == 6


def test_version_reads_nothing(shim: Path) -> None:
    reader, writer = os.pipe()
    try:
        done = subprocess.run(
            [str(shim)],
            env={"CNI_COMMAND": "VERSION"},
            stdin=reader,
            capture_output=True,
            timeout=10,
            check=True,
        )
    finally:
        os.close(reader)
        os.close(writer)
    assert json.loads(done.stdout) == {
        "cniVersion": "1.1.0",
        "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    }


@pytest.mark.parametrize(
    "config",
    [
        "",
        "{",
        '{"a":}',
        '{"a" 1}',
        '{"a":1,}',
        '{"a":1} x',
        "[]",
        '{"a":"\n"}',
        '{"a":"\\x"}',
        '{"agentSocket":7}',
        '{"agentSocket":"/a","agentSocket":"/b"}',
        '{"agentSocket":"/\\u0061"}',
        '{"agentSocket":""}',
        '{"agentSocket":"%s"}' % ("/" + "a" * 107),
        '{"a":' + "[" * 70 + "]" * 70 + "}",
        b'{"a":"\0',
        b'{"a\0":1}',
        '{"a":1}' + " " * (1 << 20),
    ],
)
def test_configurations_that_are_refused(shim: Path, config: str | bytes) -> None:
    code, document, _ = run(shim, config)
    assert (code, document["code"]) == (1, 6)


def test_only_the_top_level_counts(shim: Path, agent: FakeAgent) -> None:
    inner = {"agentSocket": "/nowhere", "deep": [{"agentSocket": "/nowhere"}]}
    config = json.dumps({"inner": inner, "agentSocket": str(agent.path)})
    assert run(shim, config)[0] == 0


def test_environment_mistakes(shim: Path) -> None:
    assert run(shim, "{}", CNI_COMMAND="")[1]["code"] == 4
    assert run(shim, "{}", CNI_ARGS="x" * 65537)[1]["code"] == 4


def test_a_version_that_is_no_version_is_not_repeated(shim: Path) -> None:
    for version in ('1.1.0"', "x" * 40, "1.1.0.1.1.0.1.1.0"):
        _, document, _ = run(shim, json.dumps({"cniVersion": version, "agentSocket": "/none"}))
        assert document["cniVersion"] == "1.1.0"
