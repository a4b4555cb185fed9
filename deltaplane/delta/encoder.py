"""What the sender asks of an encoding: everything is encoded once, then only put together."""

from collections.abc import Sequence
from typing import Protocol

from deltaplane.delta.changes import Change
from deltaplane.delta.messages import Control


class Encoder(Protocol):
    """The port; `deltaplane.delta.wire.ProtobufEncoder` is the adapter."""

    def change(self, change: Change, base_revision: int) -> bytes:
        """A change as a fragment of a piece; no generation exceeds the piece's base revision."""
        ...

    def piece(self, base_revision: int, fragments: Sequence[bytes]) -> bytes:
        """Fragments of one base revision put together."""
        ...

    def frame(
        self,
        previous_revision: int,
        revision: int,
        oldest_change_unix_ns: int,
        pieces: Sequence[bytes],
        *,
        continues: bool = False,
    ) -> bytes:
        """A whole frame message; continues: another frame of the same revision belongs to it."""
        ...

    def chunk(self, snapshot_id: int, sequence: int, pieces: Sequence[bytes]) -> bytes:
        """A whole snapshot chunk message."""
        ...

    def bucket(self, bucket: int, revision: int, pieces: Sequence[bytes], *, last: bool) -> bytes:
        """A whole message that replaces a bucket's content."""
        ...

    def control(self, message: Control) -> bytes:
        """A whole message without changes."""
        ...
