"""Turns the calling process into one of a pod: its network, its name, its resolver.

The containers of a pod would see the same of the network; of everything else the process sees the
machine, as the lab has no containers.
"""

import ctypes
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from lab import cgroups, netns, topology
from lab.dns import records
from lab.layout import Layout
from lab.pods import Pod
from lab.topology import Topology

RESOLVER = Path("/etc/resolv.conf")

# From linux/sched.h and linux/mount.h.
CLONE_NEWNS, CLONE_NEWUTS = 0x00020000, 0x04000000
MS_REC, MS_SLAVE = 0x4000, 1 << 19

_libc = ctypes.CDLL(None, use_errno=True)


def become(layout: Layout, network: Topology, pod: Pod) -> None:
    """Enters the pod for good.

    Raises:
        OSError: the kernel refuses.
    """
    cgroups.enter(network.group(pod.node))
    netns.enter(netns.path(topology.pod_namespace(layout.lab, pod.uid)))
    if _libc.unshare(CLONE_NEWNS | CLONE_NEWUTS):
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")
    socket.sethostname(pod.hostname or pod.name)
    # Mounts of ours stay ours; what the machine mounts later is seen here, too.
    netns.mount("none", Path("/"), "none", MS_REC | MS_SLAVE)
    if layout.names.exists():
        _use_resolver(layout, pod.namespace)


def _use_resolver(layout: Layout, namespace: str) -> None:
    """Covers the machine's resolv.conf, as its content is what the C library reads."""
    target = RESOLVER.resolve()
    if not target.exists():
        sys.stderr.write(f"{RESOLVER} does not exist here: names of services are not looked up\n")
        return
    file = layout.resolver(namespace)
    file.parent.mkdir(exist_ok=True)
    text = records.resolver(topology.NAME_SERVERS, namespace)
    if not file.exists() or file.read_text() != text:
        file.write_text(text)
    netns.mount(str(file), target, "none", netns.MS_BIND)


def run(layout: Layout, network: Topology, pod: Pod, command: Sequence[str]) -> None:
    """Becomes the command in the pod; does not return.

    Raises:
        OSError: the kernel refuses, or there is no such program.
    """
    become(layout, network, pod)
    os.execvp(command[0], list(command))  # noqa: S606 - no shell is what is wanted
