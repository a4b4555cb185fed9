"""What registering endpoints costs, and a round of the repair, on an etcd of its own.

Each registration is a call of its own, as nodes make them; the pods' records are there before.
"""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from bench.claiming import binary
from bench.scale import records
from bench.scale.processes import Program, program
from bench.scale.usage import usage
from bench.scale.world import Pod, Shape, World
from bench.scale.writer import fill
from bench.summary import percentile
from deltaplane.runtime import rpc
from deltaplane.store.embedded import EtcdProcess
from deltaplane.store.etcd import EtcdStore
from deltaplane.v1 import registry_pb2, registry_pb2_grpc
from services.endpoints.identity import LabelFilter
from services.endpoints.repository import Repositories

CHANNELS = 8
"""Connections of the clients."""

CALL_SECONDS = 60
PODS_AT_ONCE = 1000
Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Stage:
    """A running registry over a cluster that has no endpoints yet."""

    world: World
    store: EtcdStore
    etcd: EtcdProcess
    registry: Program
    folder: Path
    stubs: "Sequence[registry_pb2_grpc.RegistryAsyncStub]"


def measure(*, nodes: int, at_once: Sequence[int], rounds: int) -> list[Result]:
    """Registers so many at once, some rounds of each; one row for each number."""
    with tempfile.TemporaryDirectory(prefix="dp-bench-") as folder:
        return asyncio.run(_measure(Path(folder), nodes, at_once, rounds))


def measure_repair(*, nodes: int, pods_per_node: int) -> Result:
    """One round of the repair over so many endpoints that are all right."""
    with tempfile.TemporaryDirectory(prefix="dp-bench-") as folder:
        return asyncio.run(_repair(Path(folder), World(Shape(nodes, pods_per_node), 0)))


async def _measure(folder: Path, nodes: int, at_once: Sequence[int], rounds: int) -> list[Result]:
    async with _stage(folder, World(Shape(nodes, 1), 0)) as stage:
        await _round(stage, 20)  # connected and warm
        return [
            _sum_up(count, [await _round(stage, count) for _ in range(rounds)]) for count in at_once
        ]


async def _round(stage: _Stage, count: int) -> Result:
    pods = [stage.world.create(stage.world.some_deployment()) for _ in range(count)]
    await _apply(stage, pods)
    requests = [
        registry_pb2.RegisterEndpointRequest(
            endpoint=records.endpoint(stage.world, pod), node_uid=records.node_uid(pod.node)
        )
        for pod in pods
    ]
    assert stage.etcd.pid is not None
    pids = {"registry": stage.registry.pid, "etcd": stage.etcd.pid, "client": os.getpid()}
    socket = stage.folder / "etcd" / "etcd:0"
    head, before, began = await stage.store.head(), usage(pids, socket), time.perf_counter()
    calls = await asyncio.gather(
        *(_call(stage.stubs[n % CHANNELS], one) for n, one in enumerate(requests))
    )
    took, used = time.perf_counter() - began, usage(pids, socket).since(before)
    return {
        "seconds": took,
        "samples": [seconds for seconds, _ in calls],
        "repeated": sum(repeated for _, repeated in calls),
        "writes": await stage.store.head() - head,
        "cpu": used.cpu,
    }


async def _call(
    stub: "registry_pb2_grpc.RegistryAsyncStub", request: registry_pb2.RegisterEndpointRequest
) -> tuple[float, int]:
    """Seconds until it is registered, and how often the call was repeated, as agents do."""
    began, repeated = time.perf_counter(), 0
    while True:
        try:
            answer = await stub.RegisterEndpoint(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}:
                raise
            repeated += 1
        else:
            assert answer.endpoint.state == registry_pb2.Endpoint.STATE_READY
            return time.perf_counter() - began, repeated


def _sum_up(count: int, rounds: Sequence[Result]) -> Result:
    ordered = sorted(sample for one in rounds for sample in one["samples"])
    made = count * len(rounds)
    cpu = {name: sum(one["cpu"][name] for one in rounds) for name in rounds[0]["cpu"]}
    return {
        "at_once": count,
        "rounds": len(rounds),
        "per_second": round(made / sum(one["seconds"] for one in rounds)),
        "repeated_calls": sum(one["repeated"] for one in rounds),
        "p50_ms": round(percentile(ordered, 0.5) * 1000, 1),
        "p99_ms": round(percentile(ordered, 0.99) * 1000, 1),
        "changes_per_transaction": round(made / sum(one["writes"] for one in rounds), 1),
        **{f"{name}_cpu_us": round(used / made * 1e6) for name, used in cpu.items()},
    }


async def _apply(stage: _Stage, pods: Sequence[Pod]) -> None:
    for start in range(0, len(pods), PODS_AT_ONCE):
        part = [records.pod_record(stage.world, pod) for pod in pods[start : start + PODS_AT_ONCE]]
        await stage.stubs[0].ApplyPods(
            registry_pb2.ApplyPodsRequest(pods=part), timeout=CALL_SECONDS
        )


@contextlib.asynccontextmanager
async def _stage(folder: Path, world: World) -> AsyncIterator[_Stage]:
    async with _etcd(folder) as (etcd, store):
        await fill(store, records.foundation(world))
        flags = ("--etcd", etcd.endpoint, "--listen", "127.0.0.1:0", "--log-level", "warning")
        async with (
            program("services.endpoints", *flags, log=folder / "registry.log") as registry,
            contextlib.AsyncExitStack() as stack,
        ):
            channels: list[grpc.aio.Channel] = [
                await stack.enter_async_context(rpc.channel(registry.target))
                for _ in range(CHANNELS)
            ]
            stubs = [registry_pb2_grpc.RegistryStub(one) for one in channels]
            yield _Stage(world, store, etcd, registry, folder, stubs)


@contextlib.asynccontextmanager
async def _etcd(folder: Path) -> AsyncIterator[tuple[EtcdProcess, EtcdStore]]:
    etcd = EtcdProcess(binary(), folder / "etcd")
    await etcd.start()
    store = EtcdStore([etcd.endpoint], deadline_seconds=20)
    try:
        yield etcd, store
    finally:
        await store.close()
        await etcd.stop()


async def _repair(folder: Path, world: World) -> Result:
    async with _etcd(folder) as (etcd, store):
        await fill(store, records.foundation(world))
        pods = world.fill()
        await fill(store, (records.pod_operation(world, pod) for pod in pods))
        await fill(store, (op for pod in pods for op in records.create(world, pod)))
        repairer = Repositories.over(store, LabelFilter()).repairer
        assert etcd.pid is not None
        pids, socket = {"registry": os.getpid(), "etcd": etcd.pid}, folder / "etcd" / "etcd:0"
        rows = {}
        for name, thorough in (("first round", True), ("round", False)):
            head, before, began = await store.head(), usage(pids, socket), time.perf_counter()
            await repairer.repair(thorough=thorough)
            took, used = time.perf_counter() - began, usage(pids, socket).since(before)
            assert await store.head() == head, "something was repaired"
            rows[name] = {
                "seconds": round(took, 2),
                **{f"{pid}_cpu_s": round(seconds, 2) for pid, seconds in used.cpu.items()},
                "etcd_reads": used.etcd["reads"],
            }
    return {"endpoints": len(pods), **rows}
