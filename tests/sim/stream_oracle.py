"""The store as the oracle sees it: all writes of one lineage, and what each node should hold when.

Nothing here is shared with what is tested but the policy compiler, which has tests of its own. What
a node should hold is kept up to date write by write, as a list of versions for each node, so that a
question about any revision is a search in a list.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deltaplane.delta.changes import ObjectKey
from deltaplane.model.identity import Identity
from deltaplane.model.objects import (
    BlockObject,
    EndpointObject,
    IdentityObject,
    Kind,
    PeerSet,
    PoolObject,
    StreamObject,
    SubjectPolicy,
)
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.tiers import Policy
from deltaplane.policy.compiler import Compiler
from services.slicer.facts import Content, EndpointRecord, NodeRecord, Record
from services.slicer.watermark import Fence

Objects = dict[ObjectKey, StreamObject]
Holder = tuple[bytes, int]
"""Endpoint key and incarnation: who has an address."""

EVERYTHING = 0
"""Stands for a node that is told of everything."""


@dataclass(slots=True)
class Scope:
    """A span, as in `deltaplane.delta.span`, but made anew."""

    subjects: frozenset[int] = frozenset()
    sets: frozenset[bytes] = frozenset()
    peers: frozenset[int] = frozenset()

    def tells(self, value: StreamObject, node: int) -> bool:
        """Whether the node needs this object."""
        if isinstance(value, EndpointObject):
            return value.node_index == node or value.identity in self.peers
        if isinstance(value, IdentityObject):
            return value.id in self.subjects or value.id in self.peers
        if isinstance(value, SubjectPolicy):
            return value.identity in self.subjects
        if isinstance(value, PeerSet):
            return value.set_key in self.sets
        return True


@dataclass(slots=True)
class Versions:
    """What one node should hold: from each of these revisions on, what stands beside it."""

    scope: Scope = field(default_factory=Scope)
    since: list[int] = field(default_factory=list)
    contents: list[Objects] = field(default_factory=list)
    holders: dict[int, dict[bytes, Holder]] = field(default_factory=dict)

    def number_at(self, revision: int) -> int:
        return bisect_right(self.since, revision) - 1


def sets_named(policy: SubjectPolicy) -> set[bytes]:
    return {
        key
        for direction in (policy.ingress, policy.egress)
        for rule in direction.rules
        for key in rule.peer_sets
    }


class History:
    """One lineage of the store. Attributes: records are those since it began, in order."""

    def __init__(self, lineage: bytes, revision: int = 10) -> None:
        self.lineage = lineage
        self.start = self.revision = revision
        self.records: list[Record] = []
        self.present: dict[str, Record] = {}
        self.full: Objects = {}
        self.fences: dict[int, Fence] = {}
        self.nodes: dict[str, NodeRecord] = {}
        self.unfenced_at = 0
        self._origin: list[Record] = []
        self._compiler = Compiler()
        self._on: defaultdict[int, dict[bytes, int]] = defaultdict(dict)
        self._written: defaultdict[ObjectKey, list[int]] = defaultdict(list)
        self._known: dict[int, Versions] = {EVERYTHING: Versions(since=[0], contents=[{}])}

    def restored(self, lineage: bytes, revision: int) -> "History":
        """A store that was restored from a backup of this revision."""
        other = History(lineage, revision)
        last: dict[str, Record] = {}
        for record in self._origin + self.records:
            if record.generation <= revision:
                last[record.key] = record
        kept = sorted(
            (r for r in last.values() if r.content is not None), key=lambda r: r.generation
        )
        other._origin = kept
        for record in kept:
            other._take(record.key, record.content, record)
        other._compiled({})
        other._note(dict(other.full), revision)
        return other

    # --- writes ----------------------------------------------------------------------------------

    def write(self, *writes: tuple[str, Content | None]) -> int:
        """One transaction; its revision."""
        self.revision += 1
        changed: dict[ObjectKey, StreamObject | None] = {}
        compiles = False
        for key, content in writes:
            record = Record(key=key, generation=self.revision, content=content)
            self.records.append(record)
            old = self._take(key, content, record, changed)
            compiles |= isinstance(content or old, Identity | NetworkPolicy | Policy)
        self._note(self._compiled(changed) if compiles else changed, self.revision)
        return self.revision

    def _take(
        self,
        key: str,
        content: Content | None,
        record: Record,
        changed: dict[ObjectKey, StreamObject | None] | None = None,
    ) -> Content | None:
        """Takes one write; what was there before."""
        changed = {} if changed is None else changed
        known = self.present.pop(key, None)
        old = None if known is None else known.content
        if content is not None:
            self.present[key] = record
        self._take_unseen(content, old)
        gone, value = object_of(old), object_of(content)
        if gone is not None:
            changed[gone.kind, gone.key] = None
            self.full.pop((gone.kind, gone.key), None)
        if isinstance(gone, EndpointObject):
            del self._on[gone.node_index][gone.key]
        if value is not None:
            self.full[value.kind, value.key] = changed[value.kind, value.key] = value
            self._written[value.kind, value.key].append(record.generation)
        if isinstance(value, EndpointObject):
            self._on[value.node_index][value.key] = value.identity
        return old

    def _take_unseen(self, content: Content | None, old: Content | None) -> None:
        match content or old:
            case Fence(node_index=index):
                self.fences.pop(index, None)
                if isinstance(content, Fence):
                    self.fences[index] = content
                else:
                    self.unfenced_at = self.revision
            case NodeRecord(object=node):
                self.nodes.pop(node.name, None)
                self._known.setdefault(node.index, Versions(since=[0], contents=[{}]))
                if isinstance(content, NodeRecord):
                    self.nodes[node.name] = content
            case NetworkPolicy(reference=reference) | Policy(reference=reference):
                if content is None:
                    self._compiler.delete_policy(reference)
                else:
                    self._compiler.set_policy(content)  # type: ignore[arg-type]
            case Identity(id=number):
                if content is None:
                    self._compiler.delete_identity(number)
                else:
                    self._compiler.set_identity(content)  # type: ignore[arg-type]
            case _:
                pass

    def _compiled(
        self, changed: dict[ObjectKey, StreamObject | None]
    ) -> dict[ObjectKey, StreamObject | None]:
        found = self._compiler.flush()
        for key in found.removals:
            self.full.pop(key, None)
            changed[key] = None
        for value in found.upserts:
            self.full[value.kind, value.key] = changed[value.kind, value.key] = value
        return changed

    # --- what nodes should hold ------------------------------------------------------------------

    def _note(self, changed: Mapping[ObjectKey, StreamObject | None], revision: int) -> None:
        derived = any(kind in (Kind.PEER_SET, Kind.SUBJECT_POLICY) for kind, _ in changed)
        for node, known in self._known.items():
            if node == EVERYTHING:
                content = dict(known.contents[-1])
                self._fold(content, changed, None, node)
            elif not known.contents[-1] or (
                (derived or self._moves(changed, node)) and self.scope(node) != known.scope
            ):
                known.scope = scope = self.scope(node)
                content = {k: v for k, v in self.full.items() if scope.tells(v, node)}
            else:
                content = dict(known.contents[-1])
                self._fold(content, changed, known.scope, node)
            if content != known.contents[-1]:
                known.since.append(revision)
                known.contents.append(content)

    def _moves(self, changed: Mapping[ObjectKey, StreamObject | None], node: int) -> bool:
        name = node.to_bytes(4)
        return any(kind is Kind.ENDPOINT and key.startswith(name) for kind, key in changed)

    def _fold(
        self,
        content: Objects,
        changed: Mapping[ObjectKey, StreamObject | None],
        scope: Scope | None,
        node: int,
    ) -> None:
        for key, value in changed.items():
            if value is not None and (scope is None or scope.tells(value, node)):
                content[key] = value
            else:
                content.pop(key, None)

    def scope(self, node: int, prefetched: Iterable[int] = ()) -> Scope:
        """The span of a node now."""
        local = frozenset(self._on[node].values())
        return self._scope_in(self.full, local, prefetched)

    def _scope_in(
        self, objects: Objects, local: frozenset[int], prefetched: Iterable[int]
    ) -> Scope:
        subjects = local | frozenset(prefetched)
        sets: set[bytes] = set()
        peers: set[int] = set()
        for number in subjects:
            policy = objects.get((Kind.SUBJECT_POLICY, number.to_bytes(4)))
            if isinstance(policy, SubjectPolicy):
                named = sets_named(policy)
                sets |= named
                for key in named if number in local else ():
                    found = objects.get((Kind.PEER_SET, key))
                    if isinstance(found, PeerSet):
                        peers.update(found.identities)
        return Scope(subjects, frozenset(sets), frozenset(peers))

    def content_at(self, node: int, revision: int, prefetched: Iterable[int] = ()) -> Objects:
        """What a node should hold at a revision."""
        known = self._known[node]
        found = known.contents[known.number_at(revision)]
        if not prefetched:
            return found
        everything = self._known[EVERYTHING]
        objects = everything.contents[everything.number_at(revision)]
        local = frozenset(
            v.identity
            for v in found.values()
            if isinstance(v, EndpointObject) and v.node_index == node
        )
        scope = self._scope_in(objects, local, prefetched)
        return {key: value for key, value in objects.items() if scope.tells(value, node)}

    def is_same(self, node: int, after: int, through: int) -> bool:
        """Whether a node should hold the same at every revision of after..through."""
        known = self._known[node]
        return known.number_at(after) >= known.number_at(through)

    def generation_at(self, key: ObjectKey, revision: int) -> int:
        """When a stored object, which is there, was written last; 0: it is derived."""
        written = self._written.get(key, [])
        return written[bisect_right(written, revision) - 1] if written else 0

    def holders_at(self, node: int, revision: int) -> dict[bytes, Holder]:
        """Who has which address, as far as a node should know at a revision."""
        known = self._known[node]
        number = known.number_at(revision)
        if (found := known.holders.get(number)) is None:
            found = known.holders[number] = {
                address: (value.key, value.incarnation)
                for value in known.contents[number].values()
                if isinstance(value, EndpointObject)
                for address in value.addresses
            }
        return found

    def listing(self) -> list[Record]:
        """All that is stored now."""
        return sorted(self.present.values(), key=lambda record: record.generation)

    def written(self, after: int, through: int) -> list[Record]:
        """The writes of (after, through]."""
        start = bisect_right(self.records, after, key=lambda r: r.generation)
        end = bisect_right(self.records, through, key=lambda r: r.generation)
        return self.records[start:end]


def object_of(content: Content | None) -> StreamObject | None:
    """What a record is on the stream."""
    match content:
        case NodeRecord() | EndpointRecord():
            return content.object
        case BlockObject() | PoolObject():
            return content
        case Identity(id=number, label_set=labels):
            texts = tuple(f"{key}={value}" for key, value in labels.labels)
            return IdentityObject(id=number, namespace=labels.namespace, labels=texts)
        case _:
            return None
