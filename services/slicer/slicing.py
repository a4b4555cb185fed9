r"""Slices: hash-prefix buckets of one identity's endpoints, a pure function of the endpoints.

             300/            101 or more members: the bucket splits by the next bit of the hash
            /    \
      300/0        300/1
                   /   \
              300/10   300/11

A slice is for listing and encoding. Its id is in no change key, digest or generation: a split sends
nothing.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A bucket.

    Attributes:
        identity: of all members.
        prefix: leading bits of the members' hashes, as text; empty while there is only one slice.
        members: ascending by node index and id; never empty.
    """

    identity: int
    prefix: str
    members: tuple[Member, ...]

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


class SliceIndex:
    """Endpoints by identity; `slices` cuts them up when somebody asks."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._identity_of: dict[bytes, int] = {}
        self._members: dict[int, dict[bytes, Member]] = {}

    def put(self, endpoint: EndpointObject, generation: int) -> None:
        """Adds or replaces an endpoint."""
        self.remove(endpoint.key)
        self._identity_of[endpoint.key] = endpoint.identity
        members = self._members.setdefault(endpoint.identity, {})
        members[endpoint.key] = Member(endpoint, generation, hash_bits(endpoint.key))

    def remove(self, key: bytes) -> None:
        """Removes an endpoint; nothing happens if there is none."""
        identity = self._identity_of.pop(key, None)
        if identity is None:
            return
        members = self._members[identity]
        del members[key]
        if not members:
            del self._members[identity]

    def slices(self, *, identity: int = 0, after: str = "") -> Iterator[Slice]:
        """Slices ordered by identity, then prefix.

        Args:
            identity: only of this one; 0 for all.
            after: only those behind the slice with this id, which need not exist any more.

        Raises:
            ValueError: `after` is no id of a slice.
        """
        first, prefix = _position(after)
        for number in sorted([identity] if identity else self._members):
            if number < first or number not in self._members:
                continue
            for slice_ in self._cut(number):
                if number > first or not after or slice_.prefix > prefix:
                    yield slice_

    def _cut(self, identity: int) -> Iterator[Slice]:
        stack = [("", [(m.bits, m) for m in self._members[identity].values()])]
        while stack:
            prefix, group = stack.pop()
            if len(group) <= self._limit or len(prefix) == HASH_BITS:
                members = sorted((m for _, m in group), key=lambda m: m.endpoint.key)
                yield Slice(identity=identity, prefix=prefix, members=tuple(members))
                continue
            depth = len(prefix)
            # The stack turns the order round.
            halves = ((b, [item for item in group if item[0][depth] == b]) for b in "10")
            stack.extend((prefix + bit, half) for bit, half in halves if half)


def _position(slice_id: str) -> tuple[int, str]:
    if not slice_id:
        return 0, ""
    number, slash, prefix = slice_id.partition("/")
    if not slash or not number.isdecimal() or set(prefix) - {"0", "1"}:
        raise ValueError(f"{slice_id!r} is no id of a slice")
    return int(number), prefix
