"""Makes a lab and takes it away without a trace."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from deltaplane.errors import Conflict, Internal, NotFound
from deltaplane.runtime.roles import Peer, Role
from lab import cgroups, netns, pods, processes, supervision
from lab.layout import BPFFS, PINS, ROOT, Layout
from lab.pods import read_json
from lab.processes import ProcessId
from lab.topology import NAMESPACE_SYSCTLS, Topology, check_name, plan

Progress = Callable[[str], None]

READY_SECONDS = 180.0
"""What dies is noticed earlier; this is for machines that have much else to do."""

STOP_SECONDS = 10.0
POLL_SECONDS = 0.05
TOO_MANY_RESTARTS = 5

BPFFS_MARKER = ".mounted-bpffs"
"""File that says that a lab mounted bpffs; the last lab unmounts it."""


def quiet(_: str) -> None:
    """A progress that nobody watches."""


def labs() -> tuple[str, ...]:
    """Names of the labs on this machine, running or not."""
    return tuple(sorted(record.parent.name for record in ROOT.glob("*/lab.json")))


def topology_of(layout: Layout) -> Topology:
    """The plan of an existing lab.

    Raises:
        NotFound: there is no such lab.
    """
    record = read_json(layout.record)
    if record is None:
        known = ", ".join(labs())
        there = f"there are: {known}" if known else "start one with `deltaplane lab up`"
        raise NotFound(f"there is no lab {layout.lab!r}; {there}")
    name, nodes = record.pop("name"), record.pop("nodes")
    return plan(name, nodes, **record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """One lab of this machine, for people.

    Attributes:
        lab: its name.
        nodes: how many.
        pods: how many.
        routing: one of `topology.ROUTINGS`.
        state: "serves", "N of M processes serve", "starting", or "dead": its supervisor is.
    """

    lab: str
    nodes: int
    pods: int
    routing: str
    state: str


def overview() -> tuple[Overview, ...]:
    """All labs of this machine, ordered by name."""
    found = []
    for name in labs():
        layout = Layout(lab=name)
        try:
            network = topology_of(layout)
        except NotFound:
            continue  # ended meanwhile
        found.append(
            Overview(
                lab=name,
                nodes=len(network.nodes),
                pods=len(pods.load(layout.pods)),
                routing=network.routing,
                state=_state(layout),
            )
        )
    return tuple(found)


def _state(layout: Layout) -> str:
    state = supervision.read(layout)
    if state is None:
        return "starting"
    if not processes.is_alive(state.supervisor):
        return "dead"
    if state.ready:
        return "serves"
    total = len(state.processes)
    return f"{total - len(state.waiting_for)} of {total} processes serve"


def is_running(layout: Layout) -> bool:
    """Whether the lab's supervisor is alive."""
    state = supervision.read(layout)
    return state is not None and processes.is_alive(state.supervisor)


# --- up ------------------------------------------------------------------------------------------


def up(network: Topology, progress: Progress = quiet) -> Layout:
    """Starts a lab and waits until every process serves.

    Raises:
        Conflict: the name is in use.
        Internal: a process did not come up; the lab is taken away again.
    """
    layout = Layout(lab=network.lab)
    claim(layout)
    try:
        network = with_groups(network)
        lay_out(layout, network)
        mount_bpffs()
        progress(f"making {len(network.namespaces)} network namespaces")
        make_network(network)
        progress("starting etcd, services and agents")
        start_supervisor(layout)
        await_ready(layout, READY_SECONDS, progress)
    except BaseException:
        down(network.lab)
        cgroups.remove(network.cgroup)
        raise
    return layout


def with_groups(network: Topology) -> Topology:
    """Makes the nodes' control groups, where the machine has such."""
    folder = cgroups.make(network.lab, [node.name for node in network.nodes])
    return replace(network, cgroup=folder)


def claim(layout: Layout) -> None:
    """Takes the name by making the folder: of two that try, one succeeds.

    Raises:
        Conflict: somebody has it.
    """
    foreign = own_namespaces(layout.lab)
    if foreign and not layout.folder.exists():
        raise Conflict(
            f"network namespaces of that name are there, but no lab: {', '.join(foreign)}; choose "
            "another --name, or remove them with ip netns delete"
        )
    try:
        # Else the last of the other labs could take the root away in between.
        with _machine_lock():
            ROOT.mkdir(parents=True, exist_ok=True)
            layout.folder.mkdir()
    except FileExistsError:
        name = layout.lab
        if is_running(layout):
            message = f"lab {name!r} runs already; use it, choose another --name, or end it: "
        elif supervision.read(layout) is None:
            message = f"lab {name!r} is being started, or its start was cut short; in that case: "
        else:
            message = f"lab {name!r} is left over, its supervisor is dead; clean it up first: "
        raise Conflict(f"{message}deltaplane lab down --name {name}") from None


