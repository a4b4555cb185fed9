"""A view: the objects of the stream as they are at one revision, guarded against what is old."""

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from deltaplane.delta.changes import Change, ObjectKey, Removal, Upsert, incarnation_of
from deltaplane.delta.digest import Digest
from deltaplane.model.objects import (
    BlockObject,
    EndpointObject,
    IdentityObject,
    Kind,
    NodeObject,
    PeerSet,
    PoolObject,
    StreamObject,
    SubjectPolicy,
)

V_co = TypeVar("V_co", bound=StreamObject, covariant=True)


@dataclass(frozen=True, slots=True)
class Held(Generic[V_co]):
    """A value and the generation it came with."""

    value: V_co
    generation: int


class Outcome(enum.Enum):
    """What became of a change.

    STALE: a guard refused it, nothing happened. RENEWED: only the generation is new. CHANGED: the
    value is new, or the object is gone.
    """

    STALE = enum.auto()
    RENEWED = enum.auto()
    CHANGED = enum.auto()


class View:
    """Objects by kind and canonical key. Readers take the dicts; only `apply` writes to them."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, Held[NodeObject]] = {}
        self.blocks: dict[bytes, Held[BlockObject]] = {}
        self.identities: dict[bytes, Held[IdentityObject]] = {}
        self.endpoints: dict[bytes, Held[EndpointObject]] = {}
        self.peer_sets: dict[bytes, Held[PeerSet]] = {}
        self.subject_policies: dict[bytes, Held[SubjectPolicy]] = {}
        self.pools: dict[bytes, Held[PoolObject]] = {}
        self.digest = Digest()
        # A dict holds values of its own kind only: apply files each under value.kind.
        self._tables = cast(
            "dict[Kind, dict[bytes, Held[StreamObject]]]",
            {
                Kind.NODE: self.nodes,
                Kind.BLOCK: self.blocks,
                Kind.IDENTITY: self.identities,
                Kind.ENDPOINT: self.endpoints,
                Kind.PEER_SET: self.peer_sets,
                Kind.SUBJECT_POLICY: self.subject_policies,
                Kind.POOL: self.pools,
            },
        )

    def __len__(self) -> int:
        return sum(map(len, self._tables.values()))

    def __iter__(self) -> Iterator[Held[StreamObject]]:
        for table in self._tables.values():
            yield from table.values()

    def get(self, key: ObjectKey) -> Held[StreamObject] | None:
        """What is held of an object; None when nothing is."""
        kind, name = key
        return self._tables[kind].get(name)

    def apply(self, change: Change) -> Outcome:
        """Takes a change in unless a guard says that it is old."""
        return self._upsert(change) if isinstance(change, Upsert) else self._remove(change)

    def _upsert(self, change: Upsert) -> Outcome:
        table, key = self._tables[change.value.kind], change.value.key
        held = table.get(key)
        if held is not None:
            if change.generation <= held.generation:
                return Outcome.STALE
            self.digest.subtract(held.value, held.generation)
        table[key] = Held(change.value, change.generation)
        self.digest.add(change.value, change.generation)
        same = held is not None and held.value == change.value
        return Outcome.RENEWED if same else Outcome.CHANGED

    def _remove(self, change: Removal) -> Outcome:
        table = self._tables[change.kind]
        held = table.get(change.key)
        if (
            held is None
            or change.generation <= held.generation
            or change.incarnation != incarnation_of(held.value)
        ):
            return Outcome.STALE
        del table[change.key]
        self.digest.subtract(held.value, held.generation)
        return Outcome.CHANGED

    def differences(self, other: "View") -> set[ObjectKey]:
        """Objects whose value, or existence, is not the same in the other view."""
        changed: set[ObjectKey] = set()
        for kind, mine in self._tables.items():
            theirs = other._tables[kind]  # noqa: SLF001 - same class
            for key in mine.keys() | theirs.keys():
                left, right = mine.get(key), theirs.get(key)
                if left is None or right is None or left.value != right.value:
                    changed.add((kind, key))
        return changed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, View) and self._tables == other._tables

    __hash__ = None  # type: ignore[assignment]  # mutable
