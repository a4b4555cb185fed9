"""Digests of a view: 256 buckets and a root, each the sum mod 2^128 of the hashes of its objects.

A sum can be kept while objects come and go, in any order, at the cost of one hash for each change.
"""

import hashlib
import struct
import zlib

from deltaplane.delta.canonical import canonical
from deltaplane.model.objects import DERIVED_KINDS, Kind, StreamObject

BUCKETS = 256
_MODULUS = 1 << 128


def bucket_of(kind: Kind, key: bytes) -> int:
    """The bucket, 0..255, of an object."""
    return zlib.crc32(key, kind) % BUCKETS


def hash_object(value: StreamObject, generation: int) -> int:
    """H(key, generation, value), 0..2^128-1; the generation of derived kinds does not count."""
    counted = 0 if value.kind in DERIVED_KINDS else generation
    key = value.key
    data = struct.pack(">BBQ", value.kind, len(key), counted) + key + canonical(value)
    return int.from_bytes(hashlib.blake2b(data, digest_size=16).digest(), "little")


def as_bytes(total: int) -> bytes:
    """A sum of hashes as it travels: 16 bytes little endian."""
    return (total % _MODULUS).to_bytes(16, "little")


class Digest:
    """The sums of one view."""

    def __init__(self) -> None:
        self._buckets = [0] * BUCKETS

    def add(self, value: StreamObject, generation: int) -> None:
        """Counts an object in."""
        self._shift(value, hash_object(value, generation))

    def subtract(self, value: StreamObject, generation: int) -> None:
        """Takes an object out that was counted in with the same value and generation."""
        self._shift(value, -hash_object(value, generation))

    def set_bucket(self, bucket: int, total: int) -> None:
        """Replaces the sum of a bucket by one that was computed from its objects."""
        self._buckets[bucket] = total % _MODULUS

    def bucket(self, bucket: int) -> int:
        """Sum of a bucket."""
        return self._buckets[bucket]

    def _shift(self, value: StreamObject, amount: int) -> None:
        bucket = bucket_of(value.kind, value.key)
        self._buckets[bucket] = (self._buckets[bucket] + amount) % _MODULUS

    @property
    def root(self) -> bytes:
        """Sum of all buckets: 16 bytes little endian."""
        return as_bytes(sum(self._buckets))

    @property
    def buckets(self) -> tuple[bytes, ...]:
        """256 digests of 16 bytes, little endian."""
        return tuple(bucket.to_bytes(16, "little") for bucket in self._buckets)
