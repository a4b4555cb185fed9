"""Runs the CNI plugin binary as a container runtime does (CNI specification 1.1, section 2).

Where there is no binary, the agent's socket is told what the plugin would tell it.
"""

import json
import os
import socket
import struct
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltaplane.errors import DeltaplaneError
from nodeagent.cni import protocol

NETWORK = "deltaplane"
INTERFACE = "eth0"
TIMEOUT_SECONDS = 30.0
TRY_AGAIN = 11


class CniError(DeltaplaneError):
    """The plugin answered with an error.

    Attributes:
        code: CNI error code; 0 when the plugin gave none.
        reason: what the plugin said.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"CNI error {code}: {reason}")
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """What a runtime knows about one pod interface.

    Attributes:
        plugin: the plugin binary, or where it would be.
        agent_socket: socket of the agent of the pod's node.
        netns: the pod's network namespace.
        direct: the agent is called without the plugin.
    """

    plugin: Path
    agent_socket: Path
    netns: Path
    namespace: str
    pod: str
    uid: str
    direct: bool = False

    def environment(self, command: str) -> dict[str, str]:
        """The variables of the specification."""
        arguments = {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": self.namespace,
            "K8S_POD_NAME": self.pod,
            "K8S_POD_UID": self.uid,
            "K8S_POD_INFRA_CONTAINER_ID": self.uid,
        }
        return {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.uid,
            "CNI_NETNS": str(self.netns),
            "CNI_IFNAME": INTERFACE,
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in arguments.items()),
            "CNI_PATH": str(self.plugin.parent),
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        }

    def configuration(self) -> dict[str, Any]:
        """The network configuration that goes to standard input."""
        return {
            "cniVersion": "1.0.0",
            "name": NETWORK,
            "type": self.plugin.name,
            "agentSocket": str(self.agent_socket),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """Result of ADD. addresses: textual, IPv4 first. seconds: how long the plugin ran."""

    addresses: tuple[str, ...]
    seconds: float


def add(attachment: Attachment) -> Added:
    """Adds the interface.

    Raises:
        CniError: the plugin refused; it has undone what it did.
    """
    started = time.perf_counter()
    result = _run(attachment, "ADD")
    seconds = time.perf_counter() - started
    addresses = [entry["address"].partition("/")[0] for entry in result.get("ips", ())]
    return Added(addresses=tuple(sorted(addresses, key=lambda text: ":" in text)), seconds=seconds)


def delete(attachment: Attachment) -> None:
    """Removes the interface; one that is not there is fine.

    Raises:
        CniError: the plugin refused.
    """
    _run(attachment, "DEL")


def _run(attachment: Attachment, command: str) -> Mapping[str, Any]:
    run = _call if attachment.direct else _execute
    code, stdout, stderr = run(attachment, command)
    try:
        answer = json.loads(stdout) if stdout.strip() else {}
    except ValueError:
        answer = {"msg": stdout.decode(errors="replace")}
    if code != 0:
        details = answer.get("details", "")
        text = ": ".join(filter(None, (answer.get("msg", ""), details, stderr.decode())))
        raise CniError(int(answer.get("code", 0)), f"{command} {attachment.pod}: {text}")
    return answer if isinstance(answer, dict) else {}


def _execute(attachment: Attachment, command: str) -> tuple[int, bytes, bytes]:
    """Exit code, standard output and error of the plugin."""
    try:
        done = subprocess.run(
            [attachment.plugin],
            env=attachment.environment(command),
            input=json.dumps(attachment.configuration()).encode(),
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CniError(0, f"{command}: no answer within {TIMEOUT_SECONDS} s") from error
    return done.returncode, done.stdout, done.stderr


def _call(attachment: Attachment, command: str) -> tuple[int, bytes, bytes]:
    """What the plugin would exit with and print, from the agent itself."""
    variables = attachment.environment(command)
    request = protocol.Request(
        command=command,
        container_id=variables["CNI_CONTAINERID"],
        netns=variables["CNI_NETNS"],
        ifname=variables["CNI_IFNAME"],
        args=variables["CNI_ARGS"],
        path=variables["CNI_PATH"],
        config=json.dumps(attachment.configuration()).encode(),
    )
    try:
        with (
            attachment.netns.open("rb") as netns,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
        ):
            connection.settimeout(TIMEOUT_SECONDS)
            connection.connect(str(attachment.agent_socket))
            content = protocol.encode_request(request)
            sent = socket.send_fds(connection, [content], [netns.fileno()])
            if rest := content[sent:]:
                connection.sendall(rest)
            with connection.makefile("rb") as stream:
                code, length = protocol.ANSWER_HEAD.unpack(stream.read(protocol.ANSWER_HEAD.size))
                return code, stream.read(length), b""
    except (OSError, struct.error) as error:
        # The agent is away, or went away meanwhile: the plugin says the same.
        raise CniError(TRY_AGAIN, f"{command} {attachment.pod}: the agent: {error}") from error
