"""Control groups of the nodes: the programs for sockets act on what runs in them.

    /sys/fs/cgroup/…/deltaplane-LAB-4026531841/NODE    pod host and shells of one node

Never a group that was there before: nothing else on the machine is touched. A machine without
cgroup2 has none, and services then work packet by packet only.
"""

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

REMOVE_SECONDS = 5.0
"""How long ended processes may take to leave."""

MOUNTS = Path("/proc/self/mounts")
MISSING = (
    "there is no cgroup2 that could be written to: no socket is balanced, every packet to a "
    "service is translated by itself"
)


def root(mounts: Path = MOUNTS) -> Path | None:
    """Where cgroup2 is mounted; None: nowhere, or not for us."""
    for line in mounts.read_text().splitlines():
        fields = line.split()
        if fields[2] == "cgroup2" and os.access(found := Path(fields[1]), os.W_OK):
            return found
    return None


def make(lab: str, nodes: Iterable[str]) -> str:
    """Makes a group for each node; returns the folder that they are in, "" where there are none.

    The name holds the number of our mount namespace: in several of them labs of one name may run.
    Groups that a lab of this name has left behind here are used again.
    """
    mounted = root()
    if mounted is None:
        return ""
    folder = mounted / f"deltaplane-{lab}-{Path('/proc/self/ns/mnt').stat().st_ino}"
    try:
        for group in (folder, *(folder / node for node in nodes)):
            group.mkdir(exist_ok=True)
    except PermissionError:
        remove(str(folder))
        return ""
    return str(folder)


def remove(folder: str) -> None:
    """Removes the groups of a lab whose processes have been ended; absent ones are fine."""
    if not folder:
        return
    deadline = time.monotonic() + REMOVE_SECONDS
    for path in (*sorted(Path(folder).glob("*/")), Path(folder)):
        while True:
            try:
                path.rmdir()
            except FileNotFoundError:
                break
            except OSError:
                # Somebody in there is ending, or has been forgotten: the group is all that is left.
                if time.monotonic() > deadline:
                    break
                time.sleep(0.01)
            else:
                break


def enter(group: str) -> None:
    """Puts the calling process into a group; sockets that it opens from then on belong there."""
    if group:
        with contextlib.suppress(FileNotFoundError):
            Path(group, "cgroup.procs").write_text(str(os.getpid()))