def lay_out(layout: Layout, network: Topology) -> None:
    """Makes the lab's folders and its record."""
    layout.logs.mkdir()
    layout.etcd_data.mkdir(mode=0o700)
    layout.service_socket("x").parent.mkdir()
    for node in network.nodes:
        layout.node(node.name).state.mkdir(parents=True)
    if network.tls:
        make_certificates(layout, network)
    record = {
        "name": layout.lab,
        "nodes": len(network.nodes),
        "routing": network.routing,
        "mtu": network.mtu,
        "trace_ratio": network.trace_ratio,
        "zones": network.zones,
        "external_mode": network.external_mode,
        "cgroup": network.cgroup,
        "replicas": network.replicas,
        "tls": network.tls,
        "in_memory": network.in_memory,
    }
    layout.record.write_bytes(msgspec.json.encode(record))


def make_certificates(layout: Layout, network: Topology) -> None:
    """Makes a CA of the lab's own, and a certificate for each process and for the command."""
    # A tenth of a second that labs without TLS do not wait.
    from deltaplane.certs import files  # noqa: PLC0415
    from deltaplane.certs.issuing import Wanted  # noqa: PLC0415

    ca = files.make_authority(layout.authority)
    layout.authority.parent.chmod(0o700)
    peers = [Peer(role) for role in Role if role is not Role.NODE]
    peers += [Peer(Role.NODE, node.name) for node in network.nodes]
    for peer in peers:
        files.make(ca, Wanted(peer=peer), layout.certificate(str(peer)))


def make_network(network: Topology) -> None:
    """Makes namespaces and links as planned."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
        list(threads.map(netns.create, network.namespaces))
        for name in network.namespaces:
            netns.write_sysctls(name, NAMESPACE_SYSCTLS)
        # The bridges with all veth pairs first: a node's batch finds its ends made.
        bridges, ends = network.batches()[:2], network.batches()[2:]
        list(threads.map(lambda batch: netns.ip_batch(batch.namespace, batch.commands), bridges))
        list(threads.map(lambda batch: netns.ip_batch(batch.namespace, batch.commands), ends))


def start_supervisor(layout: Layout) -> None:
    """Starts the daemon; returns once it has left our session.

    Raises:
        Internal: it could not even start; with the end of its log.
    """
    with layout.log("supervisor").open("ab") as log:
        done = subprocess.run(
            [sys.executable, "-m", "lab.supervisor", "--lab", layout.lab],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            check=False,
        )
    if done.returncode != 0:
        tail = log_tail(layout, "supervisor")
        raise Internal(f"the supervisor of lab {layout.lab} did not start\n{tail}")


def await_ready(layout: Layout, seconds: float, progress: Progress = quiet) -> None:
    """Waits until every process serves.

    Raises:
        Internal: one gave up, keeps dying, or is not ready in time; with the end of its log.
    """
    deadline = time.monotonic() + seconds
    told = ""
    while True:
        state = supervision.read(layout)
        if state is not None and state.ready and not state.failure:
            return
        waiting = ("supervisor",) if state is None else state.waiting_for
        restarts = {} if state is None else state.processes
        dying = [name for name in waiting if name in restarts and restarts[name].restarts]
        if state is not None and (text := _waiting_text(waiting, len(state.processes))) != told:
            told = text
            progress(text)
        hopeless = [name for name in dying if restarts[name].restarts >= TOO_MANY_RESTARTS]
        failure = _failure(state)
        if failure or hopeless or time.monotonic() > deadline:
            culprits = hopeless or dying or (["supervisor"] if failure else waiting[:1])
            tails = "\n".join(f"--- {name}\n{log_tail(layout, name)}" for name in culprits)
            raise Internal(f"lab {layout.lab} did not come up: {failure or told}\n{tails}")
        time.sleep(POLL_SECONDS)


def _failure(state: supervision.SupervisorState | None) -> str:
    """Why waiting is in vain; empty while it is not."""
    if state is None or state.failure:
        return "" if state is None else state.failure
    return "" if processes.is_alive(state.supervisor) else "its supervisor died"


def _waiting_text(waiting: tuple[str, ...], total: int) -> str:
    named = ", ".join(waiting[:3]) + (", …" if len(waiting) > 3 else "")
    return f"{total - len(waiting)} of {total} processes serve; waiting for {named}"


def log_tail(layout: Layout, process: str, lines: int = 15) -> str:
    """The last lines of a process's log."""
    try:
        text = layout.log(process).read_text(errors="replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(empty log)"


# --- down ----------------------------------------------------------------------------------------


def down(name: str, progress: Progress = quiet) -> None:
    """Ends a lab's processes and removes all that it made. What is gone already is fine.

    Raises:
        NotFound: there is no such lab.
    """
    layout = Layout(lab=check_name(name))
    if not layout.folder.exists():
        topology_of(layout)
    progress("ending the processes")
    end_processes(layout)
    progress("removing network namespaces, pins and files")
    record = read_json(layout.record)
    cgroups.remove(record.get("cgroup", "") if record else "")
    for namespace in own_namespaces(name):
        netns.delete(namespace)
    if layout.pins.exists():
        shutil.rmtree(layout.pins)
    unmount_below(layout.folder)
    shutil.rmtree(layout.folder, ignore_errors=True)
    unmount_bpffs()


def own_namespaces(name: str) -> tuple[str, ...]:
    """All network namespaces of a lab, pods included. A lab's name holds no dash."""
    return tuple(entry for entry in netns.names() if entry.startswith(f"dp-{name}-"))


def end_processes(layout: Layout) -> None:
    """Ends the supervisor and its processes, then whatever still runs in the namespaces."""
    state = supervision.read(layout)
    if state is not None and processes.send(state.supervisor, signal.SIGTERM):
        await_gone([state.supervisor], STOP_SECONDS)
    # Read again: the supervisor may have started one meanwhile.
    state = supervision.read(layout)
    left = set(() if state is None else state.alive())
    left |= set(inside(own_namespaces(layout.lab)))
    for process in left:
        processes.send(process, signal.SIGKILL)
    await_gone(list(left), STOP_SECONDS)


def await_gone(wanted: list[ProcessId], seconds: float) -> None:
    """Waits until none of the processes is alive, at most so long."""
    deadline = time.monotonic() + seconds
    while any(processes.is_alive(process) for process in wanted):
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)


