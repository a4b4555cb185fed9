"""A lab without privileges: the same processes, no namespaces, and agents that carry no packet.

etcd, the services and the agents run as ordinary processes that meet on unix sockets in a temporary
folder; pods are added and removed over the agents' CNI sockets. Where a lab would send packets,
the tables that the agents have written are read and judged (`lab.judging`). It ends with the
process that has started it, however that ends.
"""

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from deltaplane.cli import enforcement
from deltaplane.errors import DeltaplaneError, Refused
from deltaplane.v1 import registry_pb2
from lab import cni, lifecycle, preflight, probing, processes, supervision, topology
from lab.cluster import Lab, LabConfig
from lab.judging import Outcome, Tables, judge
from lab.layout import Layout
from lab.lifecycle import Progress, quiet
from lab.pods import Pod
from lab.probe import DEADLINE_SECONDS, Call
from lab.probing import ProbeResult, Question
from lab.topology import Node, Topology
from nodeagent.dataplane import memory

OWN_NAMESPACE = Path("/proc/self/ns/net")
"""What runtimes would name a pod's: the agents take it for granted."""


NO_PLUGIN = Path("/opt/cni/bin/deltaplane-cni")
"""Where runtimes have it; nobody looks."""


class MemorySandboxes:
    """Implements `lab.sandboxes.Sandboxes` where no namespace is made."""

    have_servers = False

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def _attachment(self, pod: Pod) -> cni.Attachment:
        return cni.Attachment(
            plugin=NO_PLUGIN,
            agent_socket=self._layout.node(pod.node).cni_socket,
            netns=OWN_NAMESPACE,
            namespace=pod.namespace,
            pod=pod.name,
            uid=pod.uid,
            direct=True,
        )

    def create(self, pod: Pod) -> None:
        """There is nothing to make."""

    def add(self, pod: Pod) -> cni.Added:
        """Asks the agent to ADD. Raises CniError."""
        return cni.add(self._attachment(pod))

    def delete(self, pod: Pod) -> None:
        """Asks the agent to DEL. Raises CniError."""
        cni.delete(self._attachment(pod))

    def remove(self, pod: Pod) -> None:
        """There is nothing to remove."""


