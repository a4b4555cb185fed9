"""The measurements: each takes a plane with agents connected, does one thing and says what it saw.

Times are milliseconds, sizes bytes; names end in the unit.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from itertools import takewhile
from typing import Any

from bench.scale import loads, records
from bench.scale.applied import Histogram, change_key
from bench.scale.lists import lister
from bench.scale.plane import Plane, cpu_of_agents
from bench.scale.writer import Step, Written, play
from bench.summary import percentile
from deltaplane.runtime import rpc
from deltaplane.v1 import registry_pb2, registry_pb2_grpc

LIST_EVERY_SECONDS = 0.5
MENDED_SECONDS = 30.0
STARTUP_PAUSE_SECONDS = 0.1
STARTUP_SECONDS = 600.0
"""Longest."""

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BATCH_EVERY_SECONDS = 0.7
"""Above the 500 ms of the slices: two writes never share a message."""

BATCH_WRITES = 6

SATURATED_MS = 2000.0
"""A rate is too much once p99 is above this, or the writer comes so late."""

FIRST_RATE = 50.0
LOWEST_RATE = 1.0
HIGHEST_RATE = 6400.0
SATURATION_SECONDS = 8.0
REFINE = 2
"""Halvings of the last step."""

Result = dict[str, Any]


def spread(found: Histogram) -> Result:
    """Milliseconds by share of the samples."""
    named = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {f"{name}_ms": round(found.quantile(share), 2) for name, share in named.items()} | {
        "samples": found.total
    }


def _sum_up(seconds: Iterable[float]) -> Result:
    ordered = sorted(seconds)
    if not ordered:
        return {"samples": 0}
    named = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {
        f"{name}_ms": round(percentile(ordered, share) * 1000, 2) for name, share in named.items()
    } | {"samples": len(ordered)}


async def cold(plane: Plane, agents: int = 0) -> Result:
    """Connects agents with nothing in their memory. agents: of the first nodes; 0: of all."""
    before = plane.usage()
    seconds = await plane.connect(agents)
    await asyncio.sleep(1.0)  # what was allocated for the moment goes back
    used = plane.usage().since(before)
    stats = await plane.stats()
    agents = plane.connected
    return {
        "in_sync_ms": round(seconds * 1000, 1),
        "bytes_per_agent": stats["bytes"] // max(1, stats["agents"]),
        "messages_per_agent": round(stats["messages"] / max(1, stats["agents"]), 1),
        "server_cpu_ms": round(used.cpu["server"] * 1000, 1),
        "agents_cpu_ms": round(cpu_of_agents(used.cpu) * 1000, 1),
        "server_rss_bytes": used.rss["server"],
        "server_bytes_per_agent": (used.rss["server"] - before.rss["server"]) // agents,
    }


async def under(plane: Plane, steps: Iterable[Step]) -> Result:
    """Plays a load and measures it to the last agent."""
    await plane.clear()
    before, counted = plane.usage(), await plane.stats()
    written = await play(plane.store, steps)
    found, control = await plane.measured(written)
    used, after = plane.usage().since(before), await plane.stats()
    return _report(plane, written) | {
        "applied": spread(found.spread),
        "begun_to_applied": spread(found.from_begin),
        "last_agent": _sum_up(
            max(0, when - written.committed[change]) / 1e9 for change, when in found.last.items()
        ),
        "control_applied": spread(control),
        "changes_not_seen": len(written.committed) - len(found.last),
        **_traffic(plane, {name: after[name] - counted[name] for name in after}, written),
        **_spent(plane, used, written),
    }


def _report(plane: Plane, written: Written) -> Result:
    changes = len(written.committed)
    took = (written.committed[change] - begun for change, begun in written.begun.items())
    return {
        "changes": changes,
        "agents": plane.connected,
        "seconds": round(written.seconds, 3),
        "changes_per_second": round(changes / max(0.001, written.seconds), 1),
        "writer_late_ms": round(written.late_seconds * 1000, 1),
        "transactions": written.transactions,
        "changes_per_transaction": round(changes / max(1, written.transactions), 2),
        "etcd_commit": _sum_up(nanoseconds / 1e9 for nanoseconds in took),
    }


def _traffic(plane: Plane, counted: dict[str, int], written: Written) -> Result:
    raw = max(1, plane.connected - plane.controls)
    changes = max(1, len(written.committed))
    return {
        "bytes_per_agent": counted["bytes"] // raw,
        "bytes_per_change_per_agent": round(counted["bytes"] / raw / changes, 2),
        "messages_per_agent": round(counted["messages"] / raw, 2),
        "messages_per_change_per_agent": round(counted["messages"] / raw / changes, 4),
        "acks_per_agent": round(counted["acks"] / raw, 2),
        "deliveries": counted["applied"],
        "reconnects": counted["lost"],
    }


def _spent(plane: Plane, used: Any, written: Written) -> Result:  # noqa: ANN401 - see plane.usage
    changes = max(1, len(written.committed))
    total = sum(used.cpu.values())
    extra = used.etcd["transactions"] - written.transactions
    return {
        "server_cpu_ms": round(used.cpu["server"] * 1000, 1),
        "server_cpu_us_per_change": round(used.cpu["server"] * 1e6 / changes, 1),
        "server_cpu_us_per_change_per_agent": round(
            used.cpu["server"] * 1e6 / changes / plane.connected, 3
        ),
        "server_rss_bytes": used.rss["server"],
        "agents_share_of_cpu": round(cpu_of_agents(used.cpu) / total, 3) if total else 0.0,
        "cpu_ms": {name: round(seconds * 1000, 1) for name, seconds in used.cpu.items()},
        "etcd_reads": used.etcd["reads"],
        "etcd_transactions": used.etcd["transactions"],
        "etcd_transactions_not_of_the_load": extra,
        "etcd_watches": used.etcd["watches"],
    }


@contextlib.asynccontextmanager
async def listing(plane: Plane) -> AsyncIterator[Result]:
    """Lists every endpoint again and again meanwhile; fills in the result at the end."""
    result: Result = {}
    seconds: list[float] = []
    async with lister(plane) as list_all:
        task = asyncio.create_task(_keep_listing(list_all, seconds))
        try:
            yield result
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            result.update(_sum_up(seconds))


async def _keep_listing(list_all: Callable[[], Awaitable[int]], seconds: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await list_all()
        seconds.append(time.perf_counter() - began)
        await asyncio.sleep(LIST_EVERY_SECONDS)


async def startup(plane: Plane, *, count: int, rate: float) -> Result:
    """Starts pods through the registry while others churn.

    A pod's start is from the begin of its registration, which is what ADD waits for, until every
    agent that is to know it does; its first ping works from everywhere from the end of ADD plus
    what is left of that.
    """
    await plane.clear()
    started, answered = Written(), {}
    done = asyncio.Event()
    others = loads.churn(plane.world, rate=rate, seconds=STARTUP_SECONDS)
    background = asyncio.create_task(
        play(plane.store, takewhile(lambda _: not done.is_set(), others))
    )
    async with rpc.channel(plane.registry.target) as channel:
        stub = registry_pb2_grpc.RegistryStub(channel)
        for _ in range(count):
            pod = plane.world.create(plane.world.some_deployment())
            await stub.ApplyPods(
                registry_pb2.ApplyPodsRequest(pods=[records.pod_record(plane.world, pod)])
            )
            record = records.endpoint(plane.world, pod)
            record.node_index = record.identity = 0
            request = registry_pb2.RegisterEndpointRequest(
                endpoint=record, node_uid=records.node_uid(pod.node)
            )
            change = change_key(pod.key, gone=False)
            started.committed[change] = time.monotonic_ns()
            await stub.RegisterEndpoint(request, timeout=20)
            answered[change] = time.monotonic_ns()
            await asyncio.sleep(STARTUP_PAUSE_SECONDS)
    done.set()
    await background
    started.revision = await plane.store.head()
    found, _ = await plane.measured(started)
    last = {change: found.last.get(change, 0) for change in answered}
    return {
        "pods": count,
        "not_seen": sum(not when for when in last.values()),
        "add": _sum_up((answered[c] - began) / 1e9 for c, began in started.committed.items()),
        "start": _sum_up(
            (max(when, answered[c]) - started.committed[c]) / 1e9
            for c, when in last.items()
            if when
        ),
        "first_ping": _sum_up(max(0, when - answered[c]) / 1e9 for c, when in last.items() if when),
    }


async def peak(plane: Plane, count: int) -> Result:
    """Registers pods at the same time, each with a call of its own, as nodes do."""
    pods = [plane.world.create(plane.world.some_deployment()) for _ in range(count)]
    async with rpc.channel(plane.registry.target) as channel:
        stub = registry_pb2_grpc.RegistryStub(channel)
        await stub.ApplyPods(
            registry_pb2.ApplyPodsRequest(
                pods=[records.pod_record(plane.world, pod) for pod in pods]
            ),
            timeout=60,
        )
        before = await plane.store.head()
        requests = [
            registry_pb2.RegisterEndpointRequest(
                endpoint=records.endpoint(plane.world, pod), node_uid=records.node_uid(pod.node)
            )
            for pod in pods
        ]
        await asyncio.gather(*(stub.RegisterEndpoint(r, timeout=60) for r in requests))
        written = await plane.store.head() - before
    # The slicer's own writes are among them: in its disfavour.
    return {"changes": count, "writes": written, "changes_per_write": round(count / written, 1)}


async def batches(plane: Plane) -> list[Result]:
    """Bytes of a change over how many are written at once; bookmarks in between are counted in."""
    found = []
    for size in BATCH_SIZES:
        await plane.clear()
        await asyncio.sleep(BATCH_EVERY_SECONDS)  # what is on its way has come
        before = await plane.stats()
        steps = loads.writes(
            plane.world, changes=size, count=BATCH_WRITES, every=BATCH_EVERY_SECONDS
        )
        written = await play(plane.store, steps)
        await plane.settle(written)
        after = await plane.stats()
        deliveries = max(1, after["agents"] * len(written.committed))
        found.append(
            {
                "changes_per_write": size,
                "bytes_per_change_per_agent": round(
                    (after["bytes"] - before["bytes"]) / deliveries, 2
                ),
                "messages_per_change_per_agent": round(
                    (after["messages"] - before["messages"]) / deliveries, 4
                ),
            }
        )
    return found


async def reconnect(plane: Plane) -> Result:
    """Cuts every raw agent's stream at once."""
    before, counted = plane.usage(), await plane.stats()
    peak = before.rss["server"]
    cutting = asyncio.create_task(plane.cut())
    while not cutting.done():
        peak = max(peak, plane.usage().rss["server"])
        await asyncio.sleep(0.05)
    seconds = await cutting
    stats = await plane.stats()
    return {
        "in_sync_ms": round(seconds * 1000, 1),
        "snapshots": stats["snapshots"] - counted["snapshots"],
        "server_rss_before_bytes": before.rss["server"],
        "server_rss_peak_bytes": peak,
        "memory_growth": round(peak / before.rss["server"] - 1, 4),
    }


