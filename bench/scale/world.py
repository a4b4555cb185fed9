"""The cluster that is simulated: deployments, pods, and who may talk to whom. Pure and seeded.

The shape is the one that was published for CiliumEndpointSlice: of 20,000 pods one service has
4,000, the others 20 each. Every tenth deployment has a policy that lets the next one in.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from deltaplane.model.identity import FIRST_IDENTITY, Identity, LabelSet
from deltaplane.model.policy import NetworkPolicy, PolicyPeer, PolicyRule
from deltaplane.model.selector import LabelSelector

SMALL = 20
"""Pods of an ordinary deployment."""

LARGE_PART = 5
"""One pod in so many belongs to the large deployment."""

POLICY_EVERY = 10
NODES_PER_NAMESPACE = 100
"""As in ClusterLoader2's load test."""

APP = "app"


BLOCK_LENGTH = 24
"""Of a node's IPv4 block. An IPv6 block has as many addresses. With the default of 26 a load that
only adds pods would need a second block for each node."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How large."""

    nodes: int
    pods_per_node: int

    @property
    def pods(self) -> int:
        """Pods at the start."""
        return self.nodes * self.pods_per_node


@dataclass(frozen=True, slots=True)
class Deployment:
    """Pods with the same labels. Numbers count from 0.

    Attributes:
        number: of the deployment.
        namespace: name of its namespace.
        pods: how many it has at the start.
        allows: the deployment that its policy lets in; None: it has no policy.
        label: what its name is; empty: one made of the number.
    """

    number: int
    namespace: str
    pods: int
    allows: int | None = None
    label: str = ""

    @property
    def name(self) -> str:
        """DNS label."""
        return self.label or f"app-{self.number}"

    @property
    def identity(self) -> Identity:
        """What its pods are to a policy."""
        return Identity(
            FIRST_IDENTITY + self.number, LabelSet.of(self.namespace, {}, {APP: self.name})
        )


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod. node: 1 and up; id: number that the node gave it; slot: which address of the block."""

    deployment: int
    name: str
    node: int
    id: int
    slot: int

    @property
    def key(self) -> int:
        """Names its endpoint everywhere."""
        return endpoint_key(self.node, self.id)


def endpoint_key(node_index: int, number: int) -> int:
    """An endpoint as one number: node index in the upper 32 bits, its number in the lower."""
    return node_index << 32 | number


def deployments(shape: Shape) -> tuple[Deployment, ...]:
    """All of them; the first is the large one."""
    large = max(1, shape.pods // LARGE_PART)
    sizes = [large]
    left = shape.pods - large
    while left:
        sizes.append(min(SMALL, left))
        left -= sizes[-1]
    namespaces = max(1, shape.nodes // NODES_PER_NAMESPACE)
    return tuple(
        Deployment(
            number,
            f"bench-{number % namespaces}",
            size,
            (number + 1) % len(sizes) if number % POLICY_EVERY == 0 else None,
        )
        for number, size in enumerate(sizes)
    )


def policies(all_deployments: tuple[Deployment, ...]) -> Iterator[NetworkPolicy]:
    """One for every tenth deployment."""
    for one in all_deployments:
        if one.allows is not None:
            peer = all_deployments[one.allows].identity.label_set
            yield NetworkPolicy(
                namespace=one.namespace,
                name=one.name,
                pod_selector=LabelSelector.of({APP: one.name}),
                applies_to_ingress=True,
                applies_to_egress=False,
                ingress=(
                    PolicyRule(
                        peers=(
                            PolicyPeer(
                                pod_selector=LabelSelector.of(dict(peer.labels)),
                                namespace_selector=LabelSelector.of(dict(peer.namespace_labels)),
                            ),
                        )
                    ),
                ),
            )


@dataclass(slots=True)
class World:
    """The pods that are there, and the next ones. Two worlds of one shape and seed are equal."""

    shape: Shape
    seed: int = 0
    deployments: tuple[Deployment, ...] = ()
    pods: dict[int, Pod] = field(default_factory=dict)
    _members: dict[int, list[int]] = field(default_factory=dict)
    _ids: list[int] = field(default_factory=list)
    _free: list[list[int]] = field(default_factory=list)
    _names: int = 0
    _dice: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._dice.seed(self.seed)
        self.deployments = self.deployments or deployments(self.shape)
        # The first and the last address of a block are nobody's.
        slots = (1 << 32 - BLOCK_LENGTH) - 2
        self._ids = [0] * (self.shape.nodes + 1)
        self._free = [list(range(slots, 0, -1)) for _ in range(self.shape.nodes + 1)]
        self._members = {one.number: [] for one in self.deployments}

    def fill(self) -> list[Pod]:
        """Makes the pods of the start: the same number on every node, deployments spread."""
        places = [
            node for node in range(1, self.shape.nodes + 1) for _ in range(self.shape.pods_per_node)
        ]
        self._dice.shuffle(places)
        return [
            self.create(one.number, places.pop())
            for one in self.deployments
            for _ in range(one.pods)
        ]

    def create(self, deployment: int, node: int | None = None) -> Pod:
        """A new pod; without a node on the emptier one of two."""
        node = node or self._place()
        self._ids[node] += 1
        self._names += 1
        name = f"{self.deployments[deployment].name}-{self._names}"
        pod = Pod(deployment, name, node, self._ids[node], self._free[node].pop())
        self.pods[pod.key] = pod
        self._members[deployment].append(pod.key)
        return pod

    @property
    def room(self) -> int:
        """Pods that may still come."""
        return sum(map(len, self._free[1:]))

    def _place(self) -> int:
        one, other = (self._dice.randint(1, self.shape.nodes) for _ in range(2))
        return one if len(self._free[one]) >= len(self._free[other]) else other

    def delete(self, pod: Pod) -> Pod:
        """Takes a pod away; its address is the last that its node hands out again."""
        del self.pods[pod.key]
        self._members[pod.deployment].remove(pod.key)
        self._free[pod.node].insert(0, pod.slot)
        return pod

    def oldest(self, deployment: int) -> Pod:
        """The pod of a deployment that has been there longest."""
        return self.pods[self._members[deployment][0]]

    def size(self, deployment: int) -> int:
        """How many pods a deployment has now."""
        return len(self._members[deployment])

    def some_deployment(self) -> int:
        """One that has pods, the more the likelier."""
        place = self._dice.randrange(self.shape.pods)
        for one in self.deployments:
            place -= one.pods
            if place < 0 and self._members[one.number]:
                return one.number
        return 0

    def spanned(self, node: int) -> set[int]:
        """Endpoints that a node's policies name: it has to know these at least."""
        local = {pod.deployment for pod in self.pods.values() if pod.node == node}
        named = {
            one.allows for one in self.deployments if one.number in local and one.allows is not None
        }
        return {key for number in named for key in self._members[number]}
