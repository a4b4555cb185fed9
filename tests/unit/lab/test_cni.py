import json
import os
import socket
import threading
from pathlib import Path

import pytest

from lab import cni
from lab.cni import Attachment, CniError
from nodeagent.cni import protocol

RESULT = {
    "cniVersion": "1.0.0",
    "ips": [{"address": "fd00::5/128"}, {"address": "10.244.0.5/32"}],
}


def attachment(tmp_path: Path, script: str) -> Attachment:
    """A plugin of our own that remembers how it was called."""
    plugin = tmp_path / "plugin"
    plugin.write_text(f"#!/bin/sh\nenv > {tmp_path}/env\ncat > {tmp_path}/stdin\n{script}\n")
    plugin.chmod(0o755)
    return Attachment(
        plugin=plugin,
        agent_socket=Path("/run/agent.sock"),
        netns=Path("/run/netns/pod"),
        namespace="shop",
        pod="web",
        uid="1234",
    )


def answer(content: object, code: int = 0) -> str:
    return f"echo '{json.dumps(content)}'; exit {code}"


def test_the_plugin_is_called_as_a_runtime_calls_it(tmp_path: Path) -> None:
    cni.add(attachment(tmp_path, answer(RESULT)))

    environment = dict(
        line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line
    )
    assert environment["CNI_COMMAND"] == "ADD"
    assert environment["CNI_CONTAINERID"] == "1234"
    assert environment["CNI_NETNS"] == "/run/netns/pod"
    assert environment["CNI_IFNAME"] == "eth0"
    assert environment["CNI_PATH"] == str(tmp_path)
    arguments = dict(pair.split("=") for pair in environment["CNI_ARGS"].split(";"))
    assert arguments["K8S_POD_NAMESPACE"] == "shop"
    assert arguments["K8S_POD_NAME"] == "web"
    assert arguments["K8S_POD_UID"] == "1234"
    assert arguments["IgnoreUnknown"] == "1"
    configuration = json.loads((tmp_path / "stdin").read_text())
    assert configuration["agentSocket"] == "/run/agent.sock"
    assert configuration["type"] == "plugin"


def test_the_addresses_come_ipv4_first(tmp_path: Path) -> None:
    added = cni.add(attachment(tmp_path, answer(RESULT)))

    assert added.addresses == ("10.244.0.5", "fd00::5")
    assert added.seconds > 0


def test_an_error_of_the_plugin_keeps_its_code_and_words(tmp_path: Path) -> None:
    script = answer({"code": 11, "msg": "try again", "details": "no record"}, 1)

    with pytest.raises(CniError, match="ADD web: try again: no record") as caught:
        cni.add(attachment(tmp_path, script))
    assert caught.value.code == cni.TRY_AGAIN


def test_a_plugin_that_fails_without_json_shows_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(CniError, match="boom"):
        cni.delete(attachment(tmp_path, "echo boom; exit 1"))


def test_delete_answers_nothing(tmp_path: Path) -> None:
    cni.delete(attachment(tmp_path, "exit 0"))

    assert "CNI_COMMAND=DEL" in (tmp_path / "env").read_text()


def test_a_plugin_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cni, "TIMEOUT_SECONDS", 0.2)

    with pytest.raises(CniError, match="no answer"):
        cni.add(attachment(tmp_path, "exec sleep 60"))


def direct(tmp_path: Path) -> Attachment:
    """Without a plugin; the namespace is a file of ours."""
    (tmp_path / "netns").touch()
    return Attachment(
        direct=True,
        plugin=Path("/nowhere/deltaplane-cni"),
        agent_socket=tmp_path / "cni.sock",
        netns=tmp_path / "netns",
        namespace="shop",
        pod="web",
        uid="1234",
    )


class Agent(threading.Thread):
    """Answers one call; keeps what it was asked and which file came with it."""

    def __init__(self, path: Path, reply: bytes) -> None:
        super().__init__()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._reply = reply
        self.request: protocol.Request | None = None
        self.inode = 0

    def run(self) -> None:
        with self._listener, self._listener.accept()[0] as connection:
            data, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 1)
            self.inode = os.fstat(descriptors[0]).st_ino
            os.close(descriptors[0])
            self.request = protocol.decode_request(data[protocol.LENGTH.size :])
            connection.sendall(self._reply)


def test_without_a_plugin_the_agent_is_asked_what_the_plugin_would_ask(tmp_path: Path) -> None:
    reply = protocol.Answer(exit_code=0, stdout=json.dumps(RESULT).encode())
    agent = Agent(tmp_path / "cni.sock", protocol.encode_answer(reply))
    agent.start()
    added = cni.add(direct(tmp_path))
    agent.join()

    assert added.addresses == ("10.244.0.5", "fd00::5")
    assert agent.request is not None
    assert (agent.request.command, agent.request.container_id) == ("ADD", "1234")
    assert "K8S_POD_NAME=web" in agent.request.args
    assert agent.request.netns == str(tmp_path / "netns")
    assert json.loads(agent.request.config)["type"] == "deltaplane-cni"
    assert agent.inode == (tmp_path / "netns").stat().st_ino


def test_what_the_agent_refuses_keeps_its_code(tmp_path: Path) -> None:
    refusal = json.dumps({"code": 7, "msg": "no", "details": "never"}).encode()
    reply = protocol.encode_answer(protocol.Answer(exit_code=1, stdout=refusal))
    agent = Agent(tmp_path / "cni.sock", reply)
    agent.start()
    with pytest.raises(CniError, match="DEL web: no: never") as caught:
        cni.delete(direct(tmp_path))
    agent.join()
    assert caught.value.code == 7


@pytest.mark.parametrize("reply", [None, b"\0\0"])
def test_an_agent_that_is_away_or_goes_away_is_asked_again_later(
    tmp_path: Path, reply: bytes | None
) -> None:
    agent = None if reply is None else Agent(tmp_path / "cni.sock", reply)
    if agent is not None:
        agent.start()
    with pytest.raises(CniError) as caught:
        cni.add(direct(tmp_path))
    if agent is not None:
        agent.join()
    assert caught.value.code == cni.TRY_AGAIN