async def corruption(plane: Plane) -> Result:
    """Spoils an entry in the memory of each agent on grpc.aio, the real agent's stream."""
    found = await plane.control.ask("spoil", seed=0, seconds=MENDED_SECONDS)
    return {
        "spoiled": found["spoiled"],
        "mended": len(found["mended_ns"]),
        "found": _sum_up(nanoseconds / 1e9 for nanoseconds in found["found_ns"]),
        "found_to_mended": _sum_up(nanoseconds / 1e9 for nanoseconds in found["mended_ns"]),
        "buckets_replaced_at_most": max(found["buckets"], default=0),
    }


async def registered_at_once(plane: Plane, pods: int) -> Result:
    """Registers endpoints all at once, to the last agent's acknowledgement."""
    await plane.clear()
    before = plane.usage()
    began = time.monotonic_ns()
    written = await play(plane.store, loads.burst(plane.world, pods=pods))
    acknowledged = await _acknowledged(plane, written, began)
    found, _ = await plane.measured(written)
    used = plane.usage().since(before)
    last = max(found.last.values(), default=began)
    return _report(plane, written) | {
        "written_ms": round(written.seconds * 1000, 1),
        "last_agent_has_all_ms": round((last - began) / 1e6, 1),
        "last_acknowledgement_ms": acknowledged,
        "begun_to_applied": spread(found.from_begin),
        "changes_not_seen": len(written.committed) - len(found.last),
        "cpu_ms": {name: round(seconds * 1000, 1) for name, seconds in used.cpu.items()},
        "agents_share_of_cpu": round(cpu_of_agents(used.cpu) / sum(used.cpu.values()), 3),
    }


