"""Endpoint slices."""

from collections.abc import Sequence

from deltaplane import servicewire
from deltaplane.model.service import EndpointSlice
from deltaplane.store import keys
from deltaplane.store.port import Delete, KeyValue, Put, Store
from deltaplane.v1 import service_pb2
from services.endpoints.repository.paging import page
from services.endpoints.repository.writing import delete, write
from services.endpoints.wire.records import encode, with_meta
from services.endpoints.wire.services import PageRequest


class EndpointSlices:
    """Slices. Neither their service nor the nodes and pods that they name need exist."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def apply(
        self, slices: Sequence[EndpointSlice], traceparent: str
    ) -> tuple[list[service_pb2.EndpointSlice], int]:
        """Writes checked slices; returns them as stored, and a revision that has them all.

        Those that say what is already stored are not written: no node hears of them.
        """
        puts = []
        for item in slices:
            record = servicewire.slice_to_proto(item)
            record.traceparent = traceparent
            puts.append(Put(keys.endpoint_slice(item.namespace, item.name), encode(record)))
        stored, revision = await write(self._store, puts, same=_same)
        return [with_meta(service_pb2.EndpointSlice, item) for item in stored], revision

    async def delete(self, slices: Sequence[tuple[str, str]]) -> int:
        """Removes slices by (namespace, name); returns a revision without them."""
        return await delete(self._store, [Delete(keys.endpoint_slice(*item)) for item in slices])

    async def page(self, request: PageRequest) -> tuple[list[service_pb2.EndpointSlice], str, int]:
        """One page: the slices, the token of the next page, the revision.

        Raises:
            Invalid: the token is of another listing.
            Compacted: the listing took so long that its revision is gone; begin again.
        """

        def keep(item: KeyValue) -> bool:
            return service_pb2.EndpointSlice.FromString(item.value).service == request.name

        found, token, revision = await page(
            self._store,
            keys.endpoint_slices_of(request.namespace)
            if request.namespace
            else keys.ENDPOINT_SLICES,
            size=request.size,
            start_key=request.start_key,
            revision=request.revision,
            keep=keep if request.name else None,
        )
        return [with_meta(service_pb2.EndpointSlice, item) for item in found], token, revision


def _same(stored: KeyValue, wanted: Put) -> bool:
    return _untraced(stored.value) == _untraced(wanted.value)


def _untraced(value: bytes) -> bytes:
    record = service_pb2.EndpointSlice.FromString(value)
    record.traceparent = ""
    return encode(record)
