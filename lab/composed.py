"""A lab whose nodes are containers (deploy/compose.yaml): its files, and what its containers run.

    python -m lab.composed node NAME    a node: the agent and the pod host
    python -m lab.composed example      applies manifests, asks who reaches whom, and stays

They share /run/deltaplane, where all sockets are. A node's pods are network namespaces in its
container, and go with it: what a container that was made anew has lost is added again by the next
`example`.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from deltaplane.cli.client import Client, Targets
from lab import binaries, cgroups, matrix, netns, pods, topology
from lab.apply import locked
from lab.cluster import Lab
from lab.layout import Layout
from lab.pods import Phase, replace_file
from lab.remote import RemoteSandboxes
from lab.topology import Topology
from nodeagent.dataplane import bpffs

NAME = "compose"
NODES = 3
CGROUPS = Path("/run/cgroup2")
DONE = Path("/tmp/reached")  # noqa: S108 - in a container of our own
GRACE_SECONDS = 8.0
ENFORCED_SECONDS = 60.0


def network() -> Topology:
    """Names and numbers of the nodes; the links are Docker's."""
    return topology.plan(NAME, NODES)


# --- a node ------------------------------------------------------------------------------------


def prepare(layout: Layout, node: str) -> str:
    """Makes what a node's processes need in its container; returns its control group, "" for none.

    Raises:
        OSError: the container is not privileged.
    """
    layout.node(node).state.mkdir(parents=True, exist_ok=True)
    if not layout.record.exists():
        replace_file(layout.record, msgspec.json.encode({"name": NAME, "nodes": NODES}))
    # A container that starts again has the files that namespaces were bound to, not the namespaces.
    for name in netns.names():
        netns.delete(name)
    with locked(layout):
        known = pods.load(layout.pods)
        if (kept := without_lost(known, node)) != known:
            pods.save(layout.pods, kept)
    bpffs.ensure()
    if cgroups.root() is None:
        CGROUPS.mkdir(exist_ok=True)
        netns.mount("cgroup2", CGROUPS, "cgroup2")
    folder = cgroups.make(NAME, [node])
    return f"{folder}/{node}" if folder else ""


def without_lost(known: Sequence[pods.Pod], node: str) -> tuple[pods.Pod, ...]:
    """The pods, those of a node whose container is new as not added. Pure."""
    return tuple(
        replace(pod, phase=Phase.ADDING, addresses=()) if pod.node == node else pod for pod in known
    )


def commands(layout: Layout, node: str, group: str) -> tuple[tuple[str, ...], ...]:
    """What a node runs. The agent's other options are variables of the container. Pure."""
    files = layout.node(node)
    podhost = (sys.executable, "-m", "lab.podhost", "--lab", layout.lab, "--node", node)
    agent = (
        *(sys.executable, "-m", "nodeagent.launch", "agent"),
        *("--node-name", node),
        *("--state-dir", str(files.state)),
        *("--socket", str(files.cni_socket)),
        *("--listen", f"unix:{files.agent_socket}"),
        *("--pin-dir", str(files.pins)),
        *("--cgroup", group or "none"),
    )
    return ((*podhost, "--cgroup", group) if group else podhost, agent)


async def run_node(layout: Layout, node: str) -> int:
    """Runs a node until it is told to end, or one of its processes ends; the exit code."""
    group = prepare(layout, node)
    started = [
        await asyncio.create_subprocess_exec(*command) for command in commands(layout, node, group)
    ]
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    waits = {asyncio.ensure_future(process.wait()) for process in started}
    end = asyncio.ensure_future(stopped.wait())
    await asyncio.wait({end, *waits}, return_when=asyncio.FIRST_COMPLETED)
    for process in started:
        if process.returncode is None:
            process.terminate()
    await asyncio.wait(waits, timeout=GRACE_SECONDS)
    for process in started:
        if process.returncode is None:
            process.kill()
    await asyncio.wait(waits)
    end.cancel()
    if group:
        cgroups.remove(str(Path(group).parent))
    return 0 if stopped.is_set() else 1


# --- the example -------------------------------------------------------------------------------


def targets() -> Targets:
    """The services, by the variables that the agents have, too."""
    tls_dir = os.environ.get("DELTAPLANE_TLS_DIR")
    return Targets(
        registry=os.environ["DELTAPLANE_REGISTRY"],
        ipam=os.environ["DELTAPLANE_IPAM"],
        # A command asks one; agents go to the next one by themselves.
        slicer=os.environ["DELTAPLANE_SLICER"].partition(",")[0],
        hint="See `docker compose ps` and `docker compose logs`.",
        tls_dir=Path(tls_dir) if tls_dir else None,
    )


def show(files: Sequence[Path]) -> bool:
    """Applies manifests, prints who reaches whom; whether that is what the policies say."""
    layout = Layout(lab=NAME)
    lab = Lab(layout, network(), sandboxes=RemoteSandboxes(layout))
    lab.client = Client(targets())
    try:
        applied = lab.apply(files, _tell)
        lab.wait_enforced(applied, ENFORCED_SECONDS)
        result = lab.probe()
        from deltaplane.cli import output  # noqa: PLC0415 - for people, at the end

        output.console().print(matrix.table(result.rows, lab.pods, "who reaches whom"))
        wrong = (*result.wrong, *lab.contradictions(result))
        _tell(
            f"{len(result.rows)} probes, {result.allowed} allowed, {len(wrong)} not as they should"
        )
        for line in wrong:
            _tell(line)
        return result.stable and not wrong
    finally:
        lab.client.close()


def run_example(files: Sequence[Path]) -> int:
    """Shows the example and then waits for the end; exit code 1 if it does not hold."""
    DONE.unlink(missing_ok=True)
    if not show(files or [binaries.shop()]):
        return 1
    DONE.touch()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        signal.pause()


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lab.composed")
    chosen = parser.add_subparsers(dest="what", required=True)
    chosen.add_parser("node").add_argument("name")
    chosen.add_parser("example").add_argument("files", type=Path, nargs="*")
    options = parser.parse_args(list(argv))
    if options.what == "node":
        return asyncio.run(run_node(Layout(lab=NAME), options.name))
    return run_example(options.files)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
