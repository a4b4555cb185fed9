"""Connections to a service, without a pause, while its backends are replaced one after the other.

As a Deployment rolls: a new pod is ready and added; an old one terminates, serves on until nobody
new is sent to it and a moment longer, and goes. Clients of every way that leads to a service:

    sockets   pods and a node whose sockets the programs hook
    packets   a pod whose packets are translated one by one
    outside   a host that is no node, on node ports

Each call opens a connection, sends a request and takes the answer to its end.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.services.calling import Call, Caller, Target, calling
from deltaplane import manifest
from deltaplane.cli import services
from deltaplane.model.addresses import format_address
from lab import Lab, manifests, probe
from lab.manifests import Manifests
from lab.topology import Node

NAMESPACE = "rolling"
PORT = 80
GRACE_SECONDS = 0.2
"""How long a pod serves on after nodes have stopped sending to it: connections end in it."""

SERVICE = """
apiVersion: v1
kind: Namespace
metadata: {name: rolling}
---
apiVersion: v1
kind: Service
metadata: {name: rolling, namespace: rolling}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {app: backend}
  ports: [{port: 80, targetPort: 8080}]
"""
BACKEND = """
---
apiVersion: v1
kind: Pod
metadata:
  name: %s
  namespace: rolling
  labels: {app: backend}
  annotations: {lab.deltaplane.dev/serves: http}
spec: {containers: [{name: c, ports: [{containerPort: 8080}]}]}
"""
CLIENT = """
---
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: rolling}
spec: {nodeName: %s, containers: [{name: c}]}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Clients of one place.

    Attributes:
        name: what is printed.
        namespace: network namespace.
        cgroup: of the node, so that sockets are hooked; empty: they are not.
        targets: one of each family.
    """

    name: str
    namespace: str
    cgroup: str
    targets: tuple[Target, ...]


class Failed(AssertionError):
    """A call failed, or somebody answered who should be gone."""


def _parsed(text: str) -> Manifests:
    return manifests.sort(manifest.parse(text, source="rolling"))


def _names(generation: int, size: int) -> list[str]:
    return [f"v{generation}-{number}" for number in range(1, size + 1)]


class Rolling:
    """The service of one lab and its backends."""

    def __init__(self, lab: Lab, size: int) -> None:
        """Its first generation of pods is not there yet: see `standing`."""
        self.lab = lab
        self.size = size
        self.generation = 1

    @contextmanager
    def standing(self, world: str) -> Iterator[tuple[Way, ...]]:
        """The service with its backends and clients until the end of the block.

        Args:
            world: network namespace of a host outside that reaches the nodes.
        """
        nodes = self.lab.topology.nodes
        clients = "".join(CLIENT % (f"client-{node.number}", node.name) for node in nodes[:2])
        backends = "".join(BACKEND % name for name in _names(self.generation, self.size))
        applied = self.lab.apply(_parsed(SERVICE + clients + backends))
        try:
            self.lab.wait_enforced(applied)
            yield self._ways(world)
        finally:
            self.lab.delete(_parsed(SERVICE))

    def _ways(self, world: str) -> tuple[Way, ...]:
        first, second, last = (self.lab.topology.nodes[i] for i in (0, 1, -1))
        cluster = tuple((address, PORT) for address in self.addresses)
        node_port = services.find(self.lab.client, f"{NAMESPACE}/rolling").ports[0].node_port
        outside = ((first.uplink_ipv4, node_port), (last.uplink_ipv6, node_port))
        pods = [self.lab.pod(f"{NAMESPACE}/client-{node.number}") for node in (first, second)]
        namespaces = [self.lab.pod_namespace(pod) for pod in pods]
        return (
            Way(
                name="sockets of a pod",
                namespace=namespaces[0],
                cgroup=self._group(first),
                targets=cluster,
            ),
            Way(
                name="sockets of a node",
                namespace=last.namespace,
                cgroup=self._group(last),
                targets=cluster,
            ),
            Way(name="packets of a pod", namespace=namespaces[1], cgroup="", targets=cluster),
            Way(name="outside, node ports", namespace=world, cgroup="", targets=outside),
        )

    def _group(self, node: Node) -> str:
        return self.lab.topology.group(node.name)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Cluster addresses of the service, one of each family."""
        found = services.find(self.lab.client, f"{NAMESPACE}/rolling").cluster_ips
        return tuple(map(format_address, found))

    def replace_all(self, check: Callable[[], None]) -> None:
        """Replaces every backend by one of the next generation; calls `check` after each."""
        old = _names(self.generation, self.size)
        self.generation += 1
        for before, after in zip(old, _names(self.generation, self.size), strict=True):
            self.lab.apply(_parsed(BACKEND % after))
            # As with Kubernetes: a pod is ready, and nobody waits until every node has heard of it.
            self.lab.terminate([self.lab.pod(f"{NAMESPACE}/{before}")])
            time.sleep(GRACE_SECONDS)
            self.lab.delete(_parsed(BACKEND % before))
            check()

    def check_answers(self) -> None:
        """Raises Failed: somebody else than this generation answers."""
        client = self.lab.pod(f"{NAMESPACE}/client-1")
        wanted = {f"{NAMESPACE}/{name}" for name in _names(self.generation, self.size)}
        for address in self.addresses:
            what = probe.Call(address=address, port=PORT, times=2 * self.size, http=True)
            if others := set(self.lab.call(client, what)) - wanted:
                raise Failed(f"{sorted(others)} answer on {address}, there should be {wanted}")


@dataclass(frozen=True, slots=True)
class Rolled:
    """What came out: calls by way, and how many backends were replaced."""

    calls: dict[Way, list[Call]]
    replaced: int


def roll(
    rolling: Rolling,
    program: Path,
    world: str,
    *,
    count: int,
    interval_us: int,
    progress: Callable[[int, int], None] = lambda _calls, _replaced: None,
) -> Rolled:
    """Replaces all backends, once and then again, until there were so many calls.

    Args:
        rolling: see there.
        program: of `calling.build`.
        world: network namespace of a host outside.
        count: calls of all ways together, at least.
        interval_us: microseconds from one call of a way to the next.
        progress: told the calls and the replaced backends after each generation.

    Raises:
        Failed: a call failed.
    """
    replaced = 0
    with rolling.standing(world) as ways, ExitStack() as stack:
        callers: dict[Way, Caller] = {
            way: stack.enter_context(
                calling(
                    program, way.namespace, way.targets, interval_us=interval_us, cgroup=way.cgroup
                )
            )
            for way in ways
        }
        checked = dict.fromkeys(ways, 0)

        def check() -> None:
            for way, caller in callers.items():
                fresh = caller.calls(checked[way])
                checked[way] += len(fresh)
                _refuse_failures(way, fresh)

        while not replaced or sum(caller.count for caller in callers.values()) < count:
            rolling.replace_all(check)
            replaced += rolling.size
            rolling.check_answers()
            progress(sum(checked.values()), replaced)
        # A way on which nothing comes through for long has few calls and no failure.
        stack.close()
        check()
        return Rolled({way: caller.calls() for way, caller in callers.items()}, replaced)


def _refuse_failures(way: Way, calls: Sequence[Call]) -> None:
    failed = [call for call in calls if call.failed]
    if failed:
        counts = Counter((way.targets[call.target], call.failed) for call in failed)
        raise Failed(f"{way.name}: {dict(counts)}; the first one: {failed[0]}")
