"""What must hold before the agent touches anything. Every problem says how to solve it."""

import os
from pathlib import Path

from nodeagent.config import FOUND_CGROUP, NO_CGROUP, AgentConfig
from nodeagent.dataplane import bpffs, cgroups
from nodeagent.dataplane import preflight as dataplane
from nodeagent.netlink import inspect
from nodeagent.netlink import tunnel as tunnels
from nodeagent.netlink.channel import Channel

CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
"""Bits of linux/capability.h: links and routes; namespaces and BPF."""

MAX_SOCKET_PATH_BYTES = 107
CGROUP_MOUNT = "mount -t cgroup2 none /sys/fs/cgroup/unified"
MOUNT = f"mount -t bpf bpf {bpffs.BPFFS}"


def check(config: AgentConfig) -> tuple[str, ...]:
    """The problems of this machine and configuration; empty when there are none."""
    if config.in_memory:
        return tuple(_check_files(config))
    missing = missing_capabilities()
    if missing:
        # The other checks would only repeat it in other words.
        return (f"{', '.join(missing)} missing: run the agent as root",)
    problems = [f"{item.what} is missing: {item.how_to_get}" for item in dataplane.check()]
    problems += _check_uplink(config)
    if config.wraps or config.answers_directly:
        problems += tunnels.problems()
    if not bpffs.holds(config.pin_dir):
        problems.append(f"--pin-dir {config.pin_dir} is in no BPF file system: {MOUNT}")
    problems += [*_check_cgroup(config.cgroup), *_check_files(config)]
    return tuple(problems)


def _check_files(config: AgentConfig) -> list[str]:
    """What every agent needs, whatever its data plane."""
    problems = _check_socket(config.socket)
    if not _is_writable(config.state_dir):
        problems.append(f"state directory {config.state_dir} cannot be written; see --state-dir")
    return problems


def missing_capabilities() -> tuple[str, ...]:
    """Names of capabilities that this process lacks."""
    status = Path("/proc/self/status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1]
    return tuple(name for name, bit in CAPABILITIES.items() if not int(mask, 16) >> bit & 1)


def _check_uplink(config: AgentConfig) -> list[str]:
    with Channel() as channel:
        uplink = inspect.find(channel, config.uplink)
    if uplink is None:
        return [f"there is no link {config.uplink!r}; see --uplink and --netns"]
    least = tunnels.least_uplink_mtu(config.addresses)
    if (config.wraps or config.answers_directly) and uplink.mtu < least:
        return [f"{config.uplink} has an MTU of {uplink.mtu} bytes; VXLAN needs {least}"]
    return []


def socket_cgroup(option: str) -> Path | None:
    """The cgroup that --cgroup means; None: none."""
    if option == NO_CGROUP:
        return None
    return cgroups.find_mount() if option == FOUND_CGROUP else Path(option)


def _check_cgroup(option: str) -> list[str]:
    found = socket_cgroup(option)
    if option == FOUND_CGROUP and found is None:
        return [f"no cgroup2 is mounted: {CGROUP_MOUNT}, or --cgroup {NO_CGROUP}"]
    if found is not None and not cgroups.is_cgroup(found):
        return [f"--cgroup {found} is no control group of version 2"]
    return []


def _check_socket(path: Path) -> list[str]:
    problems = []
    if len(str(path).encode()) > MAX_SOCKET_PATH_BYTES:
        problems.append(f"socket path {path} is longer than {MAX_SOCKET_PATH_BYTES} bytes")
    if path.exists() and not path.is_socket():
        problems.append(f"{path} exists and is no socket; see --socket")
    return problems


def _is_writable(directory: Path) -> bool:
    """Whether the directory, or the nearest parent that exists, can be written."""
    while not directory.exists():
        directory = directory.parent
    return directory.is_dir() and os.access(directory, os.W_OK)
