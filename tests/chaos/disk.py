"""A node's state folder on a small disk that can be filled."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import Lab, netns, processes
from lab.programs import agent_name

MIB = 4
BALLAST = "ballast"

START_SECONDS = 120.0
"""An agent needs two; this is for a machine that has much else to do."""


class SmallDisk:
    """A tmpfs of a few MiB."""

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / BALLAST

    def fill(self) -> int:
        """Writes until nothing fits any more; returns the bytes written."""
        descriptor = os.open(self._ballast, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        written = 0
        try:
            for size in (1 << 16, 1 << 12, 1):
                block = bytes(size)
                with contextlib.suppress(OSError):
                    while (done := os.write(descriptor, block)) > 0:
                        written += done
        finally:
            os.close(descriptor)
        return written

    def free(self) -> None:
        """Undoes `fill`."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(lab: Lab, node: str) -> Iterator[SmallDisk]:
    """Moves an agent's state to a small disk and starts it there; unmounts at the end."""
    folder = lab.layout.node(node).state
    name = agent_name(node)
    before = lab.status().processes[name]
    assert before.process is not None
    # It must not write between the copy and its end; the supervisor starts it again.
    processes.send(before.process, signal.SIGSTOP)
    kept = folder.with_name("state-before")
    subprocess.run(["cp", "-a", folder, kept], check=True)
    netns.mount("tmpfs", folder, "tmpfs", data=f"size={MIB}m,mode=0700")
    try:
        subprocess.run(["cp", "-a", f"{kept}/.", folder], check=True)
        processes.send(before.process, signal.SIGKILL)
        lab.await_restart(name, before, START_SECONDS)
        yield SmallDisk(folder)
    finally:
        netns.unmount(folder)
