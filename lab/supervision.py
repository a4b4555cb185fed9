"""What a supervisor knows about its processes, and when it starts one again."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from lab.layout import Layout
from lab.pods import replace_file
from lab.processes import ProcessId, identify, is_alive

FIRST_BACK_OFF = 0.1
LAST_BACK_OFF = 5.0
STEADY_AFTER = 10.0
"""Seconds of life after which a death counts as the first one again."""


def back_off(deaths: int) -> float:
    """Seconds to wait before the next start, after so many deaths in a row (1 or more)."""
    return min(LAST_BACK_OFF, FIRST_BACK_OFF * 2.0 ** (min(deaths, 16) - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessState:
    """One supervised process.

    Attributes:
        process: None between a death and the next start.
        ready: it serves.
        restarts: how often it was started again.
        last_exit: exit code of the last death, negative for a signal; None before the first.
        listen: where it says that it listens.
    """

    process: ProcessId | None = None
    ready: bool = False
    restarts: int = 0
    last_exit: int | None = None
    listen: tuple[str, ...] = ()

    def died(self, code: int) -> "ProcessState":
        """The state after a death."""
        return replace(self, process=None, ready=False, restarts=self.restarts + 1, last_exit=code)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorState:
    """The state file.

    Attributes:
        supervisor: the supervisor itself.
        processes: by program name.
        failure: why the supervisor gave up; empty while it has not.
    """

    supervisor: ProcessId
    processes: dict[str, ProcessState] = field(default_factory=dict)
    failure: str = ""

    @property
    def ready(self) -> bool:
        """Whether every process serves."""
        return all(state.ready for state in self.processes.values())

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """Processes that do not serve."""
        return tuple(name for name, state in self.processes.items() if not state.ready)

    def alive(self) -> tuple[ProcessId, ...]:
        """Those of the recorded processes that still run, supervisor first."""
        recorded = [self.supervisor, *(state.process for state in self.processes.values())]
        return tuple(process for process in recorded if process and is_alive(process))


def write(layout: Layout, state: SupervisorState) -> None:
    """Replaces the state file."""
    replace_file(layout.supervisor, msgspec.json.encode(state))


def read(layout: Layout) -> SupervisorState | None:
    """The state file; None when there is none."""
    return _read(layout.supervisor)


def _read(file: Path) -> SupervisorState | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=SupervisorState)
    except FileNotFoundError:
        return None


def must_identify(pid: int) -> ProcessId:
    """Like `identify`, for a child that is not reaped yet.

    Raises:
        ProcessLookupError: it is gone already.
    """
    found = identify(pid)
    if found is None:
        raise ProcessLookupError(pid)
    return found
