"""What each worker of a test run is given; see `tests.machine`."""

import subprocess
import sys
from pathlib import Path

from nodeagent.dataplane import bpffs
from tests.netns.node import ROOT

ALONE = """
from pathlib import Path
from lab import netns
from nodeagent.dataplane import bpffs
from tests import machine

machine.leave()
assert list(Path("/run").iterdir()) == []
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
