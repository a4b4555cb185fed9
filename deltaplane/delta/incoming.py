"""A snapshot on its way in: chunks in their order, and an end that proves them."""

from deltaplane.delta.changes import Upsert
from deltaplane.delta.messages import SnapshotBegin, SnapshotChunk, SnapshotEnd, StreamBroken
from deltaplane.delta.view import View


class IncomingSnapshot:
    """One that has begun.

    Attributes:
        id: its number on this stream.
        revision: that it shows.
        view: what has come.
        verified: its end has come, and all of it is there.
    """

    def __init__(self, begin: SnapshotBegin) -> None:
        self.id, self.revision = begin.id, begin.revision
        self.view = View()
        self.verified = False
        self._chunks = 0

    def take(self, chunk: SnapshotChunk) -> None:
        """Takes the next chunk, or one that is repeated.

        Raises:
            StreamBroken: it is neither, or removes something.
        """
        if chunk.sequence < self._chunks:
            return  # repeated
        if chunk.sequence > self._chunks:
            raise StreamBroken(f"chunk {chunk.sequence} where {self._chunks} is next")
        for change in chunk.changes:
            if not isinstance(change, Upsert):
                raise StreamBroken("a removal inside a snapshot")
            self.view.apply(change)
        self._chunks += 1

    def verify(self, end: SnapshotEnd) -> bool:
        """Takes its end; False: what has come is not what was sent."""
        found = (self._chunks, len(self.view), self.view.digest.root)
        self.verified = found == (end.chunks, end.objects, end.root_digest)
        return self.verified
