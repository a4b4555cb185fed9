r"""Slices: hash-prefix buckets of one identity's endpoints, a pure function of the endpoints.

             300/            101 or more members: the bucket splits by the next bit of the hash
            /    \
      300/0        300/1
                   /   \
              300/10   300/11

A slice is what is encoded at once, for listings and for nodes that get all endpoints of an
identity: a change costs the encoding of its slice. Its id is in no change key, digest or
generation: a split sends nothing.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from deltaplane.model.objects import EndpointObject

LIMIT = 100
"""Members of a slice at most, as in Kubernetes' EndpointSlices."""

HASH_BITS = 64


@dataclass(frozen=True, slots=True)
class Member:
    """An endpoint, its generation, and the hash of its key as binary digits."""

    endpoint: EndpointObject
    generation: int
    bits: str


@dataclass(slots=True, kw_only=True)
class Slice:
    """A bucket as it was at one time.

    Attributes:
        identity: of all members.
        prefix: leading bits of the members' hashes, as text; empty while there is only one slice.
        members: ascending by node index and id; never empty.
        piece: the members, encoded, as counted from `generation`; empty until somebody needs it.
        listed: what a listing has of it; empty until somebody lists.
    """

    identity: int
    prefix: str
    members: tuple[Member, ...]
    piece: bytes = field(default=b"", compare=False, repr=False)
    listed: bytes = field(default=b"", compare=False, repr=False)

    @property
    def id(self) -> str:
        """For example "300/0110"."""
        return f"{self.identity}/{self.prefix}"

    @property
    def generation(self) -> int:
        """Newest generation of a member."""
        return max(member.generation for member in self.members)


def hash_bits(key: bytes) -> str:
    """The hash of an endpoint's key as 64 binary digits."""
    digest = hashlib.blake2b(key, digest_size=HASH_BITS // 8).digest()
    return f"{int.from_bytes(digest):0{HASH_BITS}b}"


@dataclass(slots=True, eq=False)
class _Bucket:
    """A leaf, which is a slice, or what has been split.

    Attributes:
        prefix: leading bits of all hashes in it.
        count: members, in both halves.
        members: by key; empty once it is split.
        halves: by the next bit; None: it is a leaf.
        cut: the slice as it was last asked for; None: a member has changed since.
    """

    prefix: str
    count: int = 0
    members: dict[bytes, Member] = field(default_factory=dict)
    halves: "tuple[_Bucket, _Bucket] | None" = None
    cut: Slice | None = None

    def path(self, bits: str) -> "Iterator[_Bucket]":
        """From here to the leaf of a hash."""
        bucket = self
        yield bucket
        while bucket.halves is not None:
            bucket = bucket.halves[bits[len(bucket.prefix)] == "1"]
            yield bucket

    def leaves(self) -> "Iterator[_Bucket]":
        """Ascending by prefix; such as are empty are left out."""
        if self.halves is not None:
            for half in self.halves:
                yield from half.leaves()
        elif self.count:
            yield self

    def split(self) -> None:
        """Halves a leaf."""
        halves = _Bucket(f"{self.prefix}0"), _Bucket(f"{self.prefix}1")
        for key, member in self.members.items():
            half = halves[member.bits[len(self.prefix)] == "1"]
            half.members[key] = member
            half.count += 1
        self.members, self.halves, self.cut = {}, halves, None

    def join(self) -> None:
        """Makes it a leaf again."""
        self.members = {k: m for leaf in self.leaves() for k, m in leaf.members.items()}
        self.halves = None


class SliceIndex:
    """Endpoints by identity, cut up as they come and go; only what changes is cut again."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._identity_of: dict[bytes, int] = {}
        self._roots: dict[int, _Bucket] = {}

    def put(self, endpoint: EndpointObject, generation: int) -> None:
        """Adds or replaces an endpoint."""
        key = endpoint.key
        self.remove(key)
        self._identity_of[key] = endpoint.identity
        member = Member(endpoint, generation, hash_bits(key))
        root = self._roots.setdefault(endpoint.identity, _Bucket(""))
        for bucket in root.path(member.bits):
            bucket.count += 1
        bucket.members[key], bucket.cut = member, None
        while bucket.count > self._limit and len(bucket.prefix) < HASH_BITS:
            bucket.split()
            *_, bucket = bucket.path(member.bits)

    def remove(self, key: bytes) -> None:
        """Removes an endpoint; nothing happens if there is none."""
        identity = self._identity_of.pop(key, None)
        if identity is None:
            return
        joined: _Bucket | None = None
        for bucket in self._roots[identity].path(hash_bits(key)):
            bucket.count -= 1
            if joined is None and bucket.halves is not None and bucket.count <= self._limit:
                joined = bucket
        del bucket.members[key]
        bucket.cut = None
        if joined is not None:
            joined.join()
        if not self._roots[identity].count:
            del self._roots[identity]

    def slices(self, *, identity: int = 0, after: str = "") -> Iterator[Slice]:
        """Slices ordered by identity, then prefix.

        Args:
            identity: only of this one; 0 for all.
            after: only those behind the slice with this id, which need not exist any more.

        Raises:
            ValueError: `after` is no id of a slice.
        """
        first, prefix = _position(after)
        for number in sorted([identity] if identity else self._roots):
            if number < first or number not in self._roots:
                continue
            for leaf in self._roots[number].leaves():
                if number > first or not after or leaf.prefix > prefix:
                    yield self._slice(number, leaf)

    def _slice(self, identity: int, leaf: _Bucket) -> Slice:
        if leaf.cut is None:
            members = tuple(member for _, member in sorted(leaf.members.items()))
            leaf.cut = Slice(identity=identity, prefix=leaf.prefix, members=members)
        return leaf.cut


def _position(slice_id: str) -> tuple[int, str]:
    if not slice_id:
        return 0, ""
    number, slash, prefix = slice_id.partition("/")
    if not slash or not number.isdecimal() or set(prefix) - {"0", "1"}:
        raise ValueError(f"{slice_id!r} is no id of a slice")
    return int(number), prefix
