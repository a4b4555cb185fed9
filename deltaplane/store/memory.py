"""The store in memory: a fake that passes the contract suite of the port, for tests.

It keeps every version of every key until `compact`, so that reads at a revision, watches from a
revision and compaction behave as etcd's do. It is not durable and serves one event loop.
"""

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from deltaplane.errors import Compacted, Invalid, NotFound, Unavailable
from deltaplane.runtime.clock import Clock, SystemClock
from deltaplane.store.port import (
    Absent,
    Committed,
    CommittedParts,
    Compare,
    CreatedAt,
    Delete,
    DeletePrefix,
    Event,
    KeyValue,
    Listing,
    Operation,
    Page,
    Part,
    Put,
    Unchanged,
    WatchBatch,
)
from deltaplane.store.transaction import check, check_keys, check_parts

PROGRESS_SECONDS = 0.5
"""Pause between progress marks of an idle watch."""

_FIRST_REVISION = 1
"""That of an empty etcd."""

_mod_revision: Callable[[Event], int] = attrgetter("mod_revision")


@dataclass(slots=True)
class _Versions:
    """What a key was, ascending by revision. None: deleted at that revision."""

    revisions: list[int] = field(default_factory=list)
    values: list[KeyValue | None] = field(default_factory=list)

    def at(self, revision: int) -> KeyValue | None:
        position = bisect_right(self.revisions, revision)
        return self.values[position - 1] if position else None

    def write(self, revision: int, value: KeyValue | None) -> None:
        self.revisions.append(revision)
        self.values.append(value)

    def compact(self, revision: int) -> None:
        keep = max(0, bisect_right(self.revisions, revision) - 1)
        if self.values[keep] is None and self.revisions[keep] <= revision:
            keep += 1
        del self.revisions[:keep], self.values[:keep]


@dataclass(slots=True)
class _Lease:
    ttl_seconds: int
    expires: float
    keys: set[str] = field(default_factory=set)


