"""A machine for each worker of a test run, as far as files go.

Labs and nodes of tests have names of their own, but share what a machine has once: the folder of
network namespaces, that of labs, the place where bpffs is mounted by the first who needs it and
unmounted by the last. Two workers that find these changed by each other could not tell that from
what they left behind themselves.
"""

import ctypes
import os
from pathlib import Path

from lab import netns
from nodeagent.dataplane import bpffs

# From linux/sched.h and linux/mount.h.
CLONE_NEWNS = 0x00020000
MS_REC, MS_PRIVATE = 0x4000, 1 << 18

_LIBC = ctypes.CDLL(None, use_errno=True)


def leave() -> None:
    """Gives this process, and what it starts, an empty /run and no bpffs; both go with the last.

    Network namespaces keep their names to themselves, too: those are files in /run/netns.

    Raises:
        OSError: no privilege.
    """
    if _LIBC.unshare(CLONE_NEWNS):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot make a mount namespace: {os.strerror(number)}")
    netns.mount("none", Path("/"), "none", MS_REC | MS_PRIVATE)
    netns.mount("tmpfs", Path("/run"), "tmpfs")
    while bpffs.is_mounted():
        netns.unmount(bpffs.BPFFS)
