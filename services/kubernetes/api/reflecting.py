"""How to follow all objects of a kind, without I/O: what to ask next, and what an answer means.

```
            ┌────────────── Expired ───────────────────────────┐
            ▼                                                  │
      ┌───────────┐  bookmark "initial events end"       ┌─────┴────┐  closed, silent,
  ───►│ streaming ├─────────────────────────────────────►│ watching │  failed: resume at
      └─────┬─────┘                                      └─────▲────┘  the last version
            │ Invalid: the server has no streaming lists,      │
            │ or it ends none in two tries                     │
            ▼               last chunk                         │
      ┌───────────┐────────────────────────────────────────────┘
      │  chunks   │
      └───────────┘      NotFound anywhere: a custom kind is not there; asked again later
```

A list is handed on when it is complete, never in part: what is not in it is gone. Versions are
opaque: the last one seen is sent back, none is compared.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec

from deltaplane.errors import DeltaplaneError, Invalid, NotFound, Unavailable
from services.kubernetes.api import failures
from services.kubernetes.api.backoff import Backoff, Pauses
from services.kubernetes.api.changes import Event, Removed, Replaced, Unreadable, Upserted
from services.kubernetes.api.failures import Expired, Silent, Throttled
from services.kubernetes.api.types import (
    INITIAL_EVENTS_END,
    UNDECODABLE,
    HasMetadata,
    Key,
    Partial,
    RawEvent,
    RawList,
)

K = TypeVar("K", bound=HasMetadata)

TRIES_OF_STREAMING = 2
"""A server that does not know the word takes a streaming list for a watch, and never ends it."""

USELESS_WATCHES = 5
"""So many in a row that brought nothing, and we list again: the version they begin at may be one
that this server has never had, as after a restored backup. A sound server sends bookmarks."""

PROOFS_OF_ABSENCE = 3
"""A kind that was there is gone after so many answers in a row: one may come from something in
between that knows no API, and policies must not vanish because of that."""

SHORT_SECONDS = 5.0
"""A watch that ends sooner, with nothing said, is a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Times in seconds.

    Attributes:
        chunk: objects in a chunk of a list.
        watch: how long the server is asked to keep a watch open; up to twice this, by chance, so
            that not all kinds come back at once.
        silence: a watch that has brought nothing for so long is dropped and resumed. The server
            sends bookmarks about once a minute; where it sends none, this costs a request.
        absent: how often a kind that is not there is looked for.
        pauses: after failures.
    """

    chunk: int = 500
    watch: float = 300.0
    silence: float = 90.0
    absent: float = 30.0
    pauses: Pauses = field(default_factory=Pauses)


@dataclass(frozen=True, slots=True, kw_only=True)
class GetChunk:
    """Ask for a chunk of a list."""

    params: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWatch:
    """Open a watch.

    Attributes:
        silence_seconds: drop it when nothing has come for so long.
        longest_seconds: drop it then in any case: the server should have ended it before.
    """

    params: dict[str, str]
    silence_seconds: float
    longest_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Do nothing for so many seconds."""

    seconds: float


Step = GetChunk | OpenWatch | Wait


@dataclass(slots=True)
class Counts:
    """Since the start.

    Attributes:
        lists: complete ones.
        watches: begun ones.
        expired: times that the history was gone.
        failures: everything else that went wrong.
    """

    lists: int = 0
    watches: int = 0
    expired: int = 0
    failures: int = 0


_partial = msgspec.json.Decoder(Partial)
_event = msgspec.json.Decoder(RawEvent)
_list = msgspec.json.Decoder(RawList)

Encoded = msgspec.Raw | memoryview
"""JSON of one object, a part of what came."""

_AS_WRITTEN = tuple(
    (kind, f'{{"type":"{kind}","object":'.encode()) for kind in ("MODIFIED", "ADDED", "DELETED")
)
"""How the API server begins its lines. What follows is then the object and a brace."""

_UNDECODABLE = (*UNDECODABLE, Invalid)


