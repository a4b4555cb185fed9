"""A machine for each worker of a test run, as far as files go.

Labs and nodes of tests have names of their own, but share what a machine has once: the folder of
network namespaces, that of labs, the place where bpffs is mounted by the first who needs it and
unmounted by the last. Two workers that find these changed by each other could not tell that from
what they left behind themselves.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

from lab import netns
from nodeagent.dataplane import bpffs

# From linux/sched.h and linux/mount.h.
CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 0x1000, 0x4000, 1 << 18, 1 << 20

CLEANER = """
import contextlib, os, select, signal, sys, time

with contextlib.suppress(ProcessLookupError):
    select.select([os.pidfd_open(int(sys.argv[1]))], [], [])
here = os.readlink("/proc/self/ns/mnt")

def sweep():
    found = 0
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and int(entry) != os.getpid():
            try:
                if os.readlink(f"/proc/{entry}/ns/mnt") == here:
                    os.kill(int(entry), signal.SIGKILL)
                    found += 1
            except OSError:
                pass
    return found

def remove_groups():
    # Control groups of labs in here have our number behind their name.
    ours = "-" + here.removeprefix("mnt:[").rstrip("]")
    with open("/proc/self/mounts") as lines:
        found = [line.split()[1] for line in lines if line.split()[2] == "cgroup2"]
    for place in found:
        for name in os.listdir(place):
            if name.startswith("deltaplane-") and name.endswith(ours):
                for path, _, _ in os.walk(os.path.join(place, name), topdown=False):
                    os.rmdir(path)

# Again: what supervises the others may have started one of them meanwhile.
while sweep():
    pass
for _ in range(50):
    try:
        remove_groups()
        break
    except OSError:
        time.sleep(0.1)  # they are ending
"""
"""Waits for the end of a process, then ends what that has left running."""

_LIBC = ctypes.CDLL(None, use_errno=True)
_cleaners: list[subprocess.Popen[bytes]] = []


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
    # As `ip netns add` wants it, which else mounts the folder over itself with all that is in it:
    # what was there before could not be removed any more.
    netns.FOLDER.mkdir(parents=True)
    netns.mount(str(netns.FOLDER), netns.FOLDER, "none", MS_BIND | MS_REC)
    netns.mount("none", netns.FOLDER, "none", MS_REC | MS_SHARED)
    while bpffs.is_mounted():
        netns.unmount(bpffs.BPFFS)
    # A run that is interrupted ends its workers before they end their labs, and from outside such
    # a lab could not be found any more.
    cleaner = [sys.executable, "-S", "-c", CLEANER, str(os.getpid())]
    nothing = subprocess.DEVNULL
    _cleaners.append(
        subprocess.Popen(
            cleaner, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
        )
    )