async def _acknowledged(plane: Plane, written: Written, began_ns: int) -> float | None:
    """Milliseconds until the last agent had acknowledged; None: not in time, or they never do."""
    if plane.mode.name == "delta" and await plane.acknowledged(written.revision):
        return round((time.monotonic_ns() - began_ns) / 1e6, 1)
    return None


async def memory(plane: Plane, agents: int) -> Result:
    """What an agent costs the server: one half of them is there already, the other one comes."""
    await plane.connect(agents // 2)
    await asyncio.sleep(2.0)
    before = plane.usage().rss["server"]
    await plane.connect(agents)
    await asyncio.sleep(2.0)
    used = plane.usage()
    after = used.rss["server"]
    return {
        "endpoints": len(plane.world.pods),
        "agents": agents,
        "server_rss_bytes": after,
        "server_bytes_per_agent": max(0, after - before) // (agents - agents // 2),
        "grpc_agents": plane.controls,
        "grpc_agents_rss_bytes": used.rss["control"],
    }


async def at_rate(plane: Plane, rate: float) -> Result:
    """Churn at one rate."""
    return await under(plane, loads.churn(plane.world, rate=rate, seconds=SATURATION_SECONDS))


async def saturation(plane: Plane) -> Result:
    """The highest rate of churn at which p99 stays bounded."""
    steps: list[Result] = []

    async def holds(rate: float) -> bool:
        found = await at_rate(plane, rate)
        held = (
            found["applied"]["p99_ms"] <= SATURATED_MS
            and found["writer_late_ms"] <= SATURATED_MS
            # With a span there are changes that no agent needs.
            and (plane.mode.scoped or not found["changes_not_seen"])
        )
        steps.append(
            {"rate": rate, "held": held, "applied": found["applied"], "cpu_ms": found["cpu_ms"]}
        )
        plane.progress(f"{plane.mode.title}: {rate:.0f} changes/s {'held' if held else 'too much'}")
        return held

    low, high = 0.0, FIRST_RATE
    while high <= HIGHEST_RATE and await holds(high):
        low, high = high, 2 * high
    while not low and high > LOWEST_RATE:
        low, high = (high / 2, high) if await holds(high / 2) else (low, high / 2)
    if low and high <= HIGHEST_RATE:
        for _ in range(REFINE):
            middle = (low + high) / 2
            low, high = (middle, high) if await holds(middle) else (low, middle)
    return {"changes_per_second": low, "bounded_by_ms": SATURATED_MS, "steps": steps}
