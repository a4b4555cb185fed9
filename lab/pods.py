"""The pods of a lab as its state file keeps them."""

import enum
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from deltaplane.errors import Refused


class Phase(enum.StrEnum):
    """How far a pod has come."""

    ADDING = "adding"
    RUNNING = "running"
    TERMINATING = "terminating"
    """It still serves who has a connection; nobody else is sent to it any more."""


READY = "lab.deltaplane.dev/ready"
"""Annotation of a pod: "false" stands for a readiness probe that fails."""

SERVES = "lab.deltaplane.dev/serves"
"""Annotation of a pod: "http" or "dns" on its ports instead of its name and an echo."""

SERVING = (Phase.RUNNING, Phase.TERMINATING)


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """One containerPort. protocol: "TCP", "UDP" or "SCTP"; name: empty when it has none."""

    protocol: str
    number: int
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One pod.

    Attributes:
        uid: Kubernetes UID; names the network namespace.
        owner: name of what owns it; empty when it stands alone.
        owner_kind: "Deployment" or "StatefulSet"; empty when it stands alone.
        node: name of its node; empty before placement.
        hostname: its name to itself and, below its subdomain, to DNS; empty: its name is not
            known to DNS.
        subdomain: name of the service below which DNS knows it; empty: none.
        addresses: IPv4 first; empty before the CNI has answered.
    """

    namespace: str
    name: str
    uid: str
    node: str = ""
    owner: str = ""
    owner_kind: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    hostname: str = ""
    subdomain: str = ""
    phase: Phase = Phase.ADDING
    addresses: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"

    @property
    def serves(self) -> str:
        """What its ports speak: "echo", "http" or "dns"."""
        word = self.annotations.get(SERVES, "")
        return word if word in ("http", "dns") else "echo"

    @property
    def is_ready(self) -> bool:
        """Whether it answers; a terminating pod may."""
        return self.phase in SERVING and self.annotations.get(READY) != "false"


def load(file: Path) -> tuple[Pod, ...]:
    """Reads the state file, ordered by namespace and name; an absent one holds no pods.

    Raises:
        Refused: the file cannot be read as one of ours.
    """
    try:
        return tuple(msgspec.json.decode(file.read_bytes(), type=list[Pod]))
    except FileNotFoundError:
        return ()
    except msgspec.DecodeError as error:
        raise Refused(f"{file} is damaged ({error}); end the lab with `lab down`") from error


def save(file: Path, pods: Iterable[Pod]) -> None:
    """Writes the state file; a reader sees the old or the new one."""
    ordered = sorted(pods, key=lambda pod: (pod.namespace, pod.name))
    replace_file(file, msgspec.json.format(msgspec.json.encode(ordered), indent=1))


def replace_file(file: Path, content: bytes) -> None:
    """Replaces a file as a whole."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.write_bytes(content)
    fresh.replace(file)


def read_json(file: Path) -> Any:  # noqa: ANN401 - the caller knows the shape
    """Reads a JSON file; None when there is none."""
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
