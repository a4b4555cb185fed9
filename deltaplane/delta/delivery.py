"""What leads a node from one span at one revision to another span at a later one.

    old span ─── left: removals, an identity with its endpoints ──► not told any more
       │
       └─ kept: the changes since, an endpoint that moved out of the span as a removal
                                     gained: the whole content ◄── new span

The order on the wire is left, kept, gained: an endpoint that moved from an identity that was left
to one that is kept comes back with the change.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from deltaplane.delta.changes import Change, Recorded, Removal, Upsert, incarnation_of
from deltaplane.delta.encoder import Encoder
from deltaplane.delta.log import Based
from deltaplane.delta.pieces import Pieces
from deltaplane.delta.span import COMMON_KINDS, Scope
from deltaplane.model.objects import EndpointObject, Kind

_Part = tuple[int, bytes]
"""Base revision and fragment."""


class Delivery:
    """Puts pieces together for nodes. Nodes that need the same changes get the same bytes."""

    def __init__(self, encoder: Encoder, pieces: Pieces) -> None:
        self._encoder = encoder
        self._pieces = pieces
        # By the changes in them, which the log keeps as long as it has this cut.
        self._shared: dict[tuple[int, ...], list[bytes]] = {}

    def forget(self) -> None:
        """Drops what was shared: the range of changes has another end now."""
        self._shared.clear()

    def pieces(
        self,
        changes: Sequence[Based],
        *,
        revision: int,
        old: Scope,
        new: Scope,
        node_index: int,
    ) -> list[bytes]:
        """All that a node needs.

        Args:
            changes: merged, since the node's cursor; what does not concern it may be left out.
            revision: where it is led.
            old: its span at its cursor.
            new: its span at revision.
            node_index: its number.
        """
        if old == new:
            return self._kept_pieces(changes, new, node_index)
        left = [
            self._encoder.change(change, revision) for change in left_behind(old, new, revision)
        ]
        head = [self._encoder.piece(revision, left)] if left else []
        parts = (self._kept(based, old, new, node_index) for based in changes)
        kept = self._put_together(part for part in parts if part is not None)
        return [*head, *kept, *self._gained(old, new)]

    def _kept_pieces(self, changes: Sequence[Based], scope: Scope, node_index: int) -> list[bytes]:
        wanted: list[Based] = []
        moved: list[_Part] = []
        for based in changes:
            part = self._kept(based, scope, scope, node_index)
            if part is None:
                continue
            if part[1] is based.recorded.fragment:
                wanted.append(based)
            else:
                moved.append(part)
        key = tuple(map(id, wanted))
        if key not in self._shared:
            parts = [(it.base, it.recorded.fragment) for it in wanted]
            self._shared[key] = list(self._put_together(parts))
        return [*self._put_together(moved), *self._shared[key]]

    def _put_together(self, parts: Iterator[_Part] | Sequence[_Part]) -> Iterator[bytes]:
        for base, group in groupby(parts, key=itemgetter(0)):
            yield self._encoder.piece(base, [fragment for _, fragment in group])

    def _kept(self, based: Based, old: Scope, new: Scope, node_index: int) -> _Part | None:
        """A change as the node must see it; None: it need not, or gets the whole content."""
        recorded = based.recorded
        kind = recorded.change.kind
        if kind is Kind.ENDPOINT:
            change = endpoint_change(recorded, old, new, node_index)
        elif kind in COMMON_KINDS or (
            old.names(recorded.change.object_key) and new.names(recorded.change.object_key)
        ):
            change = recorded.change
        else:
            return None
        if change is None:
            return None
        if change is recorded.change:
            return based.base, recorded.fragment
        return based.base, self._encoder.change(change, based.base)

    def _gained(self, old: Scope, new: Scope) -> Iterator[bytes]:
        for number in named(new) - (named(old) - (old.peers - new.peers)):
            yield self._pieces.object(Kind.IDENTITY, number.to_bytes(4))
        for number in new.subjects - old.subjects:
            yield self._pieces.object(Kind.SUBJECT_POLICY, number.to_bytes(4))
        for key in new.peer_sets - old.peer_sets:
            yield self._pieces.object(Kind.PEER_SET, key)
        for number in new.peers - old.peers:
            yield from self._pieces.endpoints_of(number)


def named(scope: Scope) -> frozenset[int]:
    """Identities that a node with this span knows."""
    return scope.subjects | scope.peers


def endpoint_change(recorded: Recorded, old: Scope, new: Scope, node_index: int) -> Change | None:
    """A change of an endpoint as a node must see it; None: not at all.

    Args:
        recorded: the change, with what the endpoint was where the node stands.
        old: the node's span there.
        new: the node's span now.
        node_index: its number.
    """
    change, before = recorded.change, recorded.before
    was_told = before is not None and old.holds(before, node_index)
    if not isinstance(change, Upsert):
        return change if was_told else None
    value = change.value
    assert isinstance(value, EndpointObject)
    if value.node_index == node_index:
        return change
    if value.identity in new.peers:
        # One that is gained comes with all endpoints of its identity.
        return change if value.identity in old.peers else None
    if not was_told:
        return None
    assert before is not None
    return Removal(
        kind=Kind.ENDPOINT,
        key=value.key,
        generation=change.generation,
        incarnation=incarnation_of(before),
        left_span=True,
    )


def left_behind(old: Scope, new: Scope, revision: int) -> Iterator[Removal]:
    """What a node forgets because its span has changed: at this revision."""

    def left(kind: Kind, key: bytes) -> Removal:
        return Removal(kind=kind, key=key, generation=revision, left_span=True)

    for number in (named(old) - named(new)) | (old.peers - new.peers):
        yield left(Kind.IDENTITY, number.to_bytes(4))
    for number in old.subjects - new.subjects:
        yield left(Kind.SUBJECT_POLICY, number.to_bytes(4))
    for key in old.peer_sets - new.peer_sets:
        yield left(Kind.PEER_SET, key)
