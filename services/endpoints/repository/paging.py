"""Listings in pages, all of them at the revision of the first."""

from collections.abc import Callable

from deltaplane.errors import Invalid
from deltaplane.store.port import KeyValue, Store
from services.endpoints.wire.requests import page_token

SCAN = 2000
"""Records that are read at once when most of them may be filtered out."""


async def page(
    store: Store,
    prefix: str,
    *,
    size: int,
    start_key: str = "",
    revision: int = 0,
    keep: Callable[[KeyValue], bool] | None = None,
) -> tuple[list[KeyValue], str, int]:
    """One page: the records, the token of the next page ("": there is none), the revision.

    Args:
        store: where from.
        prefix: of the keys.
        size: records at most.
        start_key: first key of this page; "": the first of all.
        revision: that the page before showed; 0: there was none.
        keep: which records are wanted; None: all.

    Raises:
        Invalid: the token is of another listing.
        Compacted: the listing took so long that its revision is gone; begin again.
    """
    if start_key and not start_key.startswith(prefix):
        raise Invalid("page_token", "belongs to a listing with another filter")
    found: list[KeyValue] = []
    start = start_key
    while True:
        part = await store.page(
            prefix, limit=SCAN if keep else size, start_key=start, revision=revision
        )
        revision = part.revision
        for item in part.items:
            if keep is not None and not keep(item):
                continue
            if len(found) == size:
                return found, page_token(revision, item.key), revision
            found.append(item)
        if part.next_key is None:
            return found, "", revision
        if len(found) == size:
            return found, page_token(revision, part.next_key), revision
        start = part.next_key
