"""A tick: what a publisher hands over at once, and which nodes it concerns.

Pure functions of the changes and the spans after them. Whom the stream tells of it, and when, is
the sender's and the writer's affair.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from deltaplane.delta.changes import Change, Recorded, Upsert
from deltaplane.delta.span import COMMON_KINDS
from deltaplane.delta.span_index import SpanIndex
from deltaplane.model.objects import (
    EndpointObject,
    IdentityObject,
    PeerSet,
    StreamObject,
    SubjectPolicy,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """What a publisher hands over at once.

    Attributes:
        revision: the new cut.
        changes: in the order in which they happened.
        events: revisions at which the store was written to, ascending; None: not known (a new
            listing).
        oldest_change_unix_ns: when the first of them was seen.
        structural: the first revision at which something else was written than an endpoint or a new
            identity; None: nothing was. What a policy, say, brought and another one took away
            within the tick has left no trace in the changes, but another replica may have told it.
    """

    revision: int
    changes: Sequence[Change]
    events: tuple[int, ...] | None
    oldest_change_unix_ns: int
    structural: int | None = None

    @property
    def first_event(self) -> int:
        """The first revision at which something was written; 0: not known."""
        return self.events[0] if self.events else 0


@dataclass(frozen=True, slots=True)
class Relevance:
    """Which changes of a tick a node may need; what is not named it does not.

    Attributes:
        common: positions of the changes that all need.
        own: positions of the others, by node number.
        unsettled: nodes whose span may not have been the same all through the tick.
    """

    common: AbstractSet[int]
    own: Mapping[int, AbstractSet[int]]
    unsettled: AbstractSet[int]

    def of(self, node_index: int) -> list[int]:
        """Positions of what a node may need, ascending."""
        own = self.own.get(node_index)
        return sorted(self.common | own) if own else sorted(self.common)


def touches(index: SpanIndex, history: Sequence[Recorded], *, first: int) -> dict[int, int]:
    """Nodes in whose span something happened, however shortly, and the first time it did.

    Between structural writes a span changes with the node's own endpoints and with new identities
    alone. So what touched it on the way touches the span at the end, or the node is one of the
    unsettled, which all of the tick touches.

    Args:
        index: the spans at the end of the tick.
        history: what the tick changed, in the order in which it happened.
        first: the first revision of the tick.
    """
    found = dict.fromkeys(index.unsettled, first)
    for recorded in history:
        change, before = recorded.change, recorded.before
        for node in concerned(index, before, change):
            found[node] = min(found.get(node, change.generation), change.generation)
    return found


def relevance(
    index: SpanIndex, history: Sequence[Recorded], merged: Sequence[Recorded]
) -> Relevance:
    """Which of a tick's changes each node may need, so that nobody looks at all of them.

    Args:
        index: the spans at the end of the tick, and whose has changed in it.
        history: what the tick changed, in the order in which it happened.
        merged: what is left of that, and counted in positions.
    """
    position = {recorded.change.object_key: i for i, recorded in enumerate(merged)}
    common = {i for (kind, _), i in position.items() if kind in COMMON_KINDS}
    found: dict[int, set[int]] = {}
    for recorded in history:
        if (number := position.get(recorded.change.object_key)) is not None:
            for node in concerned(index, recorded.before, recorded.change):
                found.setdefault(node, set()).add(number)
    return Relevance(common, found, frozenset(index.unsettled))


def concerned(index: SpanIndex, before: StreamObject | None, change: Change) -> Iterator[int]:
    """Numbers of the nodes that a change may concern; some more than once.

    Args:
        index: the spans.
        before: what was there; None: nothing.
        change: what happened to it.
    """
    after = change.value if isinstance(change, Upsert) else None
    for value in (before, after):
        match value:
            case EndpointObject(node_index=node, identity=identity):
                yield node
                yield from index.told(identity)
            case SubjectPolicy(identity=identity):
                yield from index.enforcing(identity)
            case PeerSet(set_key=key):
                yield from index.naming(key)
            case IdentityObject(id=identity):
                yield from index.enforcing(identity)
                yield from index.told(identity)
            case _:
                pass  # what everybody is told is structural
