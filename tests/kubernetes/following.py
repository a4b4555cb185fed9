"""Follows a kind in the background, and what a consumer would know of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from services.kubernetes.api.client import Client
from services.kubernetes.api.reflecting import Settings
from services.kubernetes.api.reflector import (
    Event,
    Reflector,
    Removed,
    Replaced,
    Unreadable,
    Upserted,
)
from services.kubernetes.api.resource import Resource
from services.kubernetes.api.types import ApiStruct, ObjectMeta
from tests.kubernetes.apiserver import ApiServer

DEADLINE_SECONDS = 20


class Thing(ApiStruct, frozen=True, kw_only=True, gc=False):
    metadata: ObjectMeta
    spec: dict[str, Any] = msgspec.field(default_factory=dict)


DECODER = msgspec.json.Decoder(Thing)


class Follower:
    """`objects` is what there is, `events` how we know, `pauses` how often we had to wait."""

    def __init__(
        self, client: Client, resource: Resource, settings: Settings | None = None
    ) -> None:
        self.objects: dict[str, Thing] = {}
        self.unreadable: dict[str, str] = {}
        self.events: list[Event[Thing]] = []
        self.pauses: list[float] = []
        self._news = asyncio.Condition()
        self.reflector = Reflector(
            client,
            resource,
            DECODER.decode,
            settings=settings,
            pause=self._pause,
            chance=lambda: 0.0,
        )

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        async with self._news:
            self._news.notify_all()
        # Real enough that a loop without an end is no busy one.
        await asyncio.sleep(0.001)

    async def run(self) -> None:
        async for event in self.reflector.events():
            self.events.append(event)
            match event:
                case Replaced():
                    self.objects = dict(event.objects)
                    self.unreadable = dict(event.unreadable)
                case Upserted():
                    self.objects[event.key] = event.object
                    self.unreadable.pop(event.key, None)
                case Removed():
                    self.objects.pop(event.key, None)
                    self.unreadable.pop(event.key, None)
                case Unreadable():
                    self.unreadable[event.key] = event.reason
            async with self._news:
                self._news.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self._news, asyncio.timeout(DEADLINE_SECONDS):
            await self._news.wait_for(condition)

    async def has(self, *keys: str) -> None:
        """Waits until it is known that exactly these objects exist."""
        await self.until(lambda: bool(self.lists) and set(self.objects) == set(keys))

    @property
    def lists(self) -> list[Replaced[Thing]]:
        return [it for it in self.events if isinstance(it, Replaced)]


@contextlib.asynccontextmanager
async def following(
    server: ApiServer, resource: Resource, settings: Settings | None = None
) -> AsyncIterator[Follower]:
    async with Client(server.connection()) as client:
        follower = Follower(client, resource, settings)
        task = asyncio.create_task(follower.run())
        try:
            yield follower
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
