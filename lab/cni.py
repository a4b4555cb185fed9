"""Runs the CNI plugin binary as a container runtime does (CNI specification 1.1, section 2)."""

import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltaplane.errors import DeltaplaneError

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
        plugin: the plugin binary.
        agent_socket: socket of the agent of the pod's node.
        netns: the pod's network namespace.
    """

    plugin: Path
    agent_socket: Path
    netns: Path
    namespace: str
    pod: str
    uid: str

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
    try:
        answer = json.loads(done.stdout) if done.stdout.strip() else {}
    except ValueError:
        answer = {"msg": done.stdout.decode(errors="replace")}
    if done.returncode != 0:
        details = answer.get("details", "")
        text = ": ".join(filter(None, (answer.get("msg", ""), details, done.stderr.decode())))
        raise CniError(int(answer.get("code", 0)), f"{command} {attachment.pod}: {text}")
    return answer if isinstance(answer, dict) else {}
