"""Encoded parts of a view, each encoded once for everybody who needs it and again when it changes.

a bucket       all objects of one digest bucket: what a span of everything is made of
common         nodes, blocks and pools, and part by part services and backends: some of these change
               all the time
endpoints_of   the endpoints of one identity, wherever they are, slice by slice
object         an identity, a subject policy or a peer set
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from deltaplane.delta.changes import ObjectKey, Recorded, Upsert, incarnation_of
from deltaplane.delta.digest import BUCKETS, bucket_of
from deltaplane.delta.encoder import Encoder
from deltaplane.delta.log import CHUNK_BYTES
from deltaplane.delta.slices import Slice, SliceIndex
from deltaplane.delta.span import BALANCING_KINDS, COMMON_KINDS, Scope
from deltaplane.delta.view import Held, View
from deltaplane.model.objects import EndpointObject, Kind, StreamObject

_Objects = Iterable[Held[StreamObject]]


class Pieces:
    """The pieces of a view that it follows: every change to it must come by `touch`.

    Attributes:
        encoded: how many pieces were encoded so far.
        slices: of the view's endpoints.
    """

    def __init__(self, view: View, encoder: Encoder) -> None:
        self.encoded = 0
        self._view = view
        self._encoder = encoder
        self._buckets: list[tuple[bytes, ...] | None] = [None] * BUCKETS
        self._common: tuple[bytes, ...] | None = None
        # Services and backends, by bucket: their keys, and these encoded.
        self._balanced: list[dict[ObjectKey, None]] = [{} for _ in range(BUCKETS)]
        self._balancing: list[tuple[bytes, ...] | None] = [None] * BUCKETS
        self._objects: dict[ObjectKey, bytes] = {}
        self.slices = SliceIndex()
        # Keys of endpoints by node.
        self._on: defaultdict[int, dict[bytes, None]] = defaultdict(dict)
        for held in view.endpoints.values():
            self._file(held.value, held.generation)
        for balanced in view.balancing():
            key = balanced.value.kind, balanced.value.key
            self._balanced[bucket_of(*key)][key] = None

    def touch(self, history: Iterable[Recorded]) -> None:
        """Notes what has changed in the view."""
        for recorded in history:
            change = recorded.change
            key = change.object_key
            bucket = bucket_of(*key)
            self._buckets[bucket] = None
            if key[0] in BALANCING_KINDS:
                self._balancing[bucket] = None
                if isinstance(change, Upsert):
                    self._balanced[bucket][key] = None
                else:
                    self._balanced[bucket].pop(key, None)
            elif key[0] in COMMON_KINDS:
                self._common = None
            elif key[0] is not Kind.ENDPOINT:
                self._objects.pop(key, None)
                continue
            if isinstance(recorded.before, EndpointObject):
                self._unfile(recorded.before)
            if isinstance(change, Upsert) and isinstance(change.value, EndpointObject):
                self._file(change.value, change.generation)

    def _file(self, endpoint: EndpointObject, generation: int) -> None:
        self.slices.put(endpoint, generation)
        self._on[endpoint.node_index][endpoint.key] = None

    def _unfile(self, endpoint: EndpointObject) -> None:
        self.slices.remove(endpoint.key)
        own = self._on[endpoint.node_index]
        own.pop(endpoint.key, None)
        if not own:
            del self._on[endpoint.node_index]

    # --- pieces ----------------------------------------------------------------------------------

    def everything(self) -> Iterator[bytes]:
        """The whole view, bucket by bucket."""
        for bucket in range(BUCKETS):
            yield from self.bucket(bucket)

    def bucket(self, bucket: int) -> tuple[bytes, ...]:
        """All objects of a bucket."""
        if (pieces := self._buckets[bucket]) is None:
            found = map(self._view.get, self._view.members(bucket))
            pieces = self._buckets[bucket] = self.encode(held for held in found if held)
        return pieces

    def common(self) -> Iterator[bytes]:
        """What every node is told."""
        if self._common is None:
            self._common = self.encode(self._view.topology())
        yield from self._common
        for bucket, members in enumerate(self._balanced):
            if not members:
                continue
            if (pieces := self._balancing[bucket]) is None:
                found = map(self._view.get, members)
                pieces = self._balancing[bucket] = self.encode(held for held in found if held)
            yield from pieces

    def endpoints_of(self, identity: int) -> Iterator[bytes]:
        """Endpoints of an identity."""
        return map(self.piece, self.slices.slices(identity=identity))

    def piece(self, slice_: Slice) -> bytes:
        """The members of a slice."""
        if not slice_.piece:
            slice_.piece = self._encoder.piece(slice_.generation, self._fragments(slice_))
            self.encoded += 1
        return slice_.piece

    def members(self, slice_: Slice) -> bytes:
        """The members of a slice as fields of a piece that has none but these."""
        return self.piece(slice_)[len(self._encoder.piece(slice_.generation, ())) :]

    def _fragments(self, slice_: Slice) -> list[bytes]:
        return [
            self._encoder.change(Upsert(member.endpoint, member.generation), slice_.generation)
            for member in slice_.members
        ]

    def object(self, kind: Kind, key: bytes) -> bytes:
        """One object; empty when there is none."""
        if (piece := self._objects.get((kind, key))) is None:
            held = self._view.get((kind, key))
            if held is None:
                return b""
            (piece,) = self.encode([held])
            self._objects[kind, key] = piece
        return piece

    def of(self, scope: Scope, node_index: int) -> Iterator[bytes]:
        """All that a span of a node holds."""
        yield from self.common()
        for number in scope.subjects | scope.peers:
            yield self.object(Kind.IDENTITY, number.to_bytes(4))
        for number in scope.subjects:
            yield self.object(Kind.SUBJECT_POLICY, number.to_bytes(4))
        for key in scope.peer_sets:
            yield self.object(Kind.PEER_SET, key)
        yield from self.encode(self.own_endpoints(scope, node_index))
        for number in scope.peers:
            yield from self.endpoints_of(number)

    # --- objects ---------------------------------------------------------------------------------

    def objects_of(self, scope: Scope, node_index: int) -> Iterator[Held[StreamObject]]:
        """The objects that a span of a node holds."""
        view = self._view
        yield from view.common()
        keys = [(Kind.IDENTITY, n.to_bytes(4)) for n in scope.subjects | scope.peers]
        keys += [(Kind.SUBJECT_POLICY, n.to_bytes(4)) for n in scope.subjects]
        keys += [(Kind.PEER_SET, key) for key in scope.peer_sets]
        yield from (held for key in keys if (held := view.get(key)))
        yield from self.own_endpoints(scope, node_index)
        for number in scope.peers:
            for slice_ in self.slices.slices(identity=number):
                yield from (Held(m.endpoint, m.generation) for m in slice_.members)

    def own_endpoints(self, scope: Scope, node_index: int) -> Iterator[Held[StreamObject]]:
        """Endpoints on a node, but for those that its span holds on account of their identity."""
        for key in self._on.get(node_index, ()):
            held = self._view.endpoints[key]
            if held.value.identity not in scope.peers:
                yield held

    def encode(self, objects: _Objects) -> tuple[bytes, ...]:
        """Pieces of these objects; none needs a chunk of its own unless one object does."""
        held = list(objects)
        base = max((max(i.generation, incarnation_of(i.value)) for i in held), default=0)
        fragments = [
            self._encoder.change(Upsert(item.value, item.generation), base) for item in held
        ]
        groups = grouped(fragments, CHUNK_BYTES - 128)
        self.encoded += len(groups)
        return tuple(self._encoder.piece(base, group) for group in groups)


def grouped(parts: Iterable[bytes], limit: int) -> list[list[bytes]]:
    """Consecutive parts, as many to a group as stay below limit bytes, at least one."""
    groups: list[list[bytes]] = []
    size = limit
    for part in parts:
        if size + len(part) > limit:
            groups.append([])
            size = 0
        groups[-1].append(part)
        size += len(part)
    return groups
