"""Pages of slices, put together from what was encoded when a member changed last.

That is why a listing costs little, however many endpoints there are: not because slices were read
from somewhere else.
"""

import asyncio
from collections.abc import Iterator, Sequence

from deltaplane.delta.pieces import Pieces
from deltaplane.delta.slices import Slice
from deltaplane.delta.wire import encode_slice
from deltaplane.runtime.clock import Clock
from deltaplane.v1 import slicer_pb2

AT_ONCE = 200
"""Endpoints that are encoded before other tasks get a turn: about 2 ms."""

WARM_SHARE = 0.2
"""Of the time goes into encoding what nobody has asked for yet."""


async def page(
    slices: Sequence[Slice], pieces: Pieces, *, next_page_token: str, revision: int
) -> bytes:
    """A ListSlicesResponse; others get a turn in between: to encode all may take a second."""
    parts, encoded = [], 0
    for slice_ in slices:
        encoded += _encode(slice_, pieces)
        parts.append(slice_.listed)
        if encoded >= AT_ONCE:
            await asyncio.sleep(0)
            encoded = 0
    rest = slicer_pb2.ListSlicesResponse(next_page_token=next_page_token, revision=revision)
    return b"".join((*parts, rest.SerializeToString()))


async def warm(pieces: Pieces, clock: Clock) -> None:
    """Encodes all slices that there are, a few at a time, and ends.

    Beside a thousand streams the first listing would otherwise wait for a turn of all of them
    between any two parts: 1.5 to 4 s. Not again and again: who is never asked for a listing need
    not encode each change for one.
    """
    after: str | None = ""
    while after is not None:
        began = clock.now()
        after = _encode_some(pieces.slices.slices(after=after), pieces)
        # On a machine with more to do it takes longer, and so does the pause.
        await asyncio.sleep((clock.now() - began) * (1 / WARM_SHARE - 1))


def _encode_some(slices: Iterator[Slice], pieces: Pieces) -> str | None:
    """Encodes AT_ONCE endpoints or a little more; the last slice of them, None: of all slices."""
    encoded = 0
    for slice_ in slices:
        encoded += _encode(slice_, pieces)
        if encoded >= AT_ONCE:
            return slice_.id
    return None


def _encode(slice_: Slice, pieces: Pieces) -> int:
    """Encodes a slice for listings, if it is not; the endpoints that had to be encoded for it."""
    if slice_.listed:
        return 0
    encoded = 0 if slice_.piece else len(slice_.members)
    slice_.listed = encode_slice(slice_, pieces.members(slice_))
    return encoded
