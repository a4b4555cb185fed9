import json
from pathlib import Path

import pytest

from lab import cni
from lab.cni import Attachment, CniError

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
