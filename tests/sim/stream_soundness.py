"""Whether what an agent holds is what it should be: values, generations, digests, references."""

from collections.abc import Iterable

from deltaplane.delta.changes import ObjectKey, Upsert
from deltaplane.delta.digest import as_bytes, hash_object
from deltaplane.delta.receiver import BarrierReached
from deltaplane.delta.view import Held, View
from deltaplane.model.objects import (
    DERIVED_KINDS,
    EndpointObject,
    Kind,
    StreamObject,
    SubjectPolicy,
)
from tests.sim.stream_oracle import EVERYTHING, History, Objects, sets_named
from tests.sim.violation import require


def is_generation_right(held: Held[StreamObject], revision: int, history: History | None) -> bool:
    """Whether an object came with what was written last; derived ones come with anything."""
    key = held.value.kind, held.value.key
    return (
        held.value.kind in DERIVED_KINDS
        or history is None
        or held.generation == history.generation_at(key, revision)
    )


def summed_up(view: View, keys: Iterable[ObjectKey]) -> bytes:
    """The digest of what is held of these."""
    found = (held for key in keys if (held := view.get(key)))
    return as_bytes(sum(hash_object(held.value, held.generation) for held in found))


def is_sound(barrier: BarrierReached, expected: Objects, history: History) -> bool:
    """Whether a view holds just this, and its digest is that of what it should hold."""
    view = barrier.view
    if {(held.value.kind, held.value.key): held.value for held in view} != expected:
        return False
    anew = View()
    for held in view:
        if not is_generation_right(held, barrier.revision, history):
            return False
        anew.apply(Upsert(held.value, held.generation))
    return anew.digest.root == view.digest.root


def check_closure(objects: Objects, node: int) -> None:
    """Everything that is named is there."""
    for value in objects.values():
        if isinstance(value, EndpointObject):
            name = value.identity.to_bytes(4)
            require((Kind.IDENTITY, name) in objects, "closure: identity")
            require((Kind.NODE, value.node_index.to_bytes(4)) in objects, "closure: node")
            if node in (EVERYTHING, value.node_index):
                require((Kind.SUBJECT_POLICY, name) in objects, "closure: policy")
        elif isinstance(value, SubjectPolicy):
            for key in sets_named(value):
                require((Kind.PEER_SET, key) in objects, "closure: peer set")
