"""Writes a load to etcd at the times it asks for, whatever etcd and the readers make of it."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from deltaplane.store.etcd import EtcdStore
from deltaplane.store.port import MAX_TRANSACTION_OPERATIONS, Operation

AT_ONCE = 8
"""Transactions under way."""


@dataclass(frozen=True, slots=True)
class Step:
    """A change of the cluster.

    Attributes:
        at: seconds after the begin.
        operations: what is written, all in one transaction.
        change: its key, see `applied.change_key`; 0: not one of an endpoint.
        alone: shares its transaction with no other step.
    """

    at: float
    operations: Sequence[Operation]
    change: int
    alone: bool = False


@dataclass(slots=True)
class Written:
    """What was written.

    Attributes:
        begun: when the transaction of each change was sent, nanoseconds of the monotonic clock.
        committed: when etcd had answered it.
        revision: the newest one.
        transactions: how many there were.
        late_seconds: how far the last step came behind its time.
        seconds: from the begin to the last answer.
    """

    begun: dict[int, int] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    revision: int = 0
    transactions: int = 0
    late_seconds: float = 0.0
    seconds: float = 0.0


async def play(store: EtcdStore, steps: Iterable[Step]) -> Written:
    """Writes steps at their times. Those that are due together share transactions."""
    written = Written()
    gate = asyncio.Semaphore(AT_ONCE)
    began = time.monotonic()
    batch: list[Step] = []
    async with asyncio.TaskGroup() as tasks:

        async def flush() -> None:
            await gate.acquire()
            tasks.create_task(_commit(store, tuple(batch), written, gate))
            batch.clear()

        for step in steps:
            if batch and not _fits(batch, step):
                await flush()
            ahead = began + step.at - time.monotonic()
            if ahead > 0:
                if batch:
                    await flush()
                await asyncio.sleep(began + step.at - time.monotonic())
            written.late_seconds = time.monotonic() - began - step.at
            batch.append(step)
        if batch:
            await flush()
    written.seconds = time.monotonic() - began
    return written


def _fits(batch: Sequence[Step], step: Step) -> bool:
    used = sum(len(one.operations) for one in batch)
    alone = step.alone or batch[0].alone
    return not alone and used + len(step.operations) <= MAX_TRANSACTION_OPERATIONS


async def _commit(
    store: EtcdStore, batch: Sequence[Step], written: Written, gate: asyncio.Semaphore
) -> None:
    try:
        operations = [operation for step in batch for operation in step.operations]
        begun = time.monotonic_ns()
        committed = await store.transact([], operations)
        now = time.monotonic_ns()
    finally:
        gate.release()
    written.revision = max(written.revision, committed.revision)
    written.transactions += 1
    for step in batch:
        if step.change:
            written.begun[step.change] = begun
            written.committed[step.change] = now


async def fill(store: EtcdStore, operations: Iterable[Operation]) -> int:
    """Writes a lot, as fast as it goes; the revision afterwards."""
    pending = list(operations)
    size = MAX_TRANSACTION_OPERATIONS
    parts = [pending[at : at + size] for at in range(0, len(pending), size)]
    gate = asyncio.Semaphore(AT_ONCE)

    async def write(part: Sequence[Operation]) -> int:
        async with gate:
            return (await store.transact([], part)).revision

    return max(await asyncio.gather(*map(write, parts)), default=0)
