"""Pods for the CNI plugin binary: their records and namespaces, and the calls that add them."""

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.spawning import Command
from deltaplane.v1 import registry_pb2
from lab import binaries, cni, netns, topology
from lab.cluster import Lab

NAMESPACE = "bench"


@dataclass(frozen=True, slots=True)
class BenchPod:
    """A pod that is ready to be added: its record and its namespace are there."""

    name: str
    netns: str
    attachment: cni.Attachment

    def command(self, command: str) -> Command:
        """The call of the plugin."""
        return Command(
            program=self.attachment.plugin,
            environment=self.attachment.environment(command),
            stdin=json.dumps(self.attachment.configuration()).encode(),
        )


@dataclass(slots=True)
class Samples:
    """Seconds per call, and how many failed."""

    seconds: list[float] = field(default_factory=list)
    failures: int = 0


class Adder:
    """Makes pods on a lab's nodes and takes them away again."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        request = registry_pb2.ApplyNamespacesRequest(
            namespaces=[registry_pb2.Namespace(name=NAMESPACE)]
        )
        lab.client.registry.ApplyNamespaces(request)

    @contextmanager
    def pods(self, node: str, count: int, *, distinct: bool) -> Iterator[list[BenchPod]]:
        """Pods of one identity, or of one each; they are gone afterwards."""
        made: list[BenchPod] = []
        try:
            # extend: those that were made go even if the next one cannot be.
            made.extend(self._prepare(node, number, distinct=distinct) for number in range(count))
            yield made
        finally:
            self._remove(made)

    def _remove(self, made: Sequence[BenchPod]) -> None:
        for pod in made:
            cni.delete(pod.attachment)
            netns.delete(pod.netns)
        if made:
            self._lab.client.registry.DeletePods(
                registry_pb2.DeletePodsRequest(
                    pods=[registry_pb2.PodRef(namespace=NAMESPACE, name=pod.name) for pod in made]
                )
            )

    def _prepare(self, node: str, number: int, *, distinct: bool) -> BenchPod:
        uid = secrets.token_hex(8)
        name = f"pod-{uid}"
        labels = {"app": uid if distinct else "bench", "number": str(number) if distinct else ""}
        record = registry_pb2.Pod(namespace=NAMESPACE, name=name, uid=uid, node=node, labels=labels)
        self._lab.client.registry.ApplyPods(registry_pb2.ApplyPodsRequest(pods=[record]))
        namespace = topology.pod_namespace(self._lab.layout.lab, uid)
        netns.create(namespace)
        return BenchPod(
            name,
            namespace,
            cni.Attachment(
                plugin=binaries.plugin(),
                agent_socket=self._lab.layout.node(node).cni_socket,
                netns=netns.path(namespace),
                namespace=NAMESPACE,
                pod=name,
                uid=uid,
            ),
        )
