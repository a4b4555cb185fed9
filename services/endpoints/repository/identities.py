"""Identities: one number for each label set, from a counter, by compare-and-swap."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from deltaplane import wire as values
from deltaplane.model.identity import Identity, LabelSet
from deltaplane.store import keys
from deltaplane.store.port import Absent, Compare, CreatedAt, Put, Store
from deltaplane.store.retry import compare_and_swap
from deltaplane.v1 import registry_pb2
from services.endpoints.identity import assign, digest
from services.endpoints.repository.transactions import as_read
from services.endpoints.wire.records import encode, with_meta

BATCH = 32
"""Label sets of one transaction: two writes each, and the counter."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """The number of a label set, and the compare by which a transaction makes sure of it."""

    number: int
    compare: Compare


class Identities:
    """Numbers for label sets.

    What etcd has acknowledged is remembered: numbers never change. Writers that use a remembered
        number
    compare its key all the same, so that a restored backup cannot make two meanings of one number.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[LabelSet, Numbered] = {}
        # Without it, callers in one process would only make each other retry on the counter.
        self._allocating = asyncio.Lock()

    async def numbers(self, label_sets: Iterable[LabelSet]) -> Mapping[LabelSet, Numbered]:
        """The numbers of label sets; those that have none get one.

        Raises:
            Exhausted: there is no number left.
        """
        wanted = tuple(dict.fromkeys(label_sets))
        if any(label_set not in self._known for label_set in wanted):
            async with self._allocating:
                missing = [label_set for label_set in wanted if label_set not in self._known]
                for start in range(0, len(missing), BATCH):
                    found = await self._find_or_allocate(missing[start : start + BATCH])
                    self._known.update(found)
        return {label_set: self._known[label_set] for label_set in wanted}

    def forget(self, label_sets: Iterable[LabelSet]) -> None:
        """Reads these again next time: a transaction that compared them has failed."""
        for label_set in label_sets:
            self._known.pop(label_set, None)

    async def list_identities(self) -> tuple[Sequence[registry_pb2.Identity], int]:
        """All identities by number, and the revision that this shows."""
        listing = await self._store.list(keys.IDENTITIES)
        return [with_meta(registry_pb2.Identity, item) for item in listing.items], listing.revision

    async def _find_or_allocate(
        self, label_sets: Sequence[LabelSet]
    ) -> Mapping[LabelSet, Numbered]:
        by_digest = {digest(label_set): label_set for label_set in label_sets}
        key_of = {name: keys.label_set(name) for name in by_digest}

        async def attempt() -> Mapping[LabelSet, Numbered] | None:
            found, _ = await self._store.get_many([keys.IDENTITY_COUNTER, *key_of.values()])
            counter, *stored = found
            known = {
                name: item for name, item in zip(by_digest, stored, strict=True) if item is not None
            }
            assignment = assign(
                tuple(by_digest),
                {name: int(item.value) for name, item in known.items()},
                0 if counter is None else int(counter.value),
            )
            created = {name: item.create_revision for name, item in known.items()}
            if assignment.fresh:
                operations = [Put(keys.IDENTITY_COUNTER, str(assignment.highest).encode())]
                for name in assignment.fresh:
                    number = assignment.numbers[name]
                    record = values.identity_to_proto(Identity(number, by_digest[name]))
                    operations.append(Put(key_of[name], str(number).encode()))
                    operations.append(Put(keys.identity(number), encode(record)))
                committed = await self._store.transact(
                    [
                        as_read(keys.IDENTITY_COUNTER, counter),
                        *(Absent(key_of[name]) for name in assignment.fresh),
                    ],
                    operations,
                )
                if not committed.succeeded:
                    return None
                created.update(dict.fromkeys(assignment.fresh, committed.revision))
            return {
                label_set: Numbered(
                    assignment.numbers[name], CreatedAt(key_of[name], created[name])
                )
                for name, label_set in by_digest.items()
            }

        return await compare_and_swap(attempt)
