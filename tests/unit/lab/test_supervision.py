import os
import signal
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lab import processes, supervision
from lab.layout import Layout
from lab.processes import ProcessId
from lab.supervision import LAST_BACK_OFF, ProcessState, SupervisorState, back_off


@given(st.integers(1, 10_000))
def test_back_off_grows_and_is_bounded(deaths: int) -> None:
    assert 0.1 <= back_off(deaths) <= back_off(deaths + 1) <= LAST_BACK_OFF


def test_the_state_file_holds_what_was_written(tmp_path: Path) -> None:
    layout = Layout(lab="lab", root=tmp_path)
    layout.folder.mkdir()
    state = SupervisorState(
        supervisor=ProcessId(1, 2),
        processes={
            "etcd": ProcessState(process=ProcessId(3, 4), ready=True, listen=("unix:/x",)),
            "ipam": ProcessState(restarts=2, last_exit=-9),
        },
    )

    supervision.write(layout, state)

    assert supervision.read(layout) == state
    assert not state.ready
    assert state.waiting_for == ("ipam",)
    assert [file.name for file in layout.folder.iterdir()] == ["supervisor.json"]


def test_an_absent_state_file_is_none(tmp_path: Path) -> None:
    assert supervision.read(Layout(lab="lab", root=tmp_path)) is None


def test_a_death_is_counted_and_the_process_forgotten() -> None:
    before = ProcessState(process=ProcessId(3, 4), ready=True, restarts=1)

    assert before.died(-9) == ProcessState(restarts=2, last_exit=-9)


def test_a_process_is_known_by_pid_and_start_time() -> None:
    own = processes.identify(os.getpid())
    assert own is not None

    assert processes.is_alive(own)
    assert not processes.is_alive(ProcessId(own.pid, own.start_ticks + 1))


def test_only_the_very_process_gets_the_signal() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        known = processes.identify(child.pid)
        assert known is not None
        stranger = ProcessId(known.pid, known.start_ticks - 1)

        assert not processes.send(stranger, signal.SIGKILL)
        assert processes.is_alive(known)
        assert processes.send(known, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert not processes.send(known, signal.SIGKILL)


def test_a_zombie_is_not_alive() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        known = processes.identify(child.pid)
        # Waits without reaping.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert processes.identify(child.pid) is None
        assert known is None or not processes.is_alive(known)
