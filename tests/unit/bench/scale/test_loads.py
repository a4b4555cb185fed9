from collections import Counter
from pathlib import Path

import pytest

from bench.scale import loads, records
from bench.scale.world import SMALL, Shape, World, deployments
from bench.scale.writer import Step
from deltaplane.store import keys
from deltaplane.store.port import MAX_TRANSACTION_OPERATIONS, Delete, Put
from deltaplane.v1 import registry_pb2
from services.slicer.wire import record_from_store
from tests.unit.bench.scale.stored import Stored


def filled(nodes: int = 4, pods_per_node: int = 50) -> World:
    world = World(Shape(nodes, pods_per_node))
    world.fill()
    return world


def test_the_published_shape_is_the_default_one() -> None:
    sizes = [one.pods for one in deployments(Shape(1000, 20))]
    assert sizes == [4000] + 800 * [SMALL]


def test_every_node_begins_with_as_many_pods() -> None:
    world = filled()
    assert Counter(pod.node for pod in world.pods.values()) == dict.fromkeys(range(1, 5), 50)


def test_two_worlds_of_one_seed_write_the_same() -> None:
    steps = [list(loads.churn(filled(), rate=100, seconds=2)) for _ in range(2)]
    assert steps[0] == steps[1]
    assert len(steps[0]) == 200


def test_churn_never_gives_an_address_twice() -> None:
    world = filled()
    held = {key for pod in world.pods.values() for key in records.endpoint_keys(world, pod)[2:]}
    for step in loads.churn(world, rate=1000, seconds=3):
        for operation in step.operations:
            match operation:
                case Put(key=key) if key.startswith(keys.ADDRESSES):
                    assert key not in held
                    held.add(key)
                case Delete(key=key) if key.startswith(keys.ADDRESSES):
                    held.remove(key)
    assert len(held) == 2 * len(world.pods)


def test_a_rolling_update_replaces_pods_of_one_deployment() -> None:
    world = filled()
    before = {key for key, pod in world.pods.items() if pod.deployment == 0}
    steps = list(loads.rolling(world, rate=10, pods=1000))
    assert [step.at for step in steps] == pytest.approx([n / 10 for n in range(2 * len(before))])
    after = {key for key, pod in world.pods.items() if pod.deployment == 0}
    assert len(after) == len(before)
    assert not after & before


def test_a_write_of_many_changes_fits_into_transactions() -> None:
    steps = list(loads.writes(filled(), changes=30, count=2, every=1.0))
    assert Counter(step.at for step in steps) == {0.0: 30, 1.0: 30}
    assert all(len(step.operations) <= MAX_TRANSACTION_OPERATIONS for step in steps)


def test_the_slicer_reads_every_record() -> None:
    world = filled()
    stored = Stored()
    stored.take(records.foundation(world))
    stored.take(op for pod in world.pods.values() for op in records.create(world, pod))
    found = [record_from_store(item) for item in stored.items if item.key.startswith(keys.STATE)]
    assert [record.mistake for record in found if record.mistake] == []
    assert all(record.content is not None for record in found)


def test_a_node_spans_what_its_policies_name() -> None:
    world = filled(nodes=3)
    for node in (1, 2, 3):
        local = {pod.deployment for pod in world.pods.values() if pod.node == node}
        expected = {key for key, pod in world.pods.items() if pod.deployment - 1 in local & {0}}
        assert world.spanned(node) >= expected


SCRIPT = """
def plan(nodes, pods_per_node):
    return {"nodes": nodes}

def events(plan, seed):
    labels = {"group": "load", "name": "big-0"}
    return [
        {"t": 0.0, "op": "create", "kind": "service", "ns": "ns-1", "name": "s", "labels": {}},
        {"t": 1.0, "op": "create", "kind": "networkpolicy", "ns": "ns-1", "name": "big-0"},
        *({"t": 2.0, "op": "create", "kind": "pod", "ns": "ns-1", "name": f"big-0-{i}",
           "labels": labels, "node": i} for i in range(plan["nodes"])),
        {"t": 4.0, "op": "delete", "kind": "pod", "ns": "ns-1", "name": "big-0-1"},
        {"t": 8.0, "op": "delete", "kind": "networkpolicy", "ns": "ns-1", "name": "big-0"},
    ]
"""


def test_a_trace_is_replayed_in_the_time_that_is_given(tmp_path: Path) -> None:
    script = tmp_path / "trace.py"
    script.write_text(SCRIPT, encoding="utf-8")
    replay = loads.Replay(script, nodes=3, pods_per_node=5, seed=0)
    stored = Stored()
    stored.take(records.foundation(replay.world))
    steps: list[Step] = list(replay.steps(seconds=4.0))
    assert [step.at for step in steps] == [0.5, 1.0, 1.0, 1.0, 2.0, 4.0]
    for step in steps:
        stored.take(step.operations)
    endpoints = [
        registry_pb2.Endpoint.FromString(item.value)
        for item in stored.items
        if item.key.startswith(keys.ENDPOINTS)
    ]
    assert [(one.pod, one.node) for one in endpoints] == [
        ("big-0-1", "node-1"),
        ("big-0-3", "node-3"),
    ]
