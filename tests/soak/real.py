"""The same runs on a real etcd and journal files; a crash drops the journal and opens the file.

The loop of a run is synchronous and etcd's client is not, so the client lives on a loop of its own,
in a thread, and every call waits for it.
"""

import asyncio
import itertools
import random
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from deltaplane.store import keys
from deltaplane.store.etcd import EtcdStore
from deltaplane.store.port import (
    Committed,
    Compare,
    DeletePrefix,
    KeyValue,
    Listing,
    Operation,
    Page,
)
from nodeagent.entries import Ledger, Step
from nodeagent.journal import Journal
from tests.soak.faults import Faults
from tests.soak.flat import Change, ignore
from tests.soak.loop import Loop
from tests.soak.stories import NODES, populate
from tests.soak.world import World, host

T = TypeVar("T")

CALL_SECONDS = 30


class Etcd:
    """A real etcd behind plain calls. What a transaction did is read back, not believed."""

    def __init__(self, endpoint: str) -> None:
        self.on_commit: Callable[[list[Change]], None] = ignore
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._items: dict[str, KeyValue] = {}
        self._store = self._wait(self._open(endpoint))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._wait(self._store.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def clear(self) -> None:
        """Deletes everything."""
        self.on_commit = ignore
        self._wait(self._store.transact([], [DeletePrefix(keys.ROOT)]))
        self._items = {}

    @property
    def items(self) -> Mapping[str, KeyValue]:
        """Everything by key, as of the last transaction."""
        return self._items

    def get_many(self, keys: Sequence[str]) -> tuple[tuple[KeyValue | None, ...], int]:
        """Reads keys."""
        return self._wait(self._store.get_many(keys))

    def list(self, prefix: str) -> Listing:
        """Reads all keys of a prefix."""
        return self._wait(self._store.list(prefix))

    def page(self, prefix: str, *, limit: int, start_key: str, revision: int) -> Page:
        """Reads some keys of a prefix."""
        return self._wait(
            self._store.page(prefix, limit=limit, start_key=start_key, revision=revision)
        )

    def head(self) -> int:
        """The last revision."""
        return self._wait(self._store.head())

    def transact(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> Committed:
        """Applies all operations if all compares hold."""
        committed = self._wait(self._store.transact(compares, operations))
        if committed.succeeded:
            before, self._items = (
                self._items,
                {item.key: item for item in self._wait(self._store.list(keys.ROOT)).items},
            )
            changed = [
                Change(key, before.get(key), self._items.get(key))
                for key in sorted(before.keys() | self._items.keys())
                if before.get(key) != self._items.get(key)
            ]
            if changed:
                self.on_commit(changed)
        return committed

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(CALL_SECONDS)

    async def _open(self, endpoint: str) -> EtcdStore:
        return EtcdStore([endpoint])


class JournalFile:
    """A journal on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._journal = Journal(path)

    def write(self, step: Step) -> None:
        """One transaction of SQLite."""
        self._journal.apply(step)

    def load(self) -> Ledger:
        """Forgets the journal and opens the file."""
        self._journal.close()
        self._journal = Journal(self._path)
        return self._journal.ledger


class Machines:
    """Makes clusters on one etcd; every node has a journal file of its own."""

    def __init__(self, etcd: Etcd, folder: Path) -> None:
        self._etcd = etcd
        self._folder = folder
        self._numbers = itertools.count()

    def __call__(self, layout: str, faults: Faults, loop: Loop) -> World:
        """A cluster of a layout. Chance and faults are left as they are."""
        chance, choose = random.getstate(), loop.choose
        self._etcd.clear()
        # A cluster at rest has stopped the faults.
        plan, faults.paused, loop.choose = faults.stop(), True, lambda count: count - 1
        hosts = [host(node, i) for i, node in enumerate(NODES)]
        for machine in hosts:
            machine.book = self.journal()
        world = World(self._etcd, hosts, faults, loop)
        world.journal = self.journal
        populate(world, layout)
        faults.begin(plan)
        loop.choose = choose
        loop.steps = 0
        random.setstate(chance)
        return world

    def journal(self) -> JournalFile:
        """A fresh journal."""
        return JournalFile(self._folder / f"journal-{next(self._numbers)}.db")
