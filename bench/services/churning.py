"""Pods that come and go in a lab, and the services that they are behind.

The pods are on nodes that exist for the registry only: their pod records, endpoints, blocks and
slices are written by the calls that agents and a cluster would make, and the real nodes are told.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from bench.services.background import background
from bench.services.standing import FAMILIES, NAMESPACE, Standing
from deltaplane.errors import Internal
from deltaplane.model.addresses import parse_address
from deltaplane.model.service import SliceEndpoint
from deltaplane.v1 import common_pb2, ipam_pb2, registry_pb2
from lab import Lab
from lab.programs import POOLS

NODES = 4
BLOCKS = 8
"""Of each family, on each of these nodes: addresses for twice as many pods as there are services.
"""

BLOCK_PODS = 64
TICK_SECONDS = 0.1
POOL_NAMES = tuple(name for name, _, _ in POOLS)


@dataclass(frozen=True, slots=True)
class _Node:
    """A node of nobody's, and the addresses that are free on it."""

    name: str
    uid: str
    free: deque[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class _Pod:
    """A pod that has been registered."""

    node: _Node
    number: int
    name: str
    addresses: tuple[bytes, bytes]

    @property
    def owner(self) -> registry_pb2.OwnerToken:
        return registry_pb2.OwnerToken(
            network="deltaplane",
            container_id=f"{self.number:064x}",
            interface="eth0",
            attempt=f"{self.number:016x}",
        )

    def endpoint(self) -> registry_pb2.Endpoint:
        return registry_pb2.Endpoint(
            node=self.node.name,
            id=self.number,
            namespace=NAMESPACE,
            pod=self.name,
            pod_uid=self.name,
            owner=self.owner,
            addresses=common_pb2.AddressPair(ipv4=self.addresses[0], ipv6=self.addresses[1]),
        )


class Churn:
    """Replaces a pod of one service after the other.

    Attributes:
        replaced: pods so far; for each a service was updated.
        late: ticks that could not begin in time.
    """

    def __init__(self, lab: Lab, standing: Standing, *, watched: int) -> None:
        """Registers the nodes and claims their blocks.

        Args:
            lab: where.
            standing: its services.
            watched: number of the one whose own backends go and come back in turn, instead of
                being replaced by pods that do not answer.
        """
        self._registry, self._ipam = lab.client.registry, lab.client.ipam
        self._standing = standing
        self._watched = watched
        self._numbers = count(1)
        self._turn = 0
        self._there: dict[int, _Pod] = {}
        self._nodes = deque(map(self._join, range(1, NODES + 1)))
        self.replaced = 0
        self.late = 0

    def _join(self, number: int) -> _Node:
        name = f"elsewhere-{number}"
        uid = f"uid-{name}"
        uplink = common_pb2.AddressPair(
            ipv4=parse_address(f"198.19.200.{number}"), ipv6=parse_address(f"fd99::200:{number}")
        )
        node = registry_pb2.Node(name=name, uid=uid, addresses=uplink)
        self._registry.RegisterNode(registry_pb2.RegisterNodeRequest(node=node))
        claims = [
            ipam_pb2.BlockClaim(pool=pool, request_id=f"{pool}-{block}")
            for block in range(BLOCKS)
            for pool in POOL_NAMES
        ]
        request = ipam_pb2.ClaimBlocksRequest(node=name, node_uid=uid, claims=claims)
        results = self._ipam.ClaimBlocks(request).results
        for result in results:
            if result.HasField("error"):
                raise Internal(f"{name} gets no block: {result.error.message}")
        prefixes = [result.block.prefix.address for result in results]
        free = deque(
            (_nth(four, place), _nth(six, place))
            for four, six in zip(prefixes[::2], prefixes[1::2], strict=True)
            for place in range(BLOCK_PODS)
        )
        return _Node(name, uid, free)

    def replace(self, pods: int) -> None:
        """Replaces so many pods, each of another service, all on one node.

        Raises:
            DeltaplaneError: a service refuses or is away.
        """
        self._nodes.append(node := self._nodes.popleft())
        gone: list[_Pod] = []
        new: list[_Pod] = []
        for _ in range(pods):
            number = self._standing.numbers[self._turn % len(self._standing.numbers)]
            self._turn += 1
            if number == self._watched:
                self._toggle(number)
                continue
            pod = self._make(node, number)
            new.append(pod)
            if number in self._there:
                gone.append(self._there[number])
            self._there[number] = pod
            self._standing.put(number, 0, _backends(pod))
        self._register(node, new)
        self._standing.flush()
        self._release(gone)
        self.replaced += pods

    def _toggle(self, number: int) -> None:
        """The backend that was away comes back, and the next one goes."""
        endpoints = self._standing.backends(number, FAMILIES[0])
        away = next((place for place, one in enumerate(endpoints) if not one.ready), -1)
        if away >= 0:
            self._standing.make_ready(number, away, ready=True)
        self._standing.make_ready(number, (away + 1) % len(endpoints), ready=False)

    def _make(self, node: _Node, number: int) -> _Pod:
        own = next(self._numbers)
        return _Pod(node, own, f"service-{number}-{own}", node.free.popleft())

    def _register(self, node: _Node, pods: list[_Pod]) -> None:
        records = [
            registry_pb2.Pod(
                namespace=NAMESPACE,
                name=pod.name,
                uid=pod.name,
                node=node.name,
                labels={"app": pod.name.rpartition("-")[0]},
            )
            for pod in pods
        ]
        self._registry.ApplyPods(registry_pb2.ApplyPodsRequest(pods=records))
        request = registry_pb2.RegisterEndpointsRequest(
            endpoints=[pod.endpoint() for pod in pods], node_uid=node.uid
        )
        for result in self._registry.RegisterEndpoints(request).results:
            if not result.HasField("endpoint"):
                raise Internal(f"an endpoint is not registered: {result.error}")

    def _release(self, pods: list[_Pod]) -> None:
        for node in self._nodes:
            mine = [pod for pod in pods if pod.node is node]
            if not mine:
                continue
            releases = [
                registry_pb2.EndpointRelease(
                    namespace=NAMESPACE,
                    pod=pod.name,
                    node=node.name,
                    id=pod.number,
                    owner=pod.owner,
                )
                for pod in mine
            ]
            self._registry.ReleaseEndpoints(
                registry_pb2.ReleaseEndpointsRequest(releases=releases, node_uid=node.uid)
            )
            node.free.extend(pod.addresses for pod in mine)
        references = [registry_pb2.PodRef(namespace=NAMESPACE, name=pod.name) for pod in pods]
        if references:
            self._registry.DeletePods(registry_pb2.DeletePodsRequest(pods=references))

    @contextmanager
    def running(self, per_second: int) -> Iterator[None]:
        """Replaces so many pods each second, a tenth of them at a time, until the block ends.

        Raises:
            DeltaplaneError: a service has refused or was away meanwhile.
        """
        per_tick = max(1, round(per_second * TICK_SECONDS))

        def run(over: threading.Event) -> None:
            due = time.monotonic()
            while not over.wait(max(0.0, due - time.monotonic())):
                self.replace(per_tick)
                due += TICK_SECONDS
                if time.monotonic() > due:
                    self.late += 1
                    due = time.monotonic()

        with background(run, "churn"):
            yield


def _backends(pod: _Pod) -> dict[int, SliceEndpoint]:
    return {
        4 if len(address) == 4 else 6: SliceEndpoint(
            address=address, node=pod.node.name, target=f"{NAMESPACE}/{pod.name}"
        )
        for address in pod.addresses
    }


def _nth(first: bytes, place: int) -> bytes:
    number = int.from_bytes(first) + place
    return number.to_bytes(len(first))
