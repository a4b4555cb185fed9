"""The steps by which the maps of services change: values that print. Pure.

Every prefix is safe: what a frontend names is there, and is what was valid before or is after.

    1. source ranges, members, slots      below a frontend's count a slot changes in place
    2. tables                             atomic each; they name slots that are there
    3. frontends                          atomic each; then those that go
    4. after the grace period             what nothing refers to any more
    5. forgetting                         what the kernel remembers of backends that are gone
"""

from dataclasses import dataclass, fields
from typing import TypeVar

from nodeagent.dataplane.balancing import (
    Backend,
    Frontend,
    FrontendKey,
    Member,
    Slot,
    SourceRange,
)
from nodeagent.services.drafts import Draft, PlaceKey

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class SetSources:
    """Ranges that may use load balancers' addresses."""

    sources: tuple[SourceRange, ...]


@dataclass(frozen=True, slots=True)
class SetMembers:
    """Backends that clients may keep."""

    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class SetSlots:
    """Places of lists."""

    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class WriteTables:
    """Lists with their backends, by address and port, and places: tables follow from them."""

    tables: tuple[tuple[int, tuple[tuple[Backend, int], ...]], ...]


@dataclass(frozen=True, slots=True)
class SetFrontends:
    """New or changed frontends."""

    frontends: tuple[Frontend, ...]


@dataclass(frozen=True, slots=True)
class DeleteFrontends:
    """Frontends that go."""

    keys: tuple[FrontendKey, ...]


@dataclass(frozen=True, slots=True)
class Synchronize:
    """Waits until no program runs on what was replaced."""


@dataclass(frozen=True, slots=True)
class DeleteSlots:
    """Places that no frontend counts and no table names."""

    places: tuple[PlaceKey, ...]


@dataclass(frozen=True, slots=True)
class DeleteMembers:
    """Backends that clients may not keep any more."""

    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class DeleteTables:
    """Tables of lists that no frontend names."""

    list_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DeleteSources:
    """Ranges that are none any more."""

    sources: tuple[SourceRange, ...]


@dataclass(frozen=True, slots=True)
class ForgetBackends:
    """(protocol, backend) that no list of that protocol holds."""

    gone: tuple[tuple[int, Backend], ...]


Step = (
    SetSources
    | SetMembers
    | SetSlots
    | WriteTables
    | SetFrontends
    | DeleteFrontends
    | Synchronize
    | DeleteSlots
    | DeleteMembers
    | DeleteTables
    | DeleteSources
    | ForgetBackends
)


def steps(draft: Draft) -> tuple[Step, ...]:
    """A draft in a safe order; without steps that do nothing."""
    slots = [
        Slot(list_id, place, backend)
        for (list_id, place), backend in draft.slots.items()
        if backend is not None
    ]
    before: list[Step] = [
        SetSources(_with(draft.sources, wanted=True)),
        SetMembers(_with(draft.members, wanted=True)),
        SetSlots(tuple(slots)),
        WriteTables(
            tuple(
                (list_id, tuple(places.in_turn()))
                for list_id, places in draft.tables.items()
                if places is not None
            )
        ),
        SetFrontends(tuple(f for f in draft.frontends.values() if f is not None)),
        DeleteFrontends(tuple(key for key, f in draft.frontends.items() if f is None)),
    ]
    after: list[Step] = [
        DeleteSlots(tuple(key for key, backend in draft.slots.items() if backend is None)),
        DeleteMembers(_with(draft.members, wanted=False)),
        DeleteTables(tuple(key for key, places in draft.tables.items() if places is None)),
        DeleteSources(_with(draft.sources, wanted=False)),
    ]
    after = [step for step in after if not _is_empty(step)]
    forgetting = ForgetBackends(tuple(sorted(draft.gone)))
    ordered = [*before, *([Synchronize()] if after else []), *after, forgetting]
    return tuple(step for step in ordered if not _is_empty(step))


def _with(words: dict[K, bool], *, wanted: bool) -> tuple[K, ...]:
    return tuple(key for key, word in words.items() if word is wanted)


def _is_empty(step: Step) -> bool:
    names = [item.name for item in fields(step)]
    return bool(names) and not getattr(step, names[-1])
