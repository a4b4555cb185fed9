"""Loads: what is written when. Each goes on from a world: equal worlds, equal loads."""

import runpy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.scale import records
from bench.scale.applied import change_key
from bench.scale.world import APP, Deployment, Pod, Shape, World
from bench.scale.writer import Step
from deltaplane.model.addresses import Prefix
from deltaplane.model.policy import IPBlock, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from deltaplane.model.ports import Protocol
from deltaplane.model.selector import LabelSelector
from deltaplane.store import keys
from deltaplane.store.port import Delete, Put
from deltaplane.wire import network_policy_to_proto


def created(world: World, pod: Pod, at: float, *, alone: bool = False) -> Step:
    """A step that writes an endpoint."""
    return Step(at, records.create(world, pod), change_key(pod.key, gone=False), alone)


def deleted(world: World, pod: Pod, at: float, *, alone: bool = False) -> Step:
    """A step that deletes an endpoint."""
    return Step(at, records.delete(world, pod), change_key(pod.key, gone=True), alone)


def churn(world: World, *, rate: float, seconds: float) -> Iterator[Step]:
    """Replaces pods all over the cluster. rate: changes a second; a replaced pod is two."""
    for number in range(int(rate * seconds / 2)):
        at = 2 * number / rate
        deployment = world.some_deployment()
        yield created(world, world.create(deployment), at)
        yield deleted(world, world.delete(world.oldest(deployment)), at + 1 / rate)


def rolling(world: World, *, rate: float, pods: int) -> Iterator[Step]:
    """Replaces pods of the large deployment, the new one first, as a rolling update does."""
    for number in range(min(pods, world.size(0))):
        yield created(world, world.create(0), 2 * number / rate)
        yield deleted(world, world.delete(world.oldest(0)), (2 * number + 1) / rate)


def burst(world: World, *, pods: int) -> Iterator[Step]:
    """Registers endpoints all at once: the deployments grow."""
    for _ in range(pods):
        yield created(world, world.create(world.some_deployment()), 0.0)


def writes(world: World, *, changes: int, count: int, every: float) -> Iterator[Step]:
    """Writes of so many changes each, one transaction after another where one has no room.

    Pods come and go in turn. At the end as many are there as before, or one more.

    Args:
        world: where.
        changes: of each write.
        count: writes.
        every: seconds between two.
    """
    for number in range(count * changes):
        at = number // changes * every
        deployment = world.some_deployment()
        if number % 2:
            yield deleted(world, world.delete(world.oldest(deployment)), at)
        else:
            yield created(world, world.create(deployment), at)


# --- ClusterLoader2 ------------------------------------------------------------------------------


class Replay:
    """ClusterLoader2's load test, from the trace that a generator of its shape makes."""

    def __init__(self, script: Path, *, nodes: int, pods_per_node: int, seed: int) -> None:
        """script: `cl2_load.py`."""
        made: Mapping[str, Any] = runpy.run_path(str(script))
        plan = made["plan"](nodes, pods_per_node)
        self.events: Sequence[Mapping[str, Any]] = made["events"](plan, seed)
        owners = Counter(
            (event["ns"], event["labels"]["name"])
            for event in self.events
            if event["kind"] == "pod" and event["op"] == "create"
        )
        self._number = {owner: number for number, owner in enumerate(sorted(owners))}
        self.world = World(
            Shape(nodes, pods_per_node),
            seed,
            deployments=tuple(
                Deployment(number, namespace, owners[namespace, name], label=name)
                for (namespace, name), number in self._number.items()
            ),
        )

    def steps(self, *, seconds: float) -> Iterator[Step]:
        """All of the trace, speeded up to take so long."""
        stretch = seconds / max(1.0, self.events[-1]["t"])
        pods: dict[tuple[str, str], Pod] = {}
        for event in self.events:
            at, name = event["t"] * stretch, (event["ns"], event["name"])
            match event["kind"], event["op"]:
                case "pod", "create":
                    owner = (event["ns"], event["labels"]["name"])
                    pods[name] = self.world.create(self._number[owner], event["node"] + 1)
                    yield created(self.world, pods[name], at)
                case "pod", "delete":
                    yield deleted(self.world, self.world.delete(pods.pop(name)), at)
                case "networkpolicy", "create":
                    record = network_policy_to_proto(_policy(*name))
                    key = keys.policy(*name)
                    yield Step(at, [Put(key, record.SerializeToString(deterministic=True))], 0)
                case "networkpolicy", "delete":
                    yield Step(at, [Delete(keys.policy(*name))], 0)
                case _:
                    pass  # services are not on the stream yet


def _policy(namespace: str, name: str) -> NetworkPolicy:
    """What ClusterLoader2 writes: pods of a deployment may reach 10.0.0.0/24 on TCP 8080."""
    block = IPBlock(Prefix(bytes((10, 0, 0, 0)), 24))
    port = PolicyPort(protocol=Protocol.TCP, port=8080)
    return NetworkPolicy(
        namespace=namespace,
        name=name,
        pod_selector=LabelSelector.of({APP: name}),
        applies_to_ingress=False,
        applies_to_egress=True,
        egress=(PolicyRule(peers=(PolicyPeer(ip_block=block),), ports=(port,)),),
    )