class MemoryLab(Lab):
    """A running lab in memory; see `Lab`. What needs packets is refused."""

    def __init__(
        self, layout: Layout, network: Topology, keeper: "subprocess.Popen[bytes]"
    ) -> None:
        """Uses a lab. keeper: its supervisor, which ends when our end of its input is closed."""
        super().__init__(layout, network, sandboxes=MemorySandboxes(layout))
        self._keeper = keeper

    @classmethod
    def up(cls, config: LabConfig | None = None, progress: Progress = quiet) -> "MemoryLab":
        """Starts a lab and waits until every process serves. Name and number of nodes count.

        Raises:
            Refused: there is no etcd; nothing has been touched.
            Internal: a process did not come up; the lab is gone again.
        """
        config = config or LabConfig()
        network = topology.plan(config.name, config.nodes, in_memory=True)
        preflight.require_in_memory()
        for warning in preflight.etcd_warnings():
            progress(warning)
        layout = Layout(lab=config.name, root=Path(tempfile.mkdtemp(prefix="deltaplane-")))
        try:
            layout.folder.mkdir()
            lifecycle.lay_out(layout, network)
            keeper = start_keeper(layout)
        except BaseException:
            shutil.rmtree(layout.root, ignore_errors=True)
            raise
        lab = cls(layout, network, keeper)
        try:
            progress("starting etcd, services and agents")
            lifecycle.await_ready(layout, lifecycle.READY_SECONDS, progress)
        except BaseException:
            lab.down()
            raise
        return lab

    def down(self, progress: Progress = quiet) -> None:
        """Ends the lab without a trace."""
        progress("ending the processes, removing files")
        self.client.close()
        end_keeper(self.layout, self._keeper)

    def written(self) -> tuple[bytes, ...]:
        """What the agents have written of their tables, node by node; no agent is asked."""
        folders = (self.layout.node(node.name).state for node in self.topology.nodes)
        return tuple((folder / memory.FILE).read_bytes() for folder in folders)

    def outcomes(self, written: Sequence[bytes] = ()) -> Mapping[Question, Outcome]:
        """How the first packet of every question would end.

        Args:
            written: what the nodes held; none: what they hold now.
        """
        names = (node.name for node in self.topology.nodes)
        held = map(memory.decode, written or self.written())
        tables = {name: Tables(node) for name, node in zip(names, held, strict=True)}
        addresses = _addresses(self.pods)
        numbered = {node.node_index: node for node in tables.values()}
        return {
            question: judge(
                numbered,
                tables[question.node],
                addresses[question.source, question.family],
                question,
            )
            for question in probing.questions(self.pods)
        }

    def probe(self, *, deadline: float = DEADLINE_SECONDS) -> ProbeResult:
        """Judges all questions once, as soon as all nodes have acknowledged what the store holds.

        Raises:
            Unavailable: not within the deadline, seconds.
        """
        started = time.monotonic()
        listed = self.client.registry.ListPolicies(registry_pb2.ListPoliciesRequest())
        everything = enforcement.Subject(revision=listed.revision)
        enforcement.await_enforced(self.client, everything, started=started, seconds=deadline)
        outcomes = self.outcomes()
        asked = probing.questions(self.pods)
        words = {
            question: "allowed" if outcome is Outcome.PASSED else "denied"
            for question, outcome in outcomes.items()
        }
        return ProbeResult(
            rows=probing.rows(asked, words),
            rounds=1,
            seconds=time.monotonic() - started,
            stable=True,
            wrong=tuple(_unexpected(outcomes)),
        )

    def call(self, source: Pod | Node, what: Call) -> list[str]:
        """Nobody can be called.

        Raises:
            Refused: always.
        """
        del source, what
        raise Refused("a lab in memory carries no packet")


def _addresses(pods: Sequence[Pod]) -> dict[tuple[str, str], str]:
    """(pod, family) → address."""
    return {
        (pod.reference, "ipv6" if ":" in address else "ipv4"): address
        for pod in pods
        for address in pod.addresses
    }


def _unexpected(outcomes: Mapping[Question, Outcome]) -> Sequence[str]:
    """Ends that no policy explains, once everything is acknowledged."""
    policies = (Outcome.PASSED, Outcome.EGRESS, Outcome.INGRESS)
    return [
        f"{question.source} -> {question.destination} {question.protocol}/{question.port}"
        f" ({question.family}): {outcome.value}"
        for question, outcome in sorted(outcomes.items())
        if outcome not in policies
    ]


def start_keeper(layout: Layout) -> "subprocess.Popen[bytes]":
    """Starts the supervisor of a lab in memory."""
    with layout.log("supervisor").open("ab") as log:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "lab.supervisor"),
                *("--lab", layout.lab, "--root", str(layout.root)),
            ],
            # Nothing is ever written: when we end, it ends.
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd="/",
            # Ctrl-C is for us alone: we end it.
            start_new_session=True,
        )


def end_keeper(layout: Layout, keeper: "subprocess.Popen[bytes]") -> None:
    """Ends the supervisor and with it all processes of the lab, and removes its files."""
    assert keeper.stdin is not None
    keeper.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        keeper.wait(lifecycle.STOP_SECONDS)
    # Whoever is left: the supervisor was killed, or hangs.
    with contextlib.suppress(DeltaplaneError, ValueError):
        state = supervision.read(layout)
        left = () if state is None else state.alive()
        for process in left:
            processes.send(process, signal.SIGKILL)
        lifecycle.await_gone(list(left), lifecycle.STOP_SECONDS)
    if keeper.poll() is None:
        keeper.kill()
    keeper.wait()
    shutil.rmtree(layout.root, ignore_errors=True)