def inside(namespaces: tuple[str, ...]) -> Iterator[ProcessId]:
    """Processes in one of these namespaces: an exec'ed shell, an agent nobody recorded."""
    wanted = {netns.path(name).stat().st_ino for name in namespaces}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if (entry / "ns/net").stat().st_ino in wanted:
                process = processes.identify(int(entry.name))
                if process is not None:
                    yield process


def unmount_below(folder: Path) -> None:
    """Unmounts what somebody has put into a folder: a small disk for a node, say."""
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for target in reversed(mounted):
        if target.startswith(f"{folder}/"):
            netns.unmount(Path(target))


# --- bpffs ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _machine_lock() -> Iterator[None]:
    """One lab at a time mounts and unmounts. The lock is on a folder that exists anyway."""
    descriptor = os.open(ROOT.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def bpffs_is_mounted() -> bool:
    """Whether a bpf filesystem is at its usual place."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return any(line.split()[1:3] == [str(BPFFS), "bpf"] for line in lines)


def mount_bpffs() -> None:
    """Mounts bpffs where it is missing and remembers it."""
    with _machine_lock():
        if not bpffs_is_mounted():
            netns.mount("bpf", BPFFS, "bpf")
            (ROOT / BPFFS_MARKER).touch()


def unmount_bpffs() -> None:
    """After the last lab: unmounts what a lab mounted, and removes the common folder."""
    with _machine_lock():
        if labs() or not ROOT.exists():
            return
        # Only now: an agent of another lab may be making its folder in there.
        with contextlib.suppress(OSError):
            PINS.rmdir()
        marker = ROOT / BPFFS_MARKER
        if marker.exists():
            # The kernel's own maps.debug and progs.debug are in every bpffs.
            pins = [entry for entry in BPFFS.iterdir() if entry.suffix != ".debug"]
            if bpffs_is_mounted() and not pins:
                netns.unmount(BPFFS)
            marker.unlink()
        with contextlib.suppress(OSError):
            ROOT.rmdir()
