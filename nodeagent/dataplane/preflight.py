"""What this machine lacks for the data plane. Looks only: nothing is left changed.

BTF of the running kernel is not asked for: the programs use no field of its structs.
"""

import ctypes
import errno
import os
import platform
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nodeagent.dataplane import cgroups, libbpf, loader, tc

OLDEST_KERNEL = (5, 10)
"""The first with bpf_redirect_peer and bpf_redirect_neigh."""

_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21
_CLONE_NEWNET = 0x40000000
_SCHED_CLS = 3
_MAP_TYPES = {
    "hash": 1,
    "array": 2,
    "per-CPU array": 6,
    "LRU hash": 9,
    "LPM trie": 11,
    "array of maps": 12,
    "hash of maps": 13,
}
_HELPERS = {"bpf_redirect_neigh": 152, "bpf_redirect_peer": 155}
_SOCKET_HELPERS = {"bpf_get_socket_cookie": 46, "bpf_get_netns_cookie": 122}
_NO_DESCRIPTOR = 0x7FFFFFFF
_LOOPBACK = 1


@dataclass(frozen=True, slots=True)
class Missing:
    """One thing that is not there. how_to_get: a command or an action, for people."""

    what: str
    how_to_get: str


def check() -> tuple[Missing, ...]:
    """Names everything that is missing; empty: the data plane can run.

    Without privilege the kernel cannot be asked for its features; then only the rest is checked.
    """
    missing = [*_check_files(), *_check_release(platform.release())]
    if not _is_privileged(Path("/proc/self/status").read_text()):
        missing.append(Missing("CAP_SYS_ADMIN and CAP_NET_ADMIN", "run as root"))
    elif not any(item.what.startswith(libbpf.LIBRARY) for item in missing):
        missing += [*_check_kernel(), *_check_tc()]
    return tuple(missing)


def _check_files() -> Iterator[Missing]:
    try:
        libbpf.library()
    except OSError:
        yield Missing(libbpf.LIBRARY, "apt-get install libbpf1")
    except AttributeError as error:
        yield Missing(f"{libbpf.LIBRARY} of version 1.0 or later ({error})", "upgrade libbpf1")
    for name in loader.OBJECTS:
        try:
            loader.find_object(name)
        except loader.ObjectsMissing:
            yield Missing(f"{name}.bpf.o", "make build")
    if "\tbpf\n" not in Path("/proc/filesystems").read_text():
        yield Missing("the bpf file system", "a kernel with CONFIG_BPF_SYSCALL")


def _check_release(release: str) -> Iterator[Missing]:
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST_KERNEL:
        oldest = ".".join(map(str, OLDEST_KERNEL))
        yield Missing(f"Linux {oldest} or later (this is {release})", "a newer kernel")


def _is_privileged(status: str) -> bool:
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    capabilities = int(match[1], 16) if match else 0
    return all(capabilities >> bit & 1 for bit in (_CAP_NET_ADMIN, _CAP_SYS_ADMIN))


def _check_kernel() -> Iterator[Missing]:
    if libbpf.call("libbpf_probe_bpf_prog_type", _SCHED_CLS, None) != 1:
        yield Missing("BPF programs for tc", "a kernel with CONFIG_BPF_SYSCALL and CONFIG_NET")
    if libbpf.call("libbpf_probe_bpf_prog_type", cgroups.SOCK_ADDR, None) != 1:
        yield Missing("BPF programs for sockets", "a kernel with CONFIG_CGROUP_BPF")
    for name, number in _MAP_TYPES.items():
        if libbpf.call("libbpf_probe_bpf_map_type", number, None) != 1:
            yield Missing(f"BPF maps of type {name}", "a kernel with CONFIG_BPF_SYSCALL")
    for name, number in _SOCKET_HELPERS.items():
        if libbpf.call("libbpf_probe_bpf_helper", cgroups.SOCK_ADDR, number, None) != 1:
            yield Missing(f"BPF helper {name}", "Linux 5.10 or later with CONFIG_CGROUP_BPF")
    for name, number in _HELPERS.items():
        if libbpf.call("libbpf_probe_bpf_helper", _SCHED_CLS, number, None) != 1:
            yield Missing(f"BPF helper {name}", "Linux 5.10 or later with CONFIG_INET")


def _leave_network() -> None:
    """Puts the calling thread into a network namespace of its own."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "unshare")


def _check_tc() -> Iterator[Missing]:
    """Tries it in a network namespace that only a short-lived thread is in."""
    found: list[OSError] = []

    def try_it() -> None:
        try:
            _leave_network()
            tc.attach(_LOOPBACK, {})
            tc.attach(_LOOPBACK, {tc.Hook.INGRESS: ("probe", _NO_DESCRIPTOR)})
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    # The descriptor is none: a kernel that gets as far as looking at it has everything.
    if not found or found[0].errno != errno.EBADF:
        reason = f" ({found[0]})" if found else ""
        yield Missing(
            f"clsact and BPF filters of tc{reason}",
            "a kernel with CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF and CONFIG_NET_NS",
        )
