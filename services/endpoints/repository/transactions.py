"""Pieces of which transactions are made."""

from collections.abc import Iterator, Sequence

from deltaplane.store.port import Absent, Compare, CreatedAt, KeyValue, Put, Unchanged

MAX_PUTS = 100
MAX_BYTES = 1024 * 1024
"""Values of one transaction; etcd's own limit on a request is 1.5 MiB by default."""


def as_read(key: str, found: KeyValue | None) -> Compare:
    """Holds while a key is exactly as it was read, be it absent."""
    return Absent(key) if found is None else Unchanged(key, found.mod_revision)


def alive(key: str, found: KeyValue | None) -> Compare:
    """Holds while a key is the one that was read, whatever was written to it meanwhile."""
    return Absent(key) if found is None else CreatedAt(key, found.create_revision)


def batches(puts: Sequence[Put]) -> Iterator[Sequence[Put]]:
    """Cuts puts into transactions, in order."""
    start = size = 0
    for position, put in enumerate(puts):
        if position - start == MAX_PUTS or (position > start and size + len(put.value) > MAX_BYTES):
            yield puts[start:position]
            start, size = position, 0
        size += len(put.value)
    if start < len(puts):
        yield puts[start:]
