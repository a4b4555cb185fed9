"""Addresses as etcd has them, for people who doubt; and pointers that are put right.

Whatever the caller has seen is looked at again here: a pointer is written or deleted only if it is
as it was seen, is wrong by the records of this moment, and none of them changes meanwhile. So a
repair may be repeated, may come late, and may meet registrations and claims.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from deltaplane.errors import Invalid
from deltaplane.store import keys
from deltaplane.store.pointers import PREFIXES, freed_prefix, pointers
from deltaplane.store.port import Delete, KeyValue, Operation, Put, Store, Unchanged
from deltaplane.store.retry import compare_and_swap
from services.endpoints.repository.cleaning import Cleaner
from services.endpoints.repository.transactions import as_read
from services.endpoints.wire.requests import page_token

LISTED = (
    keys.NODES,
    keys.POOLS,
    keys.BLOCKS,
    keys.ENDPOINTS,
    keys.SERVICES,
    *PREFIXES,
    keys.FREED_BLOCKS,
)
"""All that says who has which address, or which node port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointerRepair:
    """A pointer as somebody saw it, and what it should name.

    Attributes:
        key: the pointer.
        mod_revision: of the pointer; 0: it was absent.
        target: key of the record that it should name; empty: it should not be there.
    """

    key: str
    mod_revision: int
    target: str


class Auditor:
    """Reads everything about addresses, and repairs what points to it."""

    def __init__(self, store: Store, cleaner: Cleaner) -> None:
        self._store = store
        self._cleaner = cleaner

    async def page(
        self, size: int, start_key: str, revision: int
    ) -> tuple[Sequence[KeyValue], str, int]:
        """One page: the records, the token of the next page ("": there is none), the revision.

        Args:
            size: most records of a page.
            start_key: where the page before ended; empty for the first.
            revision: of the listing; 0: now.

        Raises:
            Invalid: the token is of another listing.
            Compacted: the listing took so long that its revision is gone; begin again.
        """
        prefixes = list(LISTED)
        if start_key:
            while prefixes and not start_key.startswith(prefixes[0]):
                del prefixes[0]
            if not prefixes:
                raise Invalid("page_token", "is not the next_page_token of a listing")
        found: list[KeyValue] = []
        for prefix in prefixes:
            # The first record beyond the page says where the next one starts.
            part = await self._store.page(
                prefix, limit=size + 1 - len(found), start_key=start_key, revision=revision
            )
            start_key, revision = "", part.revision
            found += part.items
            if len(found) > size:
                return found[:size], page_token(revision, found[size].key), revision
        return found, "", revision

    async def repair(self, repairs: Sequence[PointerRepair]) -> Sequence[str]:
        """Puts pointers right; the keys of those that were changed."""
        for index, item in enumerate(repairs):
            if not item.key.startswith((*PREFIXES, keys.FREED_BLOCKS)):
                raise Invalid(f"repairs[{index}].key", f'"{item.key}" is no pointer')
        return [
            item.key
            for item in repairs
            if await compare_and_swap(lambda item=item: self._try(item))  # type: ignore[misc]
        ]

    async def remove_leftovers(self, node: str) -> int:
        """Removes what belongs to former registrations of a node; how many endpoints."""
        return await self._cleaner.clean(node)

    async def _try(self, item: PointerRepair) -> bool | None:
        stored = await self._store.get(item.key)
        if (stored.mod_revision if stored else 0) != item.mod_revision:
            return False
        if stored is not None and stored.key.startswith(keys.FREED_BLOCKS):
            return await self._drop_freed(stored)
        # A value that is no text names nothing.
        named = stored.value.decode("utf-8", "replace") if stored else ""
        names = list(dict.fromkeys(name for name in (item.key, named, item.target) if name))
        values, _ = await self._store.get_many(names)
        found = dict(zip(names, values, strict=True))
        if stored is not None and _is_right(stored, found[named] if named else None):
            return False
        target = found.get(item.target)
        operation: Operation = Delete(item.key)
        if target is not None and item.key in pointers(target.key, target.value):
            operation = Put(item.key, target.key.encode())
        elif stored is None:
            return False
        committed = await self._store.transact(
            [as_read(name, value) for name, value in found.items()], [operation]
        )
        return True if committed.succeeded else None

    async def _drop_freed(self, stored: KeyValue) -> bool | None:
        """Deletes a mark that names no block; any other makes somebody wait, and stays."""
        if freed_prefix(stored.key) is not None:
            return False
        committed = await self._store.transact(
            [Unchanged(stored.key, stored.mod_revision)], [Delete(stored.key)]
        )
        return True if committed.succeeded else None


def _is_right(stored: KeyValue, record: KeyValue | None) -> bool:
    return record is not None and stored.key in pointers(record.key, record.value)
