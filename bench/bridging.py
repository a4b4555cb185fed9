"""What the bridge from Kubernetes costs: a start, changes, and a leader that is killed.

The API server is that of the tests, in this process, so this needs the tree and not only the wheel;
etcd, the registry and the bridge are processes of their own, as in production.
"""

import asyncio
import contextlib
import json
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import clustering
from bench.claiming import binary
from bench.scale.processes import Program, program
from bench.scale.usage import resident_bytes
from bench.scraping import cpu_seconds
from deltaplane.runtime import rpc
from deltaplane.store.embedded import EtcdProcess
from deltaplane.v1 import bridge_pb2, bridge_pb2_grpc, registry_pb2, registry_pb2_grpc

if TYPE_CHECKING:
    from tests.kubernetes.apiserver import ApiServer

DEADLINE_SECONDS = 600.0
LOOK_SECONDS = 0.02
LISTING_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is measured.

    Attributes:
        nodes, pods, slices: objects of the cluster; a slice has 100 endpoints.
        rate: changes of pods a second: a third each is created, labelled anew, deleted.
        slice_rate: changes of slices a second, beside those of pods.
        seconds: how long they last.
    """

    nodes: int
    pods: int
    slices: int
    rate: float
    slice_rate: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of it.

    Attributes:
        start_seconds: from the start of the process to the last record that it wrote.
        start_cpu_seconds: of the bridge meanwhile.
        restart_seconds: the same where the registry had everything already.
        rss_mib: memory of the bridge with all objects.
        changes: how many there were.
        change_cpu_percent: of a core, while they lasted.
        takeover_seconds: from kill -9 of the leader to the record of a pod created after it.
        lost, foreign: objects without a record, and records without an object, at the end.
    """

    start_seconds: float
    start_cpu_seconds: float
    restart_seconds: float
    rss_mib: float
    changes: int
    change_cpu_percent: float
    takeover_seconds: float
    lost: int
    foreign: int


def measure(load: Load) -> Result:
    """Measures on an etcd and with processes of its own."""
    from tests.kubernetes.apiserver import ApiServer  # noqa: PLC0415 - the wheel has no tests

    with tempfile.TemporaryDirectory(prefix="dp-bench-") as folder, ApiServer() as server:
        _fill(server, load)
        return asyncio.run(_measure(Path(folder), server, load))


