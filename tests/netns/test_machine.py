"""What each worker of a test run is given; see `tests.machine`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from nodeagent.dataplane import bpffs
from tests.netns.node import ROOT, until

ALONE = """
from pathlib import Path
from lab import netns
from nodeagent.dataplane import bpffs
from tests import machine

machine.leave()
assert list(Path("/run").iterdir()) == [netns.FOLDER]
assert not bpffs.is_mounted()
netns.create("{name}")
assert bpffs.ensure()
(bpffs.BPFFS / "{name}").mkdir()
"""


def test_what_a_worker_makes_is_its_own(tmp_path: Path) -> None:
    name = f"dpt-{tmp_path.name}"
    before = Path("/proc/self/mountinfo").read_text()

    subprocess.run([sys.executable, "-c", ALONE.format(name=name)], cwd=ROOT, check=True)

    assert Path("/proc/self/mountinfo").read_text() == before
    assert not Path("/run/netns", name).exists()
    assert not (bpffs.BPFFS / name).exists()


ABANDONED = """
import subprocess
from tests import machine

machine.leave()
print(subprocess.Popen(["sleep", "1000"], start_new_session=True).pid, flush=True)
input()
"""


def test_what_a_killed_worker_has_started_ends_with_it() -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", ABANDONED],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with worker:
        assert worker.stdout is not None
        sleeping = Path("/proc", worker.stdout.readline().strip())
        assert sleeping.exists()

        os.kill(worker.pid, signal.SIGKILL)

        until(lambda: not is_running(sleeping), "the process is gone")


def is_running(process: Path) -> bool:
    """A zombie is none: init may be late in taking it."""
    try:
        return process.joinpath("stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
