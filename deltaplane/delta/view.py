"""A view: the objects of the stream as they are at one revision, guarded against what is old."""

import enum
from collections.abc import Iterable, Iterator, KeysView
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from deltaplane.delta.changes import Change, ObjectKey, Removal, Upsert, incarnation_of
from deltaplane.delta.digest import BUCKETS, Digest, bucket_of, hash_object
from deltaplane.model.objects import (
    BackendObject,
    BlockObject,
    EndpointObject,
    IdentityObject,
    Kind,
    NodeObject,
    PeerSet,
    PoolObject,
    ServiceObject,
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

    def __init__(self, digest: Digest | None = None) -> None:
        """Starts empty. digest: takes part in every change; None: a plain one."""
        self.nodes: dict[bytes, Held[NodeObject]] = {}
        self.blocks: dict[bytes, Held[BlockObject]] = {}
        self.identities: dict[bytes, Held[IdentityObject]] = {}
        self.endpoints: dict[bytes, Held[EndpointObject]] = {}
        self.peer_sets: dict[bytes, Held[PeerSet]] = {}
        self.subject_policies: dict[bytes, Held[SubjectPolicy]] = {}
        self.pools: dict[bytes, Held[PoolObject]] = {}
        self.services: dict[bytes, Held[ServiceObject]] = {}
        self.backends: dict[bytes, Held[BackendObject]] = {}
        self.digest = digest or Digest()
        # Keys by bucket, as soon as somebody asks for the first bucket.
        self._members: list[dict[ObjectKey, None]] | None = None
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
                Kind.SERVICE: self.services,
                Kind.BACKEND: self.backends,
            },
        )

    def __len__(self) -> int:
        return sum(map(len, self._tables.values()))

    def __iter__(self) -> Iterator[Held[StreamObject]]:
        for table in self._tables.values():
            yield from table.values()

    def common(self) -> Iterator[Held[StreamObject]]:
        """What everybody is told, whatever the span: objects of span.COMMON_KINDS."""
        yield from self.topology()
        yield from self.balancing()

    def topology(self) -> Iterator[Held[StreamObject]]:
        """Nodes, blocks and pools."""
        for table in (self.nodes, self.blocks, self.pools):
            yield from table.values()

    def balancing(self) -> Iterator[Held[StreamObject]]:
        """Services and backends: objects of span.BALANCING_KINDS."""
        for table in (self.services, self.backends):
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
        if held is None and self._members is not None:
            self._members[bucket_of(change.value.kind, key)][change.object_key] = None
        same = held is not None and held.value == change.value
        return Outcome.RENEWED if same else Outcome.CHANGED

    def _remove(self, change: Removal) -> Outcome:
        table = self._tables[change.kind]
        held = table.get(change.key)
        if held is None:
            return Outcome.STALE
        # Of what leaves a span nothing is old: the stream alone says what its reader needs.
        if not change.left_span and (
            change.generation <= held.generation or change.incarnation != incarnation_of(held.value)
        ):
            return Outcome.STALE
        self._forget(held)
        return Outcome.CHANGED

    def _forget(self, held: Held[StreamObject]) -> None:
        kind, key = held.value.kind, held.value.key
        del self._tables[kind][key]
        self.digest.subtract(held.value, held.generation)
        if self._members is not None:
            self._members[bucket_of(kind, key)].pop((kind, key), None)

    def leave(self, identity: int, node_index: int) -> list[ObjectKey]:
        """Forgets an identity and its endpoints on other nodes than this; what has gone.

        Guards are set aside: nothing of it is old, it is only no longer of use here.
        """
        gone: list[Held[StreamObject]] = [
            held
            for held in self.endpoints.values()
            if held.value.identity == identity and held.value.node_index != node_index
        ]
        if (named := self.identities.get(identity.to_bytes(4))) is not None:
            gone.append(named)
        for held in gone:
            self._forget(held)
        return [(held.value.kind, held.value.key) for held in gone]

    # --- buckets ---------------------------------------------------------------------------------

    def members(self, bucket: int) -> KeysView[ObjectKey]:
        """Keys of the objects in a bucket, 0..255."""
        return (self._members or self.file())[bucket].keys()

    def lost(self) -> set[ObjectKey]:
        """Keys of what was filed and is not held any more, though no change took it away."""
        filed = self._members or ()
        return {key for members in filed for key in members if self.get(key) is None}

    def file(self) -> list[dict[ObjectKey, None]]:
        """Sorts the keys of what is held into buckets, whatever changes have said."""
        self._members = [{} for _ in range(BUCKETS)]
        for held in self:
            key = held.value.kind, held.value.key
            self._members[bucket_of(*key)][key] = None
        return self._members

    @property
    def is_filed(self) -> bool:
        """Whether as much is held as changes have brought."""
        return self._members is None or sum(map(len, self._members)) == len(self)

    def audit(self, bucket: int) -> bool:
        """Hashes what a bucket holds anew; False: that is not what its changes summed up to.

        The sum is corrected, so that the other side finds the difference, too.
        """
        members, kept = self.members(bucket), self.digest.bucket(bucket)
        if not members and not kept:
            return True
        total = 0
        for key in members:
            if (held := self.get(key)) is not None:
                total += hash_object(held.value, held.generation)
        self.digest.set_bucket(bucket, total)
        return self.digest.bucket(bucket) == kept

    def replace_bucket(self, bucket: int, content: Iterable[Upsert]) -> set[ObjectKey]:
        """Makes a bucket hold just this, guards set aside; keys whose value or existence changed.

        Raises:
            ValueError: the content is of another bucket.
        """
        wanted = {change.object_key: change for change in content}
        if any(bucket_of(*key) != bucket for key in wanted):
            raise ValueError(f"objects of other buckets in bucket {bucket}")
        before = {key: self.get(key) for key in (*self.members(bucket), *wanted)}
        for held in before.values():
            if held is not None:
                self._forget(held)
        self.digest.set_bucket(bucket, 0)  # what is wrong in it may not be in its objects
        for change in wanted.values():
            self._upsert(change)
        return {
            key
            for key, held in before.items()
            if (held is None) != (key not in wanted)
            or (held is not None and held.value != wanted[key].value)
        }

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