class MemoryStore:
    """An etcd of one process. See `deltaplane.store.port.Store` for the calls.

    Attributes:
        available: test hook: while False every call raises Unavailable and watches are silent.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.available = True
        self._clock = clock or SystemClock()
        self._revision = _FIRST_REVISION
        self._compacted = 0
        self._keys: dict[str, _Versions] = {}
        self._ordered: list[str] = []
        self._log: list[Event] = []
        self._leases: dict[int, _Lease] = {}
        self._last_lease = 0
        self._changed = asyncio.Event()
        self._closed = False
        self._lose_answer = False

    # --- test hooks -------------------------------------------------------------------------------

    def compact(self, revision: int) -> None:
        """Forgets history before revision.

        Raises:
            Invalid: the revision is in the future.
        """
        if revision > self._revision:
            raise Invalid("revision", f"{revision} is in the future")
        self._compacted = max(self._compacted, revision)
        del self._log[: bisect_left(self._log, revision, key=_mod_revision)]
        for key, versions in list(self._keys.items()):
            versions.compact(revision)
            if not versions.revisions:
                del self._keys[key]
                self._ordered.remove(key)
        self._wake()

    def lose_next_answer(self) -> None:
        """The next transaction is applied but ends with Unavailable, as when the server dies."""
        self._lose_answer = True

    # --- reads ------------------------------------------------------------------------------------

    async def get(self, key: str, *, revision: int = 0) -> KeyValue | None:
        """Reads one key."""
        check_keys((key,))
        self._enter()
        return self._at(key, self._readable(revision))

    async def get_many(self, keys: Sequence[str]) -> tuple[tuple[KeyValue | None, ...], int]:
        """Reads keys at one revision."""
        check_keys(keys)
        self._enter()
        return tuple(self._at(key, self._revision) for key in keys), self._revision

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        """Reads all keys of a prefix."""
        self._enter()
        at = self._readable(revision)
        return Listing(items=tuple(self._scan(prefix, prefix, at)), revision=at)

    async def page(
        self, prefix: str, *, limit: int, start_key: str = "", revision: int = 0
    ) -> Page:
        """Reads some keys of a prefix."""
        if limit < 1:
            raise Invalid("limit", f"{limit} is less than 1")
        self._enter()
        at = self._readable(revision)
        items: list[KeyValue] = []
        for item in self._scan(prefix, max(prefix, start_key), at):
            if len(items) == limit:
                return Page(items=tuple(items), revision=at, next_key=item.key)
            items.append(item)
        return Page(items=tuple(items), revision=at, next_key=None)

    async def head(self) -> int:
        """The last revision."""
        self._enter()
        return self._revision

    # --- writes -----------------------------------------------------------------------------------

    async def transact(
        self, compares: Sequence[Compare], operations: Sequence[Operation]
    ) -> Committed:
        """Applies all operations if all compares hold."""
        check(compares, operations)
        self._enter()
        succeeded = all(self._holds(compare) for compare in compares)
        if succeeded:
            self._apply(operations)
        self._answer()
        return Committed(succeeded=succeeded, revision=self._revision)

    async def transact_parts(self, parts: Sequence[Part]) -> CommittedParts:
        """Applies the parts whose compares hold."""
        check_parts(parts)
        self._enter()
        succeeded = tuple(all(map(self._holds, part.compares)) for part in parts)
        self._apply(
            [
                operation
                for part, holds in zip(parts, succeeded, strict=True)
                if holds
                for operation in part.operations
            ]
        )
        self._answer()
        return CommittedParts(succeeded=succeeded, revision=self._revision)

    async def grant_lease(self, ttl_seconds: int) -> int:
        """Makes a lease."""
        if ttl_seconds < 1:
            raise Invalid("ttl_seconds", f"{ttl_seconds} is less than 1")
        self._enter()
        self._last_lease += 1
        self._leases[self._last_lease] = _Lease(ttl_seconds, self._clock.now() + ttl_seconds)
        return self._last_lease

    async def keep_alive(self, lease: int) -> bool:
        """Renews a lease."""
        self._enter()
        held = self._leases.get(lease)
        if held is None:
            return False
        held.expires = self._clock.now() + held.ttl_seconds
        return True

    async def revoke_lease(self, lease: int) -> None:
        """Ends a lease."""
        self._enter()
        self._end_lease(lease)

    async def close(self) -> None:
        """Ends all watches; later calls raise Unavailable."""
        self._closed = True
        self._wake()

    # --- watches ----------------------------------------------------------------------------------

    async def watch(self, prefix: str, *, after: int) -> AsyncIterator[WatchBatch]:
        """Yields writes after a revision."""
        cursor = after
        while not self._closed:
            if self.available:
                self._expire_leases()
                if cursor + 1 < self._compacted:
                    raise Compacted(self._compacted)
                start = bisect_right(self._log, cursor, key=_mod_revision)
                events = tuple(e for e in self._log[start:] if e.key.startswith(prefix))
                cursor = max(cursor, self._revision)
                if events:
                    yield WatchBatch(revision=events[-1].mod_revision, events=events)
                    continue
            if not await self._wait_for_change() and self.available and not self._closed:
                # Not the store's revision: a write may come between the end of the pause and here.
                yield WatchBatch(revision=cursor, events=())

    async def _wait_for_change(self) -> bool:
        """False when a pause passed without one."""
        now = self._clock.now()
        next_expiry = min((lease.expires for lease in self._leases.values()), default=now + 1)
        changed = self._changed
        try:
            async with asyncio.timeout(max(0.0, min(PROGRESS_SECONDS, next_expiry - now))):
                await changed.wait()
        except TimeoutError:
            return False
        return True

    # --- inside -----------------------------------------------------------------------------------

    def _enter(self) -> None:
        if self._closed or not self.available:
            raise Unavailable("the store is away")
        self._expire_leases()

    def _answer(self) -> None:
        if self._lose_answer:
            self._lose_answer = False
            raise Unavailable("the answer was lost")

    def _wake(self) -> None:
        # A fresh event each time: every waiter of the old one wakes, none can miss the next.
        self._changed.set()
        self._changed = asyncio.Event()

    def _readable(self, revision: int) -> int:
        if revision == 0:
            return self._revision
        if revision < self._compacted:
            raise Compacted(self._compacted)
        if revision > self._revision:
            raise Invalid("revision", f"{revision} is in the future")
        return revision

    def _at(self, key: str, revision: int) -> KeyValue | None:
        versions = self._keys.get(key)
        return versions.at(revision) if versions else None

    def _scan(self, prefix: str, start: str, revision: int) -> Iterator[KeyValue]:
        for position in range(bisect_left(self._ordered, start), len(self._ordered)):
            key = self._ordered[position]
            if not key.startswith(prefix):
                return
            item = self._at(key, revision)
            if item is not None:
                yield item

    def _holds(self, compare: Compare) -> bool:
        current = self._at(compare.key, self._revision)
        match compare:
            case Absent():
                return current is None
            case Unchanged(_, mod_revision):
                return current is not None and current.mod_revision == mod_revision
            case CreatedAt(_, create_revision):
                return current is not None and current.create_revision == create_revision

    def _apply(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            if isinstance(operation, Put) and operation.lease not in {0, *self._leases}:
                raise NotFound(f"lease {operation.lease}")
        revision = self._revision + 1
        before = len(self._log)
        for operation in operations:
            match operation:
                case Put():
                    self._put(operation, revision)
                case Delete(key):
                    self._delete(key, revision)
                case DeletePrefix(prefix):
                    for item in list(self._scan(prefix, prefix, revision)):
                        self._delete(item.key, revision)
        if len(self._log) > before:
            self._revision = revision
            self._wake()

    def _put(self, operation: Put, revision: int) -> None:
        key = operation.key
        current = self._at(key, revision)
        written = KeyValue(
            key=key,
            value=operation.value,
            create_revision=current.create_revision if current else revision,
            mod_revision=revision,
            lease=operation.lease,
        )
        self._detach(current)
        if operation.lease:
            self._leases[operation.lease].keys.add(key)
        self._write(key, written, revision)

    def _delete(self, key: str, revision: int) -> None:
        current = self._at(key, revision)
        if current is not None:
            self._detach(current)
            self._write(key, None, revision)

    def _detach(self, current: KeyValue | None) -> None:
        if current is not None and current.lease in self._leases:
            self._leases[current.lease].keys.discard(current.key)

    def _write(self, key: str, value: KeyValue | None, revision: int) -> None:
        if key not in self._keys:
            self._keys[key] = _Versions()
            insort(self._ordered, key)
        self._keys[key].write(revision, value)
        self._log.append(
            Event(
                key=key,
                value=value.value if value else None,
                create_revision=value.create_revision if value else 0,
                mod_revision=revision,
            )
        )

    def _expire_leases(self) -> None:
        now = self._clock.now()
        for number in [n for n, lease in self._leases.items() if lease.expires <= now]:
            self._end_lease(number)

    def _end_lease(self, number: int) -> None:
        lease = self._leases.get(number)
        if lease is not None:
            self._apply([Delete(key) for key in sorted(lease.keys)])
            del self._leases[number]
