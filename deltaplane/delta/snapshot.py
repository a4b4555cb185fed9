"""Snapshots from cached pieces, one per digest bucket, encoded again when the bucket changes."""

from collections.abc import Iterable

from deltaplane.delta.changes import Change, ObjectKey, Upsert, incarnation_of
from deltaplane.delta.digest import BUCKETS, bucket_of
from deltaplane.delta.encoder import Encoder
from deltaplane.delta.log import CHUNK_BYTES
from deltaplane.delta.messages import SnapshotBegin, SnapshotEnd
from deltaplane.delta.view import View


class Snapshots:
    """Encodes a view once for everybody who asks at one revision, and later what has changed."""

    def __init__(self, view: View, encoder: Encoder) -> None:
        """Takes a view that it follows from now on: every change to it must come by `touch`."""
        self._view = view
        self._encoder = encoder
        self._members: list[dict[ObjectKey, None]] = [{} for _ in range(BUCKETS)]
        self._pieces: list[tuple[bytes, ...] | None] = [None] * BUCKETS
        self._messages: dict[int, tuple[bytes, ...]] = {}
        for held in view:
            key = held.value.kind, held.value.key
            self._members[bucket_of(*key)][key] = None

    def touch(self, changes: Iterable[Change]) -> None:
        """Notes what has changed in the view."""
        for change in changes:
            key = change.object_key
            bucket = bucket_of(*key)
            self._pieces[bucket] = None
            if isinstance(change, Upsert):
                self._members[bucket][key] = None
            else:
                self._members[bucket].pop(key, None)
        self._messages.clear()

    def messages(self, snapshot_id: int, revision: int) -> tuple[bytes, ...]:
        """Begin, chunks and end of a snapshot of the view, which is at this revision."""
        if snapshot_id not in self._messages:
            self._messages[snapshot_id] = self._build(snapshot_id)
        begin = SnapshotBegin(id=snapshot_id, revision=revision)
        return (self._encoder.control(begin), *self._messages[snapshot_id])

    def _build(self, snapshot_id: int) -> tuple[bytes, ...]:
        pieces = [piece for bucket in range(BUCKETS) for piece in self._bucket(bucket)]
        chunks = [
            self._encoder.chunk(snapshot_id, sequence, group)
            for sequence, group in enumerate(_grouped(pieces, CHUNK_BYTES - 64))
        ]
        end = SnapshotEnd(
            id=snapshot_id,
            chunks=len(chunks),
            objects=len(self._view),
            root_digest=self._view.digest.root,
        )
        return (*chunks, self._encoder.control(end))

    def _bucket(self, bucket: int) -> tuple[bytes, ...]:
        if (pieces := self._pieces[bucket]) is None:
            pieces = self._pieces[bucket] = self._encode(bucket)
        return pieces

    def _encode(self, bucket: int) -> tuple[bytes, ...]:
        held = [found for key in self._members[bucket] if (found := self._view.get(key))]
        base = max((max(i.generation, incarnation_of(i.value)) for i in held), default=0)
        fragments = [
            self._encoder.change(Upsert(item.value, item.generation), base) for item in held
        ]
        # A piece never needs a chunk of its own unless one object does.
        return tuple(
            self._encoder.piece(base, group) for group in _grouped(fragments, CHUNK_BYTES - 128)
        )


def _grouped(parts: Iterable[bytes], limit: int) -> list[list[bytes]]:
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
