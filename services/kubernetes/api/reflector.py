"""Follows all objects of a kind: the I/O around `reflecting`.

    async for event in Reflector(client, PODS, decoder.decode).events():
        match event:
            case Replaced(): ...
            case Upserted(): ...
            case Removed(): ...
            case Unreadable(): ...

It never ends by itself and never raises for what a server does. While the consumer is busy nothing
is read: the server's buffer is the queue, and a consumer that is too slow gets a new list.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar

from deltaplane.errors import DeltaplaneError, Unavailable
from deltaplane.runtime import log
from services.kubernetes.api.changes import Event, Removed, Replaced, Unreadable, Upserted
from services.kubernetes.api.client import Client
from services.kubernetes.api.lines import Lines
from services.kubernetes.api.reflecting import (
    Counts,
    Encoded,
    GetChunk,
    OpenWatch,
    Reflection,
    Settings,
    Wait,
)
from services.kubernetes.api.resource import Resource
from services.kubernetes.api.types import HasMetadata

__all__ = [
    "Counts",
    "Event",
    "Reflector",
    "Removed",
    "Replaced",
    "Settings",
    "Unreadable",
    "Upserted",
]

K = TypeVar("K", bound=HasMetadata)

_LOGGED_FAILURES = 3
"""In a row; one is what every server restart looks like."""


class Reflector(Generic[K]):
    """One kind of one server."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        decode: Callable[[Encoded], K],
        *,
        settings: Settings | None = None,
        selector: str = "",
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Asks nothing before `events` is iterated.

        Args:
            client: of the server.
            resource: the kind; a custom one may be missing.
            decode: one object from its JSON; raises msgspec.DecodeError or Invalid.
            settings: None: the defaults.
            selector: only objects with such fields, as in "spec.signerName=example.com/x".
            pause: waits that many seconds.
            chance: gives numbers in [0, 1).
        """
        self._client = client
        self._resource = resource
        self._selector = {"fieldSelector": selector} if selector else {}
        self._pause = pause
        self._core = Reflection(
            str(resource), decode, chance, optional=resource.custom, settings=settings
        )

    @property
    def synced(self) -> bool:
        """A complete list has been handed on, and nothing has been missed since."""
        return self._core.synced

    @property
    def counts(self) -> Counts:
        """What has happened so far."""
        return self._core.counts

    async def events(self) -> AsyncGenerator[Event[K], None]:
        """Everything there is, then everything that changes, for ever."""
        failures = 0
        while True:
            failure: DeltaplaneError | None = None
            try:
                async with contextlib.aclosing(self._step()) as events:
                    async for event in events:
                        failures = 0
                        yield event
            except DeltaplaneError as error:
                failure = error
            if failure is None:
                continue
            failures += 1
            say = log.get().warning if failures >= _LOGGED_FAILURES else log.get().info
            say("watch_failed", kind=str(self._resource), reason=str(failure), failures=failures)
            if (told := self._core.failed(failure)) is not None:
                yield told

    async def _step(self) -> AsyncGenerator[Event[K], None]:
        match self._core.next():
            case Wait() as step:
                await self._pause(step.seconds)
            case GetChunk() as step:
                body = await self._client.page(self._resource, step.params | self._selector)
                if (event := self._core.chunk(body)) is not None:
                    yield event
            case OpenWatch() as step:
                async with contextlib.aclosing(self._watch(step)) as events:
                    async for event in events:
                        yield event

    async def _watch(self, step: OpenWatch) -> AsyncGenerator[Event[K], None]:
        began = time.monotonic()
        lines = Lines()
        opening = self._client.watch(
            self._resource,
            step.params | self._selector,
            silence_seconds=step.silence_seconds,
        )
        async with opening as chunks:
            self._core.opened()
            async for chunk in chunks:
                for line in lines.feed(chunk):
                    if (event := self._core.line(line)) is not None:
                        yield event
                if time.monotonic() - began > step.longest_seconds:
                    raise Unavailable(f"watch {self._resource}: the server does not end it")
        self._core.ended(time.monotonic() - began)
