"""From the events of the API server to the books: one loop a kind."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from deltaplane.runtime import log
from services.kubernetes import pods, policies, slices, wire
from services.kubernetes.api.changes import Event, Removed, Replaced, Unreadable, Upserted
from services.kubernetes.books import Books
from services.kubernetes.kinds import (
    EndpointSlice,
    Kind,
    Namespace,
    Node,
    Object,
    Pod,
    Policy,
    Service,
)
from services.kubernetes.ledger import Key, Wanted
from services.kubernetes.problems import Problems
from services.kubernetes.translating import (
    UNTOUCHED,
    Mode,
    Translation,
    failed,
    translate_namespace,
)

CHUNK = 500
"""Objects of a list that are translated before others get a turn."""


class Observer(Protocol):
    """Somebody else who follows objects of a kind."""

    def listed(self, objects: Mapping[Key, Object]) -> None:
        """These are all there are."""
        ...

    def changed(self, key: Key, item: Object | None) -> None:
        """One is there, or changed, or gone (None)."""
        ...


class Feed:
    """Keeps the books up to date."""

    def __init__(
        self,
        books: Books,
        problems: Problems,
        observers: Mapping[Kind, Observer],
        wake: Callable[[], None],
    ) -> None:
        """Makes one.

        Args:
            books: what is wanted is written there.
            problems: what cannot be programmed is written there.
            observers: who else follows a kind.
            wake: called when something may have changed.
        """
        self._books = books
        self._problems = problems
        self._observers = observers
        self._wake = wake
        self._absent: set[Kind] = set()

    async def follow(self, kind: Kind, events: AsyncIterator[Event[Object]]) -> None:
        """Until the events end."""
        async for event in events:
            await self.take(kind, event)
            self._wake()

    async def take(self, kind: Kind, event: Event[Object]) -> None:
        """One event."""
        ledger, observer = self._books[kind], self._observers.get(kind)
        match event:
            case Replaced(served=False):
                # A server that starts may not know yet what it has. Who removes the definition of a
                # kind has its objects deleted first, and a watch has told us of that.
                if kind not in self._absent:
                    self._absent.add(kind)
                    log.get().info("kind_absent", kind=kind.word)
            case Replaced():
                self._absent.discard(kind)
                wanted = await self._all(kind, event)
                self._problems.forget(kind, self._problems.of(kind) - wanted.keys())
                ledger.replace(wanted)
                if observer is not None:
                    observer.listed(event.objects)
            case Upserted():
                ledger.upsert(event.key, self._wanted(kind, event.object))
                if observer is not None:
                    observer.changed(event.key, event.object)
            case Unreadable():
                ledger.upsert(event.key, self._unreadable(kind, event.key, event.reason))
            case Removed():
                self._problems.forget(kind, (event.key,))
                ledger.remove(event.key)
                if observer is not None:
                    observer.changed(event.key, None)

    async def _all(self, kind: Kind, event: Replaced[Object]) -> dict[Key, Wanted]:
        wanted: dict[Key, Wanted] = {
            key: self._unreadable(kind, key, reason) for key, reason in event.unreadable.items()
        }
        for index, (key, item) in enumerate(event.objects.items()):
            wanted[key] = self._wanted(kind, item)
            if index % CHUNK == CHUNK - 1:
                await asyncio.sleep(0)
        return wanted

    def _unreadable(self, kind: Kind, key: Key, reason: str) -> Wanted:
        self._problems.report(kind, key, "", f"cannot be read: {reason}")
        return Wanted(None, Mode.IF_ABSENT)

    def _wanted(self, kind: Kind, item: Object) -> Wanted:
        value = None
        try:
            translation = translate(kind, item)
            if translation.record is not None:
                value = wire.encode(translation.record)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not cost all other objects
            log.get().exception("translation_failed", kind=kind.word, object=item.metadata.key)
            translation = failed(f"cannot be read: {type(error).__name__}, a bug of Deltaplane's")
        metadata = item.metadata
        self._problems.report(kind, metadata.key, metadata.uid, translation.problem)
        return Wanted(value, translation.mode, metadata.uid)


def translate(kind: Kind, item: Object) -> Translation:
    """What becomes of an object of any kind."""
    match item:
        case Pod():
            return pods.translate_pod(item)
        case EndpointSlice():
            return slices.translate_slice(item)
        case Policy():
            return policies.translate_policy(kind, item)
        case Service():
            return policies.translate_service(item)
        case Namespace():
            return translate_namespace(item)
        case Node():
            # Agents register their nodes.
            return UNTOUCHED
