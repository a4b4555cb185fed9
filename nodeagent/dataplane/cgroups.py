"""Programs of sockets on a cgroup, by links that are pinned.

A link outlives the agent that made it; the next one puts its own program into it, and between the
two there is no moment without. The pins lie beside the maps, not in the folder of their schema
version: a program of the next version takes over from that of this one.
"""

import ctypes
import errno
import os
from collections.abc import Mapping
from ctypes import byref, c_uint32, c_uint64
from pathlib import Path

from nodeagent.dataplane import bpffs, libbpf

KINDS: Mapping[str, int] = {
    "sock_connect4": 10,
    "sock_connect6": 11,
    "sock_sendmsg4": 14,
    "sock_sendmsg6": 15,
    "sock_recvmsg4": 19,
    "sock_recvmsg6": 20,
    "sock_getpeername4": 29,
    "sock_getpeername6": 30,
}
"""Program → enum bpf_attach_type, in the order of attaching."""

FOLDER = "links"
SOCK_ADDR = 18
"""Program type."""

_SET_RETVAL = 187


class _Info(ctypes.Structure):
    """The beginning of struct bpf_link_info, of a link to a cgroup."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("prog_id", c_uint32),
        ("padding", c_uint32),
        ("cgroup_id", c_uint64),
        ("attach_type", c_uint32),
    )


def find_mount(mountinfo: str | None = None) -> Path | None:
    """Where all cgroups of version 2 are mounted; None: nowhere.

    Args:
        mountinfo: text of a mountinfo file; None: that of this process.
    """
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    for line in text.splitlines():
        # See bpffs.mount_types; a mount whose root is another folder shows a part only.
        left, _, right = line.partition(" - ")
        _, _, _, root, point = left.split(" ")[:5]
        if right.startswith("cgroup2 ") and root == "/":
            return Path(point)
    return None


def is_cgroup(path: Path) -> bool:
    """Whether a path is a cgroup of version 2."""
    return path.is_dir() and bpffs.type_around(path) == "cgroup2"


def refusal() -> int:
    """The errno that a socket is to get whose service nobody answers for; see DataPlaneConfig."""
    known = libbpf.call("libbpf_probe_bpf_helper", SOCK_ADDR, _SET_RETVAL, None) == 1
    return errno.ECONNREFUSED if known else 0


def attach(group: Path, pin_dir: Path, programs: Mapping[str, int]) -> None:
    """Puts programs (name in KINDS → descriptor) on a cgroup.

    A pinned link to the same cgroup is given the new program in place. One to another cgroup, or to
    one that is gone, is replaced: then the new link is made before the old one goes.

    Raises:
        OSError: no cgroup of version 2, or the kernel refuses.
    """
    folder = pin_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name, program in programs.items():
            _attach_one(fd, folder / name, program, KINDS[name])
    finally:
        os.close(fd)


def _attach_one(group: int, pin: Path, program: int, kind: int) -> None:
    if _update(group, pin, program):
        return
    link = libbpf.checked(libbpf.call("bpf_link_create", program, group, kind, None), pin.name)
    try:
        _remove(pin)
        libbpf.checked(libbpf.call("bpf_obj_pin", link, os.fsencode(pin)), str(pin))
    finally:
        os.close(link)


def _update(group: int, pin: Path, program: int) -> bool:
    """Gives a pinned link another program; False: there is none to this cgroup."""
    link = libbpf.call("bpf_obj_get", os.fsencode(pin))
    if link < 0:
        return False
    try:
        # The number of a cgroup is that of its inode.
        if _cgroup_of(link, pin) != os.fstat(group).st_ino:
            return False
        libbpf.checked(libbpf.call("bpf_link_update", link, program, None), str(pin))
    finally:
        os.close(link)
    return True


def _remove(pin: Path) -> None:
    """Takes off what a pin holds, if there is one.

    Removing the pin alone would do, but some time later, in a worker of the kernel.
    """
    link = libbpf.call("bpf_obj_get", os.fsencode(pin))
    if link < 0:
        return
    try:
        libbpf.checked(libbpf.call("bpf_link_detach", link), str(pin))
    finally:
        os.close(link)
    pin.unlink()


def _cgroup_of(link: int, pin: Path) -> int:
    """Number of the cgroup that a link is on; 0: it is gone."""
    info = _Info()
    length = c_uint32(ctypes.sizeof(info))
    result = libbpf.call("bpf_obj_get_info_by_fd", link, byref(info), byref(length))
    libbpf.checked(result, str(pin))
    return int(info.cgroup_id)


def detach(pin_dir: Path) -> bool:
    """Takes off what `attach` has put on; True if there was something."""
    folder = pin_dir / FOLDER
    if not folder.is_dir():
        return False
    for pin in folder.iterdir():
        _remove(pin)
    folder.rmdir()
    return True
