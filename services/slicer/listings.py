"""Listings of slices from encoded parts: a slice is encoded again when one of its members changes.

That is why a listing costs little, however many endpoints there are: not because slices were read
from somewhere else.
"""

import asyncio
from collections.abc import Sequence

from deltaplane.v1 import slicer_pb2
from services.slicer.slicing import Member, Slice
from services.slicer.wire import slice_to_proto

FORGOTTEN_AT = 2.0
"""Encoded slices are dropped when there are so many times as many as the last listings named."""

_AT_LEAST = 1000

AT_ONCE = 200
"""Endpoints that are encoded before other tasks get a turn: about 5 ms."""


class Listings:
    """Slices as they were encoded last, by id. Attributes: encoded: endpoints so far."""

    def __init__(self) -> None:
        self._encoded: dict[str, tuple[tuple[Member, ...], bytes]] = {}
        self._named: set[str] = set()
        self.encoded = 0

    async def page(self, slices: Sequence[Slice], *, next_page_token: str, revision: int) -> bytes:
        """A ListSlicesResponse; others get a turn in between: to encode all may take a second."""
        rest = slicer_pb2.ListSlicesResponse(next_page_token=next_page_token, revision=revision)
        parts, encoded = [], self.encoded
        for slice_ in slices:
            parts.append(self._encode(slice_))
            if self.encoded >= encoded + AT_ONCE:
                await asyncio.sleep(0)
                encoded = self.encoded
        if not next_page_token:
            self._trim()
        return b"".join((*parts, rest.SerializeToString()))

    def _encode(self, slice_: Slice) -> bytes:
        """A response with this slice alone: protobuf messages concatenate."""
        self._named.add(slice_.id)
        known = self._encoded.get(slice_.id)
        if known is not None and (known[0] is slice_.members or known[0] == slice_.members):
            return known[1]
        data = slicer_pb2.ListSlicesResponse(slices=[slice_to_proto(slice_)]).SerializeToString()
        self._encoded[slice_.id] = slice_.members, data
        self.encoded += len(slice_.members)
        return data

    def _trim(self) -> None:
        """At the end of a listing: slices that are no more are named by none."""
        if len(self._encoded) > max(_AT_LEAST, FORGOTTEN_AT * len(self._named)):
            self._encoded = {i: kept for i, kept in self._encoded.items() if i in self._named}
        self._named.clear()
