"""Changes: what happened to one object of the stream."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from deltaplane.model.objects import EndpointObject, Kind, StreamObject

ObjectKey = tuple[Kind, bytes]
"""(kind, canonical key): names one object of the stream."""


@dataclass(frozen=True, slots=True)
class Upsert:
    """An object is there with this value.

    Attributes:
        value: the whole object.
        generation: revision of its last write; see objects.DERIVED_KINDS for derived kinds.
        traceparent: W3C traceparent while the change is sampled; empty otherwise. Travels for
            endpoints only.
    """

    value: StreamObject
    generation: int
    traceparent: str = ""

    @property
    def kind(self) -> Kind:
        """Of the object."""
        return self.value.kind

    @property
    def object_key(self) -> ObjectKey:
        """Which object."""
        return self.value.kind, self.value.key


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """An object is gone; never an empty upsert.

    Attributes:
        kind: its kind.
        key: its canonical key.
        generation: revision of the removal.
        incarnation: of the endpoint that is removed; 0 for other kinds.
        left_span: the object lives on, but this agent need not know it any more.
    """

    kind: Kind
    key: bytes
    generation: int
    incarnation: int = 0
    left_span: bool = False

    @property
    def object_key(self) -> ObjectKey:
        """Which object."""
        return self.kind, self.key


Change = Upsert | Removal


def incarnation_of(value: StreamObject) -> int:
    """The incarnation that a removal of this object must name; 0 for kinds without one."""
    return value.incarnation if isinstance(value, EndpointObject) else 0


@dataclass(frozen=True, slots=True)
class Recorded:
    """A change with what a merge must know about the time before it.

    Attributes:
        change: what happened.
        before: the object before; None: it was not there.
        fragment: the change encoded, to be used in a piece with the base revision of its frame;
            empty as long as it is not.
    """

    change: Change
    before: StreamObject | None
    fragment: bytes = b""


def merge(history: Iterable[Recorded]) -> list[Recorded]:
    """The shortest history with the same outcome: one change for each object, in their order.

    What was created and removed inside vanishes. A removal names the incarnation that was there
    before the history, because that is what its readers hold. Merges of merges are merges.
    """
    before: dict[ObjectKey, StreamObject | None] = {}
    last: dict[ObjectKey, Recorded] = {}
    for recorded in history:
        key = recorded.change.object_key
        before.setdefault(key, recorded.before)
        last.pop(key, None)  # a survivor stands where it happened last
        last[key] = recorded
    return [
        survivor
        for key, recorded in last.items()
        if (survivor := _since(before[key], recorded)) is not None
    ]


def _since(before: StreamObject | None, last: Recorded) -> Recorded | None:
    """The last change of an object as a reader from before the history must see it."""
    if isinstance(last.change, Upsert):
        return Recorded(last.change, before, last.fragment)
    if before is None:
        return None
    incarnation = incarnation_of(before)
    if incarnation == last.change.incarnation:
        return Recorded(last.change, before, last.fragment)
    return Recorded(replace(last.change, incarnation=incarnation), before)
