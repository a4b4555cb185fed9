"""What a change costs a slicer between etcd's watch and its view: no agents, but a real etcd.

The writer is a process of its own. What is measured is this one: the feed of a slicer.
"""

import asyncio
import multiprocessing
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from bench.claiming import binary
from bench.scale import loads, records
from bench.scale.world import Shape, World
from bench.scale.writer import fill, play
from deltaplane.runtime import interpreter
from deltaplane.runtime.clock import SystemClock
from deltaplane.store.embedded import EtcdProcess
from deltaplane.store.etcd import EtcdStore
from services.slicer.fanout import Fanout
from services.slicer.feed import Feed
from services.slicer.repository import Replica, Repository
from services.slicer.waiting import wait, watching

PATIENCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What was measured; CPU times of the following process.

    Attributes:
        changes: that were followed.
        transactions: in which they were written.
        per_second: changes by seconds.
        main_us: CPU of a change in the thread that folds it.
        others_us: CPU of a change in all other threads.
    """

    changes: int
    transactions: int
    per_second: float
    main_us: float
    others_us: float


def follow(*, nodes: int, pods: int, rate: float, seconds: float) -> Followed:
    """Measures once: so many changes a second, pods come and go in turn."""
    shape = Shape(nodes, pods)
    with tempfile.TemporaryDirectory(prefix="dp-bench-") as folder:
        return asyncio.run(_follow(Path(folder), shape, rate, seconds))


async def _follow(folder: Path, shape: Shape, rate: float, seconds: float) -> Followed:
    etcd = EtcdProcess(binary(), folder / "etcd", unsafe_no_fsync=True)
    await etcd.start()
    store = EtcdStore([etcd.endpoint])
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    writer = spawn.Process(target=_write, args=(theirs, etcd.endpoint, shape, rate, seconds))
    try:
        writer.start()
        await asyncio.to_thread(ours.recv)
        feed = Feed(Repository(store), Replica("bench", "127.0.0.1:1"), SystemClock())
        interpreter.prepare()
        fanout = await feed.start()
        interpreter.settled()
        following = asyncio.create_task(feed.run(fanout))
        try:
            return await _measure(fanout, ours)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    finally:
        writer.kill()
        writer.join()
        await store.close()
        await etcd.stop()


async def _measure(fanout: Fanout, writer: Connection) -> Followed:
    before = time.thread_time(), time.process_time()
    writer.send("go")
    changes, transactions, revision, seconds = await asyncio.to_thread(writer.recv)
    with watching(fanout) as changed:
        while fanout.sender.cut < revision:
            await wait(changed, PATIENCE_SECONDS)
    main = time.thread_time() - before[0]
    whole = time.process_time() - before[1]
    return Followed(
        changes=changes,
        transactions=transactions,
        per_second=changes / seconds,
        main_us=main / changes * 1e6,
        others_us=(whole - main) / changes * 1e6,
    )


def _write(peer: Connection, etcd: str, shape: Shape, rate: float, seconds: float) -> None:
    asyncio.run(_written(peer, etcd, shape, rate, seconds))


async def _written(peer: Connection, etcd: str, shape: Shape, rate: float, seconds: float) -> None:
    store = EtcdStore([etcd], deadline_seconds=20)
    world = World(shape)
    await fill(store, records.foundation(world))
    await fill(store, (op for pod in world.fill() for op in records.create(world, pod)))
    peer.send("ready")
    peer.recv()
    written = await play(store, loads.churn(world, rate=rate, seconds=seconds))
    changes = len(written.committed)
    peer.send((changes, written.transactions, written.revision, written.seconds))
    peer.recv()  # until it is ended
