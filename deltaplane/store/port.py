"""What Deltaplane needs of etcd.

Linearisable reads, compare-and-swap transactions, watches, leases.

Keys are text, values bytes. Every call has a deadline of its own; a failure to reach the store
within it is `deltaplane.errors.Unavailable`. A transaction that ended with Unavailable may have
been applied: callers compare on an owner token so that repeating it is safe.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

MAX_TRANSACTION_OPERATIONS = 100
"""Puts, deletes and compares of one transaction; etcd's own limit is 128 by default."""

MAX_PARTS = 64
MAX_PART_OPERATIONS = 60
"""Puts, deletes and compares of each part. etcd takes from its limit, 128, what lies around it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValue:
    """A stored key. lease: 0 when there is none."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Absent:
    """Holds if the key does not exist."""

    key: str


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Holds if the key exists with exactly this mod revision."""

    key: str
    mod_revision: int


@dataclass(frozen=True, slots=True)
class CreatedAt:
    """Holds if the key exists with exactly this create revision."""

    key: str
    create_revision: int


Compare = Absent | Unchanged | CreatedAt


@dataclass(frozen=True, slots=True)
class Put:
    """Writes a key. lease: 0 for none."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Deletes a key; nothing happens if it does not exist."""

    key: str


@dataclass(frozen=True, slots=True)
class DeletePrefix:
    """Deletes every key that starts with prefix; prefix is not empty."""

    prefix: str


Operation = Put | Delete | DeletePrefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Operations that are applied if their own compares hold, whatever becomes of other parts."""

    compares: Sequence[Compare]
    operations: Sequence[Operation]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedParts:
    """Outcome of a transaction of parts.

    Attributes:
        succeeded: for each part whether it has been applied.
        revision: the store's revision after it.
    """

    succeeded: tuple[bool, ...]
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """Outcome of a transaction.

    Attributes:
        succeeded: False: the compares did not hold and nothing was written.
        revision: the store's revision after it.
    """

    succeeded: bool
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All keys of a prefix at one revision, ascending by key."""

    items: tuple[KeyValue, ...]
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some keys of a prefix at one revision, ascending. next_key: None on the last page."""

    items: tuple[KeyValue, ...]
    revision: int
    next_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A write to one key.

    Attributes:
        key: the key.
        value: None: the key was deleted.
        create_revision: of the key written; 0 for a deletion.
        mod_revision: of the write.
    """

    key: str
    value: bytes | None
    create_revision: int
    mod_revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchBatch:
    """Events in revision order, whole revisions only.

    Without events it is a progress mark: everything through revision has been delivered.
    """

    revision: int
    events: tuple[Event, ...]


class Store(Protocol):
    """The port. One suite, tests/contract/store, is its contract."""

    async def get(self, key: str, *, revision: int = 0) -> KeyValue | None:
        """Reads one key, linearisably when revision is 0, else as of that revision."""
        ...

    async def get_many(self, keys: Sequence[str]) -> tuple[tuple[KeyValue | None, ...], int]:
        """Reads keys (at most MAX_TRANSACTION_OPERATIONS) at one revision, and that revision."""
        ...

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        """Reads all keys of a prefix, in pages of 2,000 at one revision.

        Raises:
            Compacted: the revision is gone.
        """
        ...

    async def page(
        self, prefix: str, *, limit: int, start_key: str = "", revision: int = 0
    ) -> Page:
        """Reads up to limit keys of a prefix from start_key on, as of revision (0: now).

        Raises:
            Compacted: the revision is gone.
        """
        ...

    async def transact(
        self, compares: Sequence[Compare], operations: Sequence[Operation]
    ) -> Committed:
        """Applies all operations if all compares hold, else none."""
        ...

    async def transact_parts(self, parts: Sequence[Part]) -> CommittedParts:
        """Applies the parts whose compares hold, all at one revision.

        All compares are about the state before it: no part sees what another one writes. So no two
        parts write or delete the same key.
        """
        ...

    def watch(self, prefix: str, *, after: int) -> AsyncIterator[WatchBatch]:
        """Yields every write to keys of a prefix with mod revision > after.

        It reconnects by itself. Idle, it yields a progress mark at least every second.

        Raises:
            Compacted: writes after `after` are gone; list again.
        """
        ...

    async def head(self) -> int:
        """The store's revision, linearisably."""
        ...

    async def grant_lease(self, ttl_seconds: int) -> int:
        """A new lease. The caller keeps it alive with keep_alive."""
        ...

    async def keep_alive(self, lease: int) -> bool:
        """Renews a lease once; False when it has expired."""
        ...

    async def revoke_lease(self, lease: int) -> None:
        """Ends a lease and deletes its keys."""
        ...

    async def close(self) -> None:
        """Ends all watches and connections."""
        ...
