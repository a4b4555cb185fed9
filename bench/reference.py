"""The reference in the same run: `ptp` with `host-local`, in a node's namespace of its own."""

import json
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.spawning import Command
from lab import netns

PLUGINS = Path("/usr/lib/cni")
"""Debian's containernetworking-plugins."""

NAMES = ("ptp", "host-local")

NO_DAD = (("net/ipv6/conf/default/accept_dad", "0"),)
"""Else `ptp` waits 1.7 s for duplicate address detection in every pod: no fair comparison."""


def is_installed() -> bool:
    """Whether there is something to compare with."""
    return all((PLUGINS / name).is_file() for name in NAMES)


@dataclass(frozen=True, slots=True)
class ReferencePod:
    """A pod of the reference: a network namespace, and how to add and delete its interface."""

    uid: str
    netns: str
    data: Path

    def command(self, command: str) -> Command:
        """The call of `ptp`, in the namespace of the calling thread: enter the node's first."""
        configuration = {
            "cniVersion": "1.0.0",
            "name": "reference",
            "type": "ptp",
            "ipam": {
                "type": "host-local",
                "dataDir": str(self.data),
                "ranges": [[{"subnet": "10.250.0.0/16"}], [{"subnet": "fd25::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        }
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.uid,
            "CNI_NETNS": str(netns.path(self.netns)),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(PLUGINS),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        return Command(
            program=PLUGINS / "ptp",
            environment=environment,
            stdin=json.dumps(configuration).encode(),
        )


class ReferenceNode:
    """A namespace that stands for a node without Deltaplane, and its pods."""

    def __init__(self, prefix: str, data: Path) -> None:
        self.netns = f"{prefix}-reference"
        self._prefix = prefix
        self._data = data
        self._pods: list[ReferencePod] = []

    def pods(self, count: int) -> list[ReferencePod]:
        """New pods, without an interface."""
        made = []
        for _ in range(count):
            uid = secrets.token_hex(8)
            pod = ReferencePod(uid, f"{self._prefix}-ref-{uid}", self._data)
            netns.create(pod.netns)
            netns.write_sysctls(pod.netns, NO_DAD)
            made.append(pod)
        self._pods += made
        return made

    def remove(self) -> None:
        """All pods with the node; what is in a namespace goes with it."""
        for pod in self._pods:
            netns.delete(pod.netns)
        netns.delete(self.netns)


@contextmanager
def node(prefix: str) -> Iterator[ReferenceNode]:
    """A node for the time of the block. prefix: of the names of its namespaces."""
    data = Path(tempfile.mkdtemp(prefix="host-local-"))
    made = ReferenceNode(prefix, data)
    try:
        netns.create(made.netns)
        netns.write_sysctls(
            made.netns,
            [
                ("net/ipv4/ip_forward", "1"),
                ("net/ipv6/conf/all/forwarding", "1"),
                *NO_DAD,
            ],
        )
        netns.ip_batch(made.netns, ["link set lo up"])
        yield made
    finally:
        made.remove()
        shutil.rmtree(data)
