"""Pages of slices, put together from what was encoded when a member changed last.

That is why a listing costs little, however many endpoints there are: not because slices were read
from somewhere else.
"""

import asyncio
from collections.abc import Sequence

from deltaplane.delta.pieces import Pieces
from deltaplane.delta.slices import Slice
from deltaplane.delta.wire import encode_slice
from deltaplane.v1 import slicer_pb2

AT_ONCE = 200
"""Endpoints that are encoded before other tasks get a turn: about 2 ms."""


async def page(
    slices: Sequence[Slice], pieces: Pieces, *, next_page_token: str, revision: int
) -> bytes:
    """A ListSlicesResponse; others get a turn in between: to encode all may take a second."""
    parts, encoded = [], 0
    for slice_ in slices:
        if not slice_.listed:
            encoded += 0 if slice_.piece else len(slice_.members)
            slice_.listed = encode_slice(slice_, pieces.members(slice_))
        parts.append(slice_.listed)
        if encoded >= AT_ONCE:
            await asyncio.sleep(0)
            encoded = 0
    rest = slicer_pb2.ListSlicesResponse(next_page_token=next_page_token, revision=revision)
    return b"".join((*parts, rest.SerializeToString()))
