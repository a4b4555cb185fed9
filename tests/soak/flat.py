"""A store for millions of short lives: plain calls, one dictionary, cheap copies.

What it does is what `deltaplane.store.memory` does; test_flat.py compares the two.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from deltaplane.store.port import (
    Absent,
    Committed,
    Compare,
    CreatedAt,
    Delete,
    KeyValue,
    Listing,
    Operation,
    Page,
    Put,
    Unchanged,
)
from deltaplane.store.transaction import check


class Change(NamedTuple):
    """What a transaction did to a key."""

    key: str
    old: KeyValue | None
    new: KeyValue | None


_Changes = list[Change]
"""Inside the store `list` is a call."""


class Backend(Protocol):
    """The store's calls without waiting, and a hook that sees every write."""

    on_commit: Callable[[list[Change]], None]

    @property
    def items(self) -> Mapping[str, KeyValue]: ...

    def get_many(self, keys: Sequence[str]) -> tuple[tuple[KeyValue | None, ...], int]: ...

    def page(self, prefix: str, *, limit: int, start_key: str, revision: int) -> Page: ...

    def list(self, prefix: str) -> Listing: ...

    def transact(
        self, compares: Sequence[Compare], operations: Sequence[Operation]
    ) -> Committed: ...

    def head(self) -> int: ...


def ignore(changes: list[Change]) -> None:
    """Nobody looks."""


class FlatStore:
    """Only the present: a read at an older revision gives today's, which no caller here minds."""

    def __init__(self, items: dict[str, KeyValue] | None = None, revision: int = 1) -> None:
        self.on_commit: Callable[[list[Change]], None] = ignore
        self._items = dict(items or {})
        self._revision = revision

    @property
    def items(self) -> Mapping[str, KeyValue]:
        """Everything by key."""
        return self._items

    def fork(self) -> "FlatStore":
        """A copy that goes its own way."""
        return FlatStore(self._items, self._revision)

    def get_many(self, keys: Sequence[str]) -> tuple[tuple[KeyValue | None, ...], int]:
        """Reads keys."""
        get = self._items.get
        return tuple([get(key) for key in keys]), self._revision

    def list(self, prefix: str) -> Listing:
        """Reads all keys of a prefix."""
        items = self._items
        found = tuple([items[key] for key in sorted(items) if key.startswith(prefix)])
        return Listing(items=found, revision=self._revision)

    def page(self, prefix: str, *, limit: int, start_key: str, revision: int) -> Page:
        """Reads some keys of a prefix."""
        rest = [item for item in self.list(prefix).items if item.key >= start_key]
        following = rest[limit].key if len(rest) > limit else None
        return Page(items=tuple(rest[:limit]), revision=self._revision, next_key=following)

    def head(self) -> int:
        """The last revision."""
        return self._revision

    def transact(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> Committed:
        """Applies all operations if all compares hold."""
        check(compares, operations)
        if not all(map(self._holds, compares)):
            return Committed(succeeded=False, revision=self._revision)
        revision = self._revision + 1
        changes: _Changes = []
        for operation in operations:
            if isinstance(operation, Put):
                changes.append(self._put(operation, revision))
            elif isinstance(operation, Delete):
                self._delete(operation.key, changes)
            else:
                for key in [key for key in self._items if key.startswith(operation.prefix)]:
                    self._delete(key, changes)
        if changes:
            self._revision = revision
            self.on_commit(changes)
        return Committed(succeeded=True, revision=self._revision)

    def _holds(self, compare: Compare) -> bool:
        current = self._items.get(compare.key)
        match compare:
            case Absent():
                return current is None
            case Unchanged(_, revision):
                return current is not None and current.mod_revision == revision
            case CreatedAt(_, revision):
                return current is not None and current.create_revision == revision

    def _put(self, operation: Put, revision: int) -> Change:
        old = self._items.get(operation.key)
        new = KeyValue(
            key=operation.key,
            value=operation.value,
            create_revision=old.create_revision if old else revision,
            mod_revision=revision,
            lease=operation.lease,
        )
        self._items[operation.key] = new
        return Change(operation.key, old, new)

    def _delete(self, key: str, changes: _Changes) -> None:
        old = self._items.pop(key, None)
        if old is not None:
            changes.append(Change(key, old, None))
