"""The supervisor on small programs of our own: no root, no network."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deltaplane.errors import Unavailable
from lab import processes, supervision
from lab.layout import Layout
from lab.programs import Program, Stage
from lab.supervision import ProcessState, SupervisorState
from lab.supervisor import Supervisor

READY = 'import time; print(\'{"event": "ready", "listen": ["x:1"]}\', flush=True)'
SERVES = f"{READY}; time.sleep(1000)"
DIES = "raise SystemExit(3)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVES}"


def program(name: str, code: str, stage: Stage = Stage.SERVICES) -> Program:
    return Program(name=name, argv=(sys.executable, "-c", code), stage=stage)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    known = Layout(lab="lab", root=tmp_path)
    known.logs.mkdir(parents=True)
    known.etcd_data.mkdir()
    return known


async def nothing() -> None:
    pass


@asynccontextmanager
async def running(supervisor: Supervisor) -> AsyncIterator[None]:
    task = asyncio.create_task(supervisor.run())
    try:
        yield
    finally:
        supervisor.stop()
        await task


async def until(layout: Layout, holds: Callable[[SupervisorState], bool]) -> SupervisorState:
    async with asyncio.timeout(20):
        # Another process writes the file.
        while (state := supervision.read(layout)) is None or not holds(state):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return state


async def test_it_starts_everything_and_ends_everything(layout: Layout) -> None:
    todo = (program("one", SERVES, Stage.STORE), program("two", SERVES), program("three", DEAF))
    async with running(Supervisor(layout, todo, nothing)):
        state = await until(layout, lambda state: state.ready)
        assert state.processes["one"].listen == ("x:1",)
        alive = state.alive()
        assert len(alive) == 4

    # All but this process, which plays the supervisor; also the one that ignores SIGTERM.
    assert [process for process in alive if processes.is_alive(process)] == [state.supervisor]


async def test_a_killed_process_is_started_again(layout: Layout) -> None:
    async with running(Supervisor(layout, (program("one", SERVES),), nothing)):
        before = (await until(layout, lambda state: state.ready)).processes["one"]
        assert before.process is not None
        processes.send(before.process, signal.SIGKILL)

        state = await until(
            layout, lambda state: state.ready and state.processes["one"].restarts == 1
        )

    now = state.processes["one"]
    assert now.process != before.process
    assert now.last_exit == -signal.SIGKILL


async def test_one_that_keeps_dying_is_counted_and_the_next_stage_waits(layout: Layout) -> None:
    todo = (program("bad", DIES, Stage.STORE), program("good", SERVES, Stage.SERVICES))
    async with running(Supervisor(layout, todo, nothing)):
        state = await until(layout, lambda state: state.processes["bad"].restarts >= 2)

    assert state.processes["bad"].last_exit == 3
    assert state.processes["good"] == ProcessState()


async def test_what_happens_between_services_and_nodes_happens_once(layout: Layout) -> None:
    seen: list[tuple[str, ...]] = []

    async def between() -> None:
        state = supervision.read(layout)
        assert state is not None
        seen.append(state.waiting_for)

    todo = (program("service", SERVES), program("node", SERVES, Stage.NODES))
    async with running(Supervisor(layout, todo, between)):
        await until(layout, lambda state: state.ready)

    assert seen == [("node",)]


async def test_a_failure_between_is_recorded_and_no_node_starts(layout: Layout) -> None:
    async def between() -> None:
        raise Unavailable("no pools")

    todo = (program("service", SERVES), program("node", SERVES, Stage.NODES))
    async with running(Supervisor(layout, todo, between)):
        state = await until(layout, lambda state: bool(state.failure))

    assert "no pools" in state.failure
    assert state.processes["node"].process is None


async def test_what_a_process_says_goes_to_its_log(layout: Layout) -> None:
    todo = (program("one", f"import sys; sys.stderr.write('hello'); {SERVES}"),)
    async with running(Supervisor(layout, todo, nothing)):
        await until(layout, lambda state: state.ready)

    assert layout.log("one").read_text() == "hello"
