"""The daemon of a lab: starts its processes, starts them again, and ends them all on SIGTERM.

It lives in the control namespace (network only: /sys/fs/bpf stays visible), so that etcd and the
services are there; an agent enters its node's namespace by itself. It serves nobody: who wants to
know reads its state file, who wants it to stop sends SIGTERM. Its processes outlive it when it is
killed, as the data path does.

Of a lab in memory (--root) it is no daemon: it ends with the process that has started it, whose end
of its standard input closes then, and takes the lab's files away.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path

from deltaplane.errors import DeltaplaneError
from deltaplane.runtime.roles import Role
from deltaplane.runtime.tls import Tls
from lab import netns, pools, store, supervision
from lab.layout import Layout
from lab.lifecycle import topology_of
from lab.programs import Program, Stage, environment, programs
from lab.supervision import ProcessState, SupervisorState

STOP_SECONDS = 3.0
"""How long a process may take after SIGTERM. The lab is going away: nothing of it is worth more."""

POLL_SECONDS = 0.05


class Supervisor:
    """Keeps programs alive and the state file true.

    Args:
        layout: the lab's files.
        todo: what to run.
        after_services: done once, between the services and the nodes; if it fails, no node starts.
    """

    def __init__(
        self,
        layout: Layout,
        todo: tuple[Program, ...],
        after_services: Callable[[], Awaitable[None]],
    ) -> None:
        self._layout = layout
        self._todo = todo
        self._after_services = after_services
        self._state = SupervisorState(
            supervisor=supervision.must_identify(os.getpid()),
            processes={program.name: ProcessState() for program in todo},
        )
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._ready = {program.name: asyncio.Event() for program in todo}
        self._stopping = asyncio.Event()
        self._record()

    def _record(self, name: str = "", state: ProcessState | None = None) -> None:
        if state is not None:
            self._state = replace(self._state, processes={**self._state.processes, name: state})
        supervision.write(self._layout, self._state)

    def stop(self) -> None:
        """Asks `run` to end."""
        self._stopping.set()

    async def run(self) -> None:
        """Starts stage after stage, keeps all alive until `stop`, then ends them."""
        try:
            async with asyncio.TaskGroup() as group:
                starter = group.create_task(self._start_stages(group))
                await self._stopping.wait()
                starter.cancel()
                await self._end_all()
        finally:
            # Once more, for a failure of ours: no process stays behind without a keeper.
            await self._end_all()

    async def _start_stages(self, group: asyncio.TaskGroup) -> None:
        for stage in Stage:
            members = [program for program in self._todo if program.stage is stage]
            for program in members:
                group.create_task(self._keep(program))
            for program in members:
                await self._ready[program.name].wait()
            if stage is Stage.SERVICES and not await self._once_services_serve():
                return

    async def _once_services_serve(self) -> bool:
        try:
            await self._after_services()
        except DeltaplaneError as error:
            self._state = replace(self._state, failure=f"after the services came up: {error}")
            self._record()
            return False
        return True

    async def _keep(self, program: Program) -> None:
        deaths = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._live(program)
            self._record(program.name, self._state.processes[program.name].died(code))
            deaths = 1 if time.monotonic() - started > supervision.STEADY_AFTER else deaths + 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(supervision.back_off(deaths)):
                    await self._stopping.wait()

    async def _live(self, program: Program) -> int:
        """One life of a program; returns its exit code."""
        if program.stage is Stage.STORE and program.health:
            store.remove_dead_sockets(Path(program.folder))
        with self._layout.log(program.name).open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                *program.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log if program.health else asyncio.subprocess.PIPE,
                stderr=log,
                env=environment(os.environ),
                cwd=program.folder,
            )
        self._children[program.name] = child
        if self._stopping.is_set():
            child.kill()
        state = self._state.processes[program.name]
        # Not reaped before wait(): the pid is still the child's, even when it has died already.
        process = supervision.must_identify(child.pid)
        self._record(program.name, replace(state, process=process, ready=False, listen=()))
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(self._watch_ready(program, child))
            code = await child.wait()
            watcher.cancel()
        del self._children[program.name]
        return code

    async def _watch_ready(self, program: Program, child: asyncio.subprocess.Process) -> None:
        listen: tuple[str, ...] = ()
        if program.health:
            # The state is another process's: there is no event to wait for.
            while not await store.is_healthy(program.health):  # noqa: ASYNC110
                await asyncio.sleep(POLL_SECONDS)
        else:
            assert child.stdout is not None
            line = await child.stdout.readline()
            with contextlib.suppress(ValueError, AttributeError):
                listen = tuple(json.loads(line).get("listen", ()))
            if not line:
                return
        state = self._state.processes[program.name]
        self._record(program.name, replace(state, ready=True, listen=listen))
        self._ready[program.name].set()
        if child.stdout is not None:
            # Nothing else is expected; a full pipe would stop the process.
            while await child.stdout.read(1 << 16):
                pass

    async def _end_all(self) -> None:
        children = list(self._children.values())
        for number in (signal.SIGTERM, signal.SIGKILL):
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    child.send_signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await asyncio.gather(*(child.wait() for child in children))
                    return


async def supervise(
    layout: Layout, todo: tuple[Program, ...], announce: int | None, parent: int | None = None
) -> None:
    """Runs a supervisor until SIGTERM or SIGINT.

    Args:
        layout: the lab's files.
        todo: what to run.
        announce: descriptor to close once the state file names it; None: nobody waits.
        parent: descriptor whose end of file means the end, too; None: there is none.
    """
    ipam = f"unix:{layout.service_socket('ipam')}"
    admin = layout.certificate("admin")
    tls = Tls(admin, Role.IPAM) if admin.exists() else None
    supervisor = Supervisor(layout, todo, lambda: pools.ensure(ipam, tls))
    if announce is not None:
        os.close(announce)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    if parent is not None:
        loop.add_reader(parent, supervisor.stop)
    try:
        await supervisor.run()
    finally:
        if parent is not None:
            loop.remove_reader(parent)


def become_daemon() -> int:
    """Leaves the caller's session; init is the parent from here on, and reaps.

    Returns:
        A descriptor to close as soon as others can find the daemon: the caller waits for that, so
        that nobody who ends the lab overlooks it.
    """
    waiting, announce = os.pipe()
    if os.fork() > 0:
        os.close(announce)
        os.read(waiting, 1)
        os._exit(0)
    os.close(waiting)
    os.setsid()
    return announce


def main(arguments: Iterable[str] | None = None) -> None:
    """Entry point; reads what to run from the lab's record."""
    parser = argparse.ArgumentParser(prog="python -m lab.supervisor", description=__doc__)
    parser.add_argument("--lab", required=True)
    parser.add_argument("--root", type=Path, help="folder of a lab in memory, to be removed")
    options = parser.parse_args(None if arguments is None else list(arguments))
    if options.root is not None:
        run_in_memory(Layout(lab=options.lab, root=options.root))
        return
    layout = Layout(lab=options.lab)
    network = topology_of(layout)
    certificate = layout.certificate("etcd") if network.tls else None
    members = store.members(layout.etcd_data, network.members, certificate)
    etcd = [(member.argv, member.folder) for member in members]
    todo = programs(network, layout, python=sys.executable, etcd=etcd)
    announce = become_daemon()
    netns.enter(Path("/run/netns", network.control))
    asyncio.run(supervise(layout, todo, announce))


def run_in_memory(layout: Layout) -> None:
    """Runs the processes of a lab in memory for as long as standard input is open; cleans up."""
    member = store.apart(layout.etcd_data)
    etcd = [(member.argv, member.folder)]
    todo = programs(topology_of(layout), layout, python=sys.executable, etcd=etcd)
    try:
        asyncio.run(supervise(layout, todo, None, sys.stdin.fileno()))
    finally:
        shutil.rmtree(layout.root, ignore_errors=True)


if __name__ == "__main__":
    main()