class Reflection(Generic[K]):
    """The state machine of one kind. `next` says what to do; the other methods, what came of it."""

    def __init__(
        self,
        what: str,
        decode: Callable[[Encoded], K],
        chance: Callable[[], float],
        *,
        optional: bool = False,
        settings: Settings | None = None,
    ) -> None:
        """Begins with a list.

        Args:
            what: the kind, for errors: "pods".
            decode: one object from its JSON; raises msgspec.DecodeError or Invalid.
            chance: gives numbers in [0, 1).
            optional: the server may not know the kind; else NotFound is a failure like others.
            settings: None: the defaults.
        """
        self.counts = Counts()
        self.synced = False
        """A complete list has been handed on, and nothing has been missed since."""
        self._what = what
        self._decode = decode
        self._optional = optional
        self._chance = chance
        self._settings = settings or Settings()
        self._backoff = Backoff(self._settings.pauses, chance)
        self._wait = 0.0
        self._version = ""
        """Where the watch goes on; empty: a list is needed first."""
        self._can_stream = True
        # In a row: streaming lists without an end, watches without a word, answers "no such kind".
        self._unended = 0
        self._useless = 0
        self._absences = 0
        self._served = False
        self._token = ""
        self._objects: dict[Key, K] = {}
        self._unreadable: dict[Key, str] = {}
        # Of the watch that is open.
        self._open = False
        self._heard = False

    @property
    def listing(self) -> bool:
        """A list is needed, or under way."""
        return not self._version

    def next(self) -> Step:
        """What to do now."""
        if self._wait:
            seconds, self._wait = self._wait, 0.0
            return Wait(seconds=seconds)
        self._open = self._heard = False
        if not self.listing:
            return self._watch({"resourceVersion": self._version})
        if self._streaming:
            self._forget()
            initial = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
            return self._watch(initial)
        if not self._token:
            self._forget()
        rest = {"continue": self._token} if self._token else {}
        return GetChunk(params={"limit": str(self._settings.chunk)} | rest)

    def opened(self) -> None:
        """The server has accepted the watch."""
        self._open = True
        self._absences = 0
        self.counts.watches += 1

    def chunk(self, body: bytes) -> Event[K] | None:
        """A chunk of a list came; the last one makes an event.

        Raises:
            Unavailable: it is no list; to be handed to `failed`.
        """
        try:
            part = _list.decode(body)
        except _UNDECODABLE as error:
            raise Unavailable(f"list {self._what}: no list came: {error}") from error
        for item in part.items or ():
            self._collect(item)
        self._token = part.metadata.continue_
        return None if self._token else self._complete(part.metadata.resource_version)

    def line(self, line: bytes) -> Event[K] | None:
        """A line of a watch came.

        Raises:
            DeltaplaneError: the line says so, or cannot be read; to be handed to `failed`.
        """
        for kind, head in _AS_WRITTEN:
            if line.startswith(head) and line.endswith(b"}"):
                # Without looking for the end of the object first: a third of the cost.
                with contextlib.suppress(Unavailable):
                    return self._object(kind, memoryview(line)[len(head) : -1])
        try:
            event = _event.decode(line)
        except _UNDECODABLE as error:
            raise Unavailable(f"watch {self._what}: a line is not JSON: {error}") from error
        match event.type:
            case "ADDED" | "MODIFIED" | "DELETED":
                return self._object(event.type, event.object)
            case "BOOKMARK":
                return self._marked(event.object)
            case "ERROR":
                raise failures.of_event(f"watch {self._what}", bytes(event.object))
            case _:
                raise Unavailable(f"watch {self._what}: a line of type {event.type!r}")

    def ended(self, lasted_seconds: float) -> None:
        """The watch is over: closed by the server, in order."""
        if self.listing or (lasted_seconds < SHORT_SECONDS and not self._heard):
            self._failed(0.0)

    def failed(self, error: DeltaplaneError) -> Event[K] | None:
        """A request failed, or what came was of no use."""
        match error:
            case Expired():
                self.counts.expired += 1
                # At once; but lists that expire before they are read must not run in circles.
                self._wait = self._backoff.failed() if self.listing else 0.0
                self._restart()
            case NotFound() if self._optional:
                return self._missing()
            case Invalid() if self.listing and self._streaming:
                self._can_stream = False
            case Invalid():
                # Of a watch: the server makes nothing of our version.
                self._failed(0.0)
                self._restart()
            case Silent() if not self.listing:
                self._passed_uselessly()
            case Throttled():
                self._failed(error.retry_after_seconds)
            case _:
                self._failed(0.0)
        return None

    # --- inside ----------------------------------------------------------------------------------

    @property
    def _streaming(self) -> bool:
        return self._can_stream and self._unended < TRIES_OF_STREAMING

    def _watch(self, params: dict[str, str]) -> OpenWatch:
        seconds = self._settings.watch * (1 + self._chance())
        more = {"allowWatchBookmarks": "true", "timeoutSeconds": str(int(seconds))}
        silence = self._settings.silence
        return OpenWatch(
            params=params | more, silence_seconds=silence, longest_seconds=seconds + silence
        )

    def _object(self, kind: str, encoded: Encoded) -> Event[K] | None:
        """Raises Unavailable before anything is noted, if this is no object."""
        event: Event[K] | None = None
        match kind:
            case "DELETED" if self.listing:
                self._discard(encoded)
            case "DELETED":
                event = self._gone(encoded)
            case _ if self.listing:
                self._collect(encoded)
            case _:
                event = self._changed(encoded)
        self._progressed()
        return event

    def _collect(self, encoded: Encoded) -> None:
        try:
            value = self._decode(encoded)
        except _UNDECODABLE as error:
            key = self._metadata(encoded).metadata.key
            self._objects.pop(key, None)
            self._unreadable[key] = str(error)
        else:
            key = value.metadata.key
            self._objects[key] = value
            if self._unreadable:
                self._unreadable.pop(key, None)

    def _discard(self, encoded: Encoded) -> None:
        """Deleted while the initial events of a streaming list were on their way."""
        key = self._metadata(encoded).metadata.key
        self._objects.pop(key, None)
        self._unreadable.pop(key, None)

    def _changed(self, encoded: Encoded) -> Event[K]:
        try:
            value = self._decode(encoded)
        except _UNDECODABLE as error:
            metadata = self._metadata(encoded).metadata
            self._version = metadata.resource_version or self._version
            return Unreadable(key=metadata.key, reason=str(error))
        self._version = value.metadata.resource_version or self._version
        return Upserted(object=value)

    def _gone(self, encoded: Encoded) -> Event[K]:
        metadata = self._metadata(encoded).metadata
        self._version = metadata.resource_version or self._version
        try:
            return Removed(key=metadata.key, last=self._decode(encoded))
        except _UNDECODABLE:
            return Removed(key=metadata.key, last=None)

    def _marked(self, encoded: Encoded) -> Event[K] | None:
        metadata = self._metadata(encoded).metadata
        self._progressed()
        if not self.listing:
            self._version = metadata.resource_version or self._version
        elif metadata.annotations.get(INITIAL_EVENTS_END) == "true":
            return self._complete(metadata.resource_version)
        return None

    def _metadata(self, encoded: Encoded) -> Partial:
        try:
            return _partial.decode(encoded)
        except _UNDECODABLE as error:
            raise Unavailable(f"{self._what}: an object without metadata: {error}") from error

    def _complete(self, version: str) -> Event[K]:
        if not version:
            raise Unavailable(f"list {self._what}: it has no version")
        event = Replaced(
            objects=self._objects, unreadable=self._unreadable, resource_version=version
        )
        self._forget()
        self._version = version
        self._unended = self._useless = self._absences = 0
        self._served = self.synced = True
        self.counts.lists += 1
        self._backoff.succeeded()
        return event

    def _progressed(self) -> None:
        self._heard = True
        if not self.listing:
            self._useless = 0
            self._backoff.succeeded()

    def _missing(self) -> Event[K] | None:
        """The server says that it does not know the kind."""
        self._absences += 1
        if self._served and self._absences < PROOFS_OF_ABSENCE:
            self._failed(0.0)
            return None
        self._restart()
        # When it comes, it may come with a server that can do more.
        self._can_stream, self._unended, self._served = True, 0, False
        self._backoff.succeeded()
        self._wait = self._settings.absent * (1 + self._chance())
        self.synced = True
        return Replaced(objects={}, served=False)

    def _failed(self, least_seconds: float) -> None:
        """Something went wrong: waits, and does what was under way again."""
        self.counts.failures += 1
        self._wait = max(self._backoff.failed(), least_seconds)
        if self.listing:
            self._unended += self._open
        elif self._open:
            self._passed_uselessly()

    def _passed_uselessly(self) -> None:
        """A watch was dropped that had been accepted."""
        self._useless += not self._heard
        if self._useless >= USELESS_WATCHES:
            self._restart()

    def _restart(self) -> None:
        """A list is needed."""
        self._version = ""
        self._useless = 0
        self.synced = False
        self._forget()

    def _forget(self) -> None:
        self._token = ""
        self._objects = {}
        self._unreadable = {}
