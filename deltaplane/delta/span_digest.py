"""The digest of everything, from which the root of any span can be told without looking at objects.

The hashes are summed up by the units that a span is made of: the endpoints of one identity, those
of one identity on one node, what everybody is told, and each identity, policy and peer set alone.
"""

from collections import defaultdict
from typing import TypeVar

from deltaplane.delta.changes import ObjectKey
from deltaplane.delta.digest import Digest, as_bytes
from deltaplane.delta.span import COMMON_KINDS, Scope
from deltaplane.model.objects import EndpointObject, Kind, StreamObject

_K = TypeVar("_K")


class SpanDigest(Digest):
    """The sums of one view, as a whole and by unit."""

    def __init__(self) -> None:
        super().__init__()
        self._common = 0
        self._endpoints_of: defaultdict[int, int] = defaultdict(int)
        self._endpoints_on: defaultdict[tuple[int, int], int] = defaultdict(int)
        self._objects: dict[ObjectKey, int] = {}

    def _shift(self, value: StreamObject, amount: int) -> None:
        super()._shift(value, amount)
        if isinstance(value, EndpointObject):
            _add(self._endpoints_of, value.identity, amount)
            _add(self._endpoints_on, (value.node_index, value.identity), amount)
        elif value.kind in COMMON_KINDS:
            self._common += amount
        else:
            key = value.kind, value.key
            if total := self._objects.pop(key, 0) + amount:
                self._objects[key] = total

    def root_of(self, scope: Scope, node_index: int) -> bytes:
        """The root digest of a view that holds just this span of a node."""
        objects, endpoints = self._objects, self._endpoints_of
        total = self._common
        for number in scope.subjects:
            key = number.to_bytes(4)
            total += objects.get((Kind.IDENTITY, key), 0)
            total += objects.get((Kind.SUBJECT_POLICY, key), 0)
            if number not in scope.peers:
                total += self._endpoints_on.get((node_index, number), 0)
        for number in scope.peers:
            total += endpoints.get(number, 0)
            if number not in scope.subjects:
                total += objects.get((Kind.IDENTITY, number.to_bytes(4)), 0)
        for set_key in scope.peer_sets:
            total += objects.get((Kind.PEER_SET, set_key), 0)
        return as_bytes(total)


def _add(table: defaultdict[_K, int], key: _K, amount: int) -> None:
    table[key] += amount
    if not table[key]:
        del table[key]
