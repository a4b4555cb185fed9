"""The lab as an object: what the command, the demo, the tests and the benchmarks use."""

import os
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL
from typing import Self

from deltaplane import policywire, wire
from deltaplane.cli import enforcement
from deltaplane.cli.client import Client, Targets
from deltaplane.errors import Invalid, NotFound, Refused, Unavailable
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.tiers import Policy
from deltaplane.v1 import registry_pb2
from lab import (
    lifecycle,
    manifests,
    nameserver,
    pods,
    preflight,
    probing,
    processes,
    supervision,
    topology,
)
from lab.apply import Applier, PodChanges, locked
from lab.expectation import World
from lab.layout import Layout
from lab.lifecycle import Progress, quiet
from lab.manifests import Manifests
from lab.pods import Pod
from lab.probe import DEADLINE_SECONDS, Call, call, probe
from lab.probing import ProbeResult
from lab.programs import numbered
from lab.records import namespace_record
from lab.sandboxes import LocalSandboxes, Sandboxes
from lab.services import Services
from lab.supervision import ProcessState, SupervisorState
from lab.topology import Node, Topology
from lab.workloads import plan_apply, plan_delete

DEFAULT_NAME = "lab"
TLS_VARIABLE = "DELTAPLANE_TLS"
"""1: labs are made with certificates unless they say otherwise; for tests."""
POLL_SECONDS = 0.02
RESTART_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabConfig:
    """What to start.

    Attributes:
        name: 1 to 15 of a-z and 0-9, a letter first.
        nodes: 1..200.
        routing: "native" or "vxlan".
        mtu: of the uplinks, bytes.
        trace_ratio: part of the ADDs that is traced, 0..1.
        zones: how many zones the nodes are spread over; 0: nodes have none.
        replicas: of each service; with two or more of them, etcd has three members.
        external_mode: "snat" or "dsr".
        tls: processes show each other certificates of the lab's own CA, else they work in plain
            text.
    """

    name: str = DEFAULT_NAME
    nodes: int = 3
    routing: str = "native"
    mtu: int = topology.DEFAULT_MTU
    trace_ratio: float = 1.0
    zones: int = 0
    replicas: int = 1
    external_mode: str = "snat"
    tls: bool = field(default_factory=lambda: os.environ.get(TLS_VARIABLE, "") == "1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What an `apply` or `delete` did.

    Attributes:
        pods: what happened to pods.
        namespaces: names written or removed.
        policies: references of those written or removed.
        services: "namespace/name" of those written or removed.
        slices: "namespace/name" of those of the manifests; those that the lab makes are left out.
        revision: store revision at which all of it is in effect; 0 when nothing was written.
        started: time.monotonic() just before policies were written, to count receipts from.
    """

    pods: PodChanges
    namespaces: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    revision: int = 0
    started: float = field(default_factory=time.monotonic)


def targets(layout: Layout, replica: int = 1) -> Targets:
    """Where one replica, from 1, of each service of a lab is."""

    def target(service: str) -> str:
        return f"unix:{layout.service_socket(numbered(service, replica))}"

    return Targets(
        registry=target("endpoints"),
        ipam=target("ipam"),
        slicer=target("slicer"),
        hint=f"See `deltaplane lab status --name {layout.lab}` and `deltaplane lab logs`.",
        tls_dir=layout.certificate("admin") if layout.authority.exists() else None,
    )


class Lab:
    """A running lab. As a context manager it ends with the block."""

    def __init__(
        self,
        layout: Layout,
        network: Topology,
        replica: int = 1,
        sandboxes: Sandboxes | None = None,
    ) -> None:
        """Uses a lab.

        Args:
            layout: its files.
            network: its nodes.
            replica: which one of each service to talk to, from 1.
            sandboxes: of its pods; None: on this machine.
        """
        self.layout = layout
        self.topology = network
        self.client = Client(targets(layout, replica))
        self._sandboxes = sandboxes or LocalSandboxes(layout)

    @classmethod
    def up(cls, config: LabConfig | None = None, progress: Progress = quiet) -> "Lab":
        """Starts a lab and waits until every process serves.

        Raises:
            Refused: the machine lacks something; nothing has been touched.
            Conflict: the name is in use.
            Internal: a process did not come up; the lab is gone again.
        """
        config = config or LabConfig()
        # The plan checks name and number before the preflight, which takes longer.
        network = topology.plan(
            config.name,
            config.nodes,
            routing=config.routing,
            mtu=config.mtu,
            trace_ratio=config.trace_ratio,
            zones=config.zones,
            replicas=config.replicas,
            external_mode=config.external_mode,
            tls=config.tls,
        )
        preflight.require()
        for warning in preflight.warnings():
            progress(warning)
        layout = lifecycle.up(network, progress)
        return cls(layout, lifecycle.topology_of(layout))

    @classmethod
    def attach(cls, name: str = DEFAULT_NAME) -> "Lab":
        """Uses a lab that runs.

        Raises:
            NotFound: there is none of that name.
            Refused: its supervisor is dead.
        """
        layout = Layout(lab=topology.check_name(name))
        network = lifecycle.topology_of(layout)
        if not lifecycle.is_running(layout):
            raise Refused(
                f"lab {name!r} is left over, its supervisor is dead; clean it up: "
                f"deltaplane lab down --name {name}"
            )
        return cls(layout, network)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def down(self, progress: Progress = quiet) -> None:
        """Ends the lab without a trace."""
        self.client.close()
        lifecycle.down(self.layout.lab, progress)

    # --- pods and policies ---------------------------------------------------------------------

    @property
    def pods(self) -> tuple[Pod, ...]:
        """All pods, ordered by namespace and name."""
        return pods.load(self.layout.pods)

    def pod(self, reference: str) -> Pod:
        """The pod "namespace/name", or "name" where only one namespace has it.

        Raises:
            NotFound: there is none.
            Invalid: several have the name.
        """
        found = [pod for pod in self.pods if reference in (pod.reference, pod.name)]
        if not found:
            known = ", ".join(pod.reference for pod in self.pods) or "none"
            raise NotFound(f"there is no pod {reference!r}; there are: {known}")
        if len(found) > 1:
            candidates = ", ".join(pod.reference for pod in found)
            raise Invalid("", f"several pods are named {reference!r}: {candidates}")
        return found[0]

    def pod_namespace(self, pod: Pod) -> str:
        """Name of a pod's network namespace."""
        return topology.pod_namespace(self.layout.lab, pod.uid)

    def apply(self, wanted: Manifests | Iterable[Path], progress: Progress = quiet) -> Applied:
        """Makes the lab agree with manifests or files of them; what they do not name stays.

        Raises:
            Invalid: a file is wrong or asks for what cannot be; nothing is applied.
            DeltaplaneError: a service or the CNI plugin refused or is away; applying again goes on.
        """
        known = wanted if isinstance(wanted, Manifests) else manifests.read(wanted)
        if known.services and not self._has_name_server():
            known = nameserver.added(known, self._namespaces())
        with locked(self.layout):
            services = self._services()
            applier = self._applier(services)
            nodes = [node.name for node in self.topology.nodes]
            change = plan_apply(known.workloads, applier.pods, nodes, lambda: str(uuid.uuid4()))
            self._check_namespaces(known)
            revision = self._apply_namespaces(known)
            revision = max(revision, services.apply(known.services, known.slices))
            done = applier.carry_out(change, progress)
            revision = max(revision, services.agree(applier.pods))
        started = time.monotonic()
        revision = max(
            revision, done.revision, enforcement.apply_policies(self.client, known.all_policies)
        )
        return Applied(
            pods=done,
            namespaces=tuple(namespace.name for namespace in known.namespaces),
            policies=tuple(map(enforcement.reference, known.all_policies)),
            services=tuple(item.service.reference for item in known.services),
            slices=tuple(f"{item.namespace}/{item.name}" for item in known.slices),
            revision=revision,
            started=started,
        )

    def _applier(self, services: Services) -> Applier:
        return Applier(self.layout, self.client, self._sandboxes, services.drain)

    def _services(self) -> Services:
        return Services(self.layout, self.topology, self.client)

    def _has_name_server(self) -> bool:
        owner = (nameserver.NAMESPACE, nameserver.NAME)
        return any((pod.namespace, pod.owner) == owner for pod in self.pods)

    def _check_namespaces(self, known: Manifests) -> None:
        """Pods live in namespaces that exist; "default" always does, as in Kubernetes."""
        there = self._namespaces() | {"default"}
        there |= {namespace.name for namespace in known.namespaces}
        named = [(item.kind, item.namespace, item.name) for item in known.workloads]
        named += [("Service", item.namespace, item.name) for item in known.services]
        named += [("EndpointSlice", item.namespace, item.name) for item in known.slices]
        for kind, namespace, name in named:
            if namespace not in there:
                raise Invalid(
                    "metadata.namespace",
                    f"{kind} {name}: there is no namespace {namespace!r}; add it to the files",
                )

    def _namespaces(self) -> set[str]:
        """Names of those that the registry has."""
        answer = self.client.registry.ListNamespaces(registry_pb2.ListNamespacesRequest())
        return {namespace.name for namespace in answer.namespaces}

    def _apply_namespaces(self, known: Manifests) -> int:
        if not known.namespaces:
            return 0
        request = registry_pb2.ApplyNamespacesRequest(
            namespaces=[namespace_record(namespace) for namespace in known.namespaces]
        )
        return self.client.registry.ApplyNamespaces(request).revision

    def delete(self, unwanted: Manifests | Iterable[Path], progress: Progress = quiet) -> Applied:
        """Removes what manifests or files of them name; what is not there is fine."""
        known = unwanted if isinstance(unwanted, Manifests) else manifests.read(unwanted)
        names = tuple(namespace.name for namespace in known.namespaces)
        revision = enforcement.delete_policies(self.client, known.all_policies)
        with locked(self.layout):
            services = self._services()
            gone = [(item.namespace, item.name) for item in known.services]
            slices = [(item.namespace, item.name) for item in known.slices]
            revision = max(revision, services.delete(gone, slices, names))
            applier = self._applier(services)
            change = plan_delete(known.workloads, names, applier.pods)
            done = applier.carry_out(change, progress)
            revision = max(revision, services.agree(applier.pods))
        revision = max(revision, done.revision)
        if names:
            request = registry_pb2.DeleteNamespacesRequest(names=names)
            revision = max(revision, self.client.registry.DeleteNamespaces(request).revision)
        return Applied(
            pods=done,
            namespaces=names,
            policies=tuple(map(enforcement.reference, known.all_policies)),
            services=tuple(item.service.reference for item in known.services),
            slices=tuple(f"{item.namespace}/{item.name}" for item in known.slices),
            revision=revision,
        )

    def terminate(self, unwanted: Iterable[Pod]) -> None:
        """Begins to end pods: services send nobody new to them. `delete` or `apply` end them."""
        with locked(self.layout):
            self._applier(self._services()).terminate(unwanted)

    def agree(self) -> int:
        """Lets slices and names follow services that somebody else has changed; the revision."""
        with locked(self.layout):
            return self._services().agree(self.pods)

    def wait_enforced(self, applied: Applied, seconds: float = 30.0) -> enforcement.Receipt:
        """Waits until what was applied is in force on every node.

        Raises:
            Unavailable: not in time; the message names the nodes that are missing.
        """
        return enforcement.await_enforced(
            self.client,
            enforcement.Subject(revision=applied.revision),
            started=applied.started,
            seconds=seconds,
        )

    # --- looking -------------------------------------------------------------------------------

    def probe(self, *, deadline: float = DEADLINE_SECONDS) -> ProbeResult:
        """Asks every pod whether it reaches every other's ports, until two rounds agree."""
        return probe(self.layout, self.pods, deadline=deadline)

    def call(self, source: Pod | Node, what: Call) -> list[str]:
        """Calls from a pod or a node; who answered each call, or "timeout" or "refused"."""
        return call(self.layout, source, what)

    def world(self) -> World:
        """What the registry holds, as the reference evaluation of policies needs it."""
        namespaces = self.client.registry.ListNamespaces(registry_pb2.ListNamespacesRequest())
        return World(
            pods={pod.reference: pod for pod in self.pods},
            namespaces={item.name: dict(item.labels) for item in namespaces.namespaces},
            policies=self.policies(),
            others=self.others(),
        )

    def policies(self) -> tuple[NetworkPolicy, ...]:
        """All NetworkPolicies of the registry."""
        answer = self.client.registry.ListPolicies(registry_pb2.ListPoliciesRequest())
        return tuple(wire.network_policy_from_proto(policy) for policy in answer.policies)

    def others(self) -> tuple[Policy, ...]:
        """All policies of other kinds of the registry."""
        answer = self.client.registry.ListPolicies(registry_pb2.ListPoliciesRequest())
        return tuple(policywire.policy_from_proto(policy) for policy in answer.others)

    def contradictions(self, result: ProbeResult) -> tuple[str, ...]:
        """Rows that differ from what the policies say; empty when all is well."""
        world = self.world()
        asked = probing.questions(self.pods)
        return tuple(
            f"{row.source} -> {row.destination} {row.protocol}/{row.port} {row.family}:"
            f" {'allowed' if row.allowed else 'denied'}, should be the opposite"
            for question, row in zip(asked, result.rows, strict=True)
            if world.allows(question) != row.allowed
        )

    # --- processes -----------------------------------------------------------------------------

    def status(self) -> SupervisorState:
        """What the supervisor says.

        Raises:
            NotFound: it has said nothing yet.
        """
        state = supervision.read(self.layout)
        if state is None:
            raise NotFound(f"the supervisor of lab {self.layout.lab} has written no state yet")
        return state

    def kill(self, name: str) -> ProcessState:
        """Kills a process with SIGKILL; returns what it was. The supervisor starts it again.

        Raises:
            NotFound: the lab has no such process, or it is not running.
        """
        known = self.status().processes
        before = known.get(name)
        if before is None or before.process is None:
            raise NotFound(f"no process {name!r} runs; there are {', '.join(known)}")
        processes.send(before.process, SIGKILL)
        return before

    def await_restart(
        self,
        name: str,
        before: ProcessState,
        seconds: float = RESTART_SECONDS,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Waits until a killed process has been started again and serves.

        Args:
            name: of the process.
            before: what `kill` has returned.
            seconds: to wait at most.
            meanwhile: is called again and again.

        Raises:
            Unavailable: not in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            now = self.status().processes[name]
            if now.ready and now.restarts > before.restarts:
                return
            if time.monotonic() > deadline:
                tail = lifecycle.log_tail(self.layout, name)
                raise Unavailable(f"{name} is not back after {seconds:.0f} s\n{tail}")
            meanwhile()
            time.sleep(POLL_SECONDS)
