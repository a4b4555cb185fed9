"""From the release of an address to the barrier that frees it at its owner, all agents live.

Real: etcd, slicer processes, streams and acknowledgements over gRPC. The agents apply nothing: what
a kernel takes to withdraw an address is measured elsewhere.
"""

import asyncio
import contextlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.adding import Samples
from deltaplane.runtime import log
from deltaplane.store import keys
from deltaplane.store.embedded import EtcdProcess, find_etcd
from deltaplane.store.etcd import EtcdStore
from deltaplane.store.port import Delete, Put
from deltaplane.v1 import common_pb2, registry_pb2
from nodeagent.stream import ApplyResult, BarrierReached, HelloState, SlicerStream

LIMIT_SECONDS = 10.0
"""What takes longer counts as a failure."""

PAUSE_SECONDS = (0.0, 0.3)
"""Between two releases: they meet all phases of the intervals in between."""


@dataclass(slots=True, eq=False)
class Agent:
    """A node whose kernel takes no time."""

    index: int
    watermark: int = 0
    revision: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, targets: Sequence[str]) -> None:
        """Streams until cancelled."""
        state = HelloState(node=f"node-{self.index}", node_uid=f"uid-{self.index}")
        await SlicerStream().run(targets, state, self._apply)

    async def _apply(self, barrier: BarrierReached) -> ApplyResult:
        self.watermark, self.revision = barrier.watermark, barrier.revision
        self.changed.set()
        return ApplyResult()

    async def until_free(self, revision: int) -> None:
        """Waits until an address with this release revision may be handed out."""
        while self.watermark < revision:
            self.changed.clear()
            await self.changed.wait()


def _node(index: int) -> Put:
    record = registry_pb2.Node(
        name=f"node-{index}",
        uid=f"uid-{index}",
        index=index,
        addresses=common_pb2.AddressPair(ipv4=bytes((198, 19, index // 256, index % 256))),
    )
    return Put(keys.node(record.name), record.SerializeToString())


def _endpoint(index: int, number: int) -> Put:
    record = registry_pb2.Endpoint(
        node=f"node-{index}",
        node_index=index,
        id=number,
        namespace="bench",
        pod=f"pod-{number}",
        addresses=common_pb2.AddressPair(ipv4=bytes((10, index // 256, index % 256, 1))),
        identity=300,
        state=registry_pb2.Endpoint.STATE_READY,
    )
    key = keys.endpoint(record.namespace, record.pod, record.node, number)
    return Put(key, record.SerializeToString())


@contextlib.asynccontextmanager
async def _slicers(etcd: str, folder: Path, count: int) -> AsyncIterator[list[str]]:
    processes, targets = [], []
    for number in range(count):
        target = f"unix:{folder}/slicer-{number}.sock"
        arguments = ["--insecure", "--etcd", etcd, "--listen", target, "--log-level", "warning"]
        command = [sys.executable, "-m", "services.slicer", *arguments]
        # Not asyncio's: its streams would be read by the loop that is measured.
        process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: ASYNC220
        processes.append(process)
        targets.append(target)
    try:
        for process in processes:
            assert process.stdout is not None
            await asyncio.to_thread(process.stdout.readline)  # it says when it serves
        yield targets
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            await asyncio.to_thread(process.wait)
            if process.stdout is not None:
                process.stdout.close()


async def measure(*, nodes: int, slicers: int, count: int, seed: int = 0) -> Samples:
    """Releases addresses one after another and times each until it is free."""
    log.configure("json", "warning", "bench")
    samples, dice = Samples(), random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="dp-reuse-") as name:
        etcd = EtcdProcess(find_etcd(), Path(name) / "etcd")
        await etcd.start()
        store = EtcdStore([etcd.endpoint])
        try:
            for index in range(1, nodes + 1):
                await store.transact([], [_node(index)])
            async with _slicers(etcd.endpoint, Path(name), slicers) as targets:
                agents = [Agent(index) for index in range(1, nodes + 1)]
                async with asyncio.TaskGroup() as tasks:
                    streams = [tasks.create_task(agent.run(targets)) for agent in agents]
                    await _warm_up(store, agents)
                    for number in range(1, count + 1):
                        await _once(store, dice.choice(agents), number, samples)
                        await asyncio.sleep(dice.uniform(*PAUSE_SECONDS))
                    for stream in streams:
                        stream.cancel()
        finally:
            await store.close()
            await etcd.stop()
    return samples


async def _warm_up(store: EtcdStore, agents: Sequence[Agent]) -> None:
    """Until all agents stream and the watermark has come to where they started."""
    revision = (await store.transact([], [_endpoint(1, 1 << 20)])).revision
    async with asyncio.timeout(60):
        await asyncio.gather(*(agent.until_free(revision) for agent in agents))


async def _once(store: EtcdStore, agent: Agent, number: int, samples: Samples) -> None:
    put = _endpoint(agent.index, number)
    await store.transact([], [put])
    released = (await store.transact([], [Delete(put.key)])).revision
    started = time.perf_counter()
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            await agent.until_free(released)
    except TimeoutError:
        samples.failures += 1
    else:
        samples.seconds.append(time.perf_counter() - started)
