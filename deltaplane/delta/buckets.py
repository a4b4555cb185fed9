"""What agents should hold, bucket by bucket: the digests that repairs compare and the contents."""

from collections.abc import Collection, Iterable

from deltaplane.delta.changes import ObjectKey
from deltaplane.delta.digest import BUCKETS, as_bytes, bucket_of, hash_object
from deltaplane.delta.pieces import Pieces
from deltaplane.delta.span import Scope
from deltaplane.delta.span_digest import SpanDigest
from deltaplane.delta.view import Held
from deltaplane.model.objects import StreamObject


class Buckets:
    """Of one view. is_scoped: an agent holds its span; False: everything."""

    def __init__(self, pieces: Pieces, digest: SpanDigest, *, is_scoped: bool) -> None:
        self._pieces = pieces
        self._digest = digest
        self._is_scoped = is_scoped

    def sums(self, scope: Scope, node_index: int) -> tuple[bytes, ...]:
        """The digest of each bucket of a node with this span."""
        if not self._is_scoped:
            return self._digest.buckets
        sums = [0] * BUCKETS
        for held in self._pieces.objects_of(scope, node_index):
            value = held.value
            sums[bucket_of(value.kind, value.key)] += hash_object(value, held.generation)
        return tuple(map(as_bytes, sums))

    def contents(
        self, scope: Scope, node_index: int, buckets: Collection[int]
    ) -> Iterable[tuple[int, tuple[bytes, ...]]]:
        """These buckets of a node with this span, in this order, encoded."""
        if not self._is_scoped:
            return ((bucket, self._pieces.bucket(bucket)) for bucket in buckets)
        found: dict[int, dict[ObjectKey, Held[StreamObject]]] = {b: {} for b in buckets}
        for held in self._pieces.objects_of(scope, node_index):
            key = held.value.kind, held.value.key
            if (bucket := bucket_of(*key)) in found:
                found[bucket][key] = held
        return ((bucket, self._pieces.encode(held.values())) for bucket, held in found.items())