def _fill(server: "ApiServer", load: Load) -> None:
    from services.kubernetes.api import resource as resources  # noqa: PLC0415 - see measure

    for number in range(load.nodes):
        server.create(resources.NODES, f"node-{number}", **clustering.node(number))
    for number in range(0, load.pods + load.pods // 2, clustering.PODS_PER_NAMESPACE):
        name = clustering.namespace_of(number)
        labels = {"kubernetes.io/metadata.name": name}
        server.create(resources.NAMESPACES, name, metadata={"labels": labels})
    for number in range(load.pods):
        _create(server, number, load)
    for number in range(load.slices):
        server.create(
            resources.ENDPOINT_SLICES,
            f"slice-{number}",
            namespace="team-0",
            **clustering.endpoint_slice(number, load.nodes),
        )


def _create(server: "ApiServer", number: int, load: Load) -> None:
    from services.kubernetes.api.resource import PODS  # noqa: PLC0415 - see measure

    fields = clustering.pod(number, load.nodes)
    server.create(PODS, f"pod-{number}", namespace=clustering.namespace_of(number), **fields)


@dataclass(slots=True)
class _Stage:
    """etcd, a registry and an API server."""

    folder: Path
    server: "ApiServer"
    registry: Program
    stub: "registry_pb2_grpc.RegistryAsyncStub"

    @contextlib.asynccontextmanager
    async def bridge(self, name: str) -> AsyncIterator[Program]:
        """A replica of the bridge, from its ready line on."""
        config = self.folder / "kubeconfig"
        cluster = {"name": "bench", "cluster": {"server": self.server.url}}
        context = {"name": "bench", "context": {"cluster": "bench"}}
        kubeconfig = {"current-context": "bench", "clusters": [cluster], "contexts": [context]}
        config.write_text(json.dumps(kubeconfig), encoding="utf-8")
        flags = ("--kubeconfig", str(config), "--registry", self.registry.target)
        more = ("--log-level", "warning", "--identity", name)
        log = self.folder / f"{name}.log"
        async with program("services.kubernetes", *flags, *more, log=log) as found:
            yield found

    async def pods(self) -> set[str]:
        """Keys and UIDs that the registry has."""
        answer = await self.stub.ListPods(registry_pb2.ListPodsRequest(), timeout=LISTING_SECONDS)
        return {f"{pod.namespace}/{pod.name} {pod.uid}" for pod in answer.pods}

    def objects(self) -> set[str]:
        """Keys and UIDs that the cluster has."""
        from services.kubernetes.api.resource import PODS  # noqa: PLC0415 - see measure

        with self.server.storage.lock:
            current = self.server.storage.collection(PODS).current
            return {f"{key} {pod['metadata']['uid']}" for key, pod in current.items()}


async def _measure(folder: Path, server: "ApiServer", load: Load) -> Result:
    async with _stage(folder, server) as stage:
        started = time.perf_counter()
        async with stage.bridge("first") as first:
            await _until_settled(first, load.pods)
            start_seconds = time.perf_counter() - started
            start_cpu = cpu_seconds(first.pid)
        started = time.perf_counter()
        async with stage.bridge("second") as second, stage.bridge("third") as third:
            active = await _until_one_settled((second, third), load.pods)
            restart_seconds = time.perf_counter() - started
            rss = resident_bytes(active.pid)
            before, began = cpu_seconds(active.pid), time.perf_counter()
            changes = await _change(server, load)
            took, used = time.perf_counter() - began, cpu_seconds(active.pid) - before
            await _until(lambda: _is_equal(stage))
            takeover = await _take_over(stage, active, load)
            await _until(lambda: _is_equal(stage))
        found, wanted = await stage.pods(), stage.objects()
    return Result(
        start_seconds=start_seconds,
        start_cpu_seconds=start_cpu,
        restart_seconds=restart_seconds,
        rss_mib=rss / (1 << 20),
        changes=changes,
        change_cpu_percent=used / took * 100,
        takeover_seconds=takeover,
        lost=len(wanted - found),
        foreign=len(found - wanted),
    )


async def _change(server: "ApiServer", load: Load) -> int:
    """Changes pods and slices evenly over the time; returns how many changes that were."""
    began, changes = time.perf_counter(), 0
    pods, slices = int(load.rate * load.seconds), int(load.slice_rate * load.seconds)
    due = [(number / load.rate, number, True) for number in range(pods)]
    due += [(number / load.slice_rate, number, False) for number in range(slices)]
    for at, number, is_pod in sorted(due):
        if (left := began + at - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        if is_pod:
            _change_pod(server, number, load)
        else:
            _change_slice(server, number, load)
        changes += 1
    return changes


def _change_pod(server: "ApiServer", number: int, load: Load) -> None:
    from services.kubernetes.api.resource import PODS  # noqa: PLC0415 - see measure

    which, turn = number // 3, number % 3
    old = which % load.pods
    if turn == 0:
        _create(server, load.pods + which, load)
    elif turn == 1:
        labels = clustering.pod(old, load.nodes, version=number)["metadata"]["labels"]
        patch = {"metadata": {"labels": labels}}
        server.change(PODS, f"pod-{old}", patch, namespace=clustering.namespace_of(old))
    else:
        server.delete(PODS, f"pod-{old}", namespace=clustering.namespace_of(old))


def _change_slice(server: "ApiServer", number: int, load: Load) -> None:
    from services.kubernetes.api.resource import ENDPOINT_SLICES  # noqa: PLC0415 - see measure

    which, is_ready = number % load.slices, number // load.slices % 2 == 1
    fields = clustering.endpoint_slice(which, load.nodes, ready=is_ready)
    server.change(ENDPOINT_SLICES, f"slice-{which}", fields, namespace="team-0")


async def _take_over(stage: _Stage, active: Program, load: Load) -> float:
    """Kills the leader; seconds until a pod that was created afterwards has its record."""
    os.kill(active.pid, signal.SIGKILL)
    killed = time.perf_counter()
    number = load.pods + load.pods // 2 - 1
    _create(stage.server, number, load)
    key = f"{clustering.namespace_of(number)}/pod-{number} "

    async def written() -> bool:
        return any(it.startswith(key) for it in await stage.pods())

    await _until(written, look=0.1)
    return time.perf_counter() - killed


async def _is_equal(stage: _Stage) -> bool:
    return await stage.pods() == stage.objects()


async def _until_settled(bridge: Program, pods: int) -> None:
    await _until_one_settled((bridge,), pods)


async def _until_one_settled(bridges: tuple[Program, ...], pods: int) -> Program:
    """Waits until one of them leads and has nothing left to write; which."""
    found: list[Program] = []
    async with contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(rpc.channel(it.target)) for it in bridges]
        stubs = [bridge_pb2_grpc.BridgeStub(channel) for channel in channels]

        async def settled() -> bool:
            for bridge, stub in zip(bridges, stubs, strict=True):
                answer = await stub.GetStatus(bridge_pb2.BridgeGetStatusRequest())
                known = [it for it in answer.kinds if it.listed and it.kind != "Node"]
                is_done = all(it.adopted and not it.pending for it in known)
                has_all = any(it.kind == "Pod" and it.records == pods for it in known)
                if answer.active and is_done and has_all:
                    found.append(bridge)
            return bool(found)

        await _until(settled)
    return found[0]


async def _until(condition: Callable[[], Awaitable[bool]], *, look: float = LOOK_SECONDS) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await condition():  # noqa: ASYNC110 - other processes are asked
            await asyncio.sleep(look)


@contextlib.asynccontextmanager
async def _stage(folder: Path, server: "ApiServer") -> AsyncIterator[_Stage]:
    etcd = EtcdProcess(binary(), folder / "etcd")
    await etcd.start()
    flags = ("--etcd", etcd.endpoint, "--listen", "127.0.0.1:0", "--log-level", "warning")
    try:
        async with (
            program("services.endpoints", *flags, log=folder / "registry.log") as registry,
            rpc.channel(registry.target) as channel,
        ):
            yield _Stage(folder, server, registry, registry_pb2_grpc.RegistryStub(channel))
    finally:
        await etcd.stop()
