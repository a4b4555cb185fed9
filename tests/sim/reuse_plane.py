"""The control plane of `reuse_world`: a store and slicer replicas."""

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any, Protocol

from deltaplane.errors import NotFound, Unavailable
from deltaplane.store import keys
from deltaplane.store.memory import MemoryStore
from deltaplane.store.port import Event
from services.slicer.fanout import Fanout, Session
from services.slicer.feed import Feed
from services.slicer.progress import Progress
from services.slicer.repository import LEASE_SECONDS, Replica, Repository
from services.slicer.wire import record_from_store

STALE_AFTER = 20.0
FRESH_SECONDS = 1.5
"""An agent is up to date when it has acknowledged all that was written up to so long ago."""

CONTACT_SECONDS = 4.0
"""A replica counts again when it has been in contact with the store for so long."""


class VirtualClock:
    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def wall_ns(self) -> int:
        return int(self.time * 1e9)


class Etcd(MemoryStore):
    """The store, and when it had which revision."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self._times: list[float] = []
        self._revisions: list[int] = []
        self._time = clock

    @property
    def revision(self) -> int:
        return self._revision

    def note(self) -> None:
        self._times.append(self._time.now())
        self._revisions.append(self._revision)

    def revision_at(self, time: float) -> int:
        position = bisect_right(self._times, time)
        return self._revisions[position - 1] if position else 0

    def forget_before(self, time: float) -> None:
        position = max(0, bisect_right(self._times, time) - 1)
        del self._times[:position], self._revisions[:position]

    def written(self, prefix: str, after: int, through: int) -> list[Event]:
        self._expire_leases()
        start = bisect_right(self._log, after, key=lambda event: event.mod_revision)
        return [
            event
            for event in self._log[start:]
            if event.mod_revision <= through and event.key.startswith(prefix)
        ]


class Line:
    """A replica's way to the store."""

    def __init__(self, store: Etcd) -> None:
        self._store = store
        self.up = True

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)

        async def guarded(*arguments: Any, **options: Any) -> Any:
            if not self.up:
                raise Unavailable("cut off")
            return await call(*arguments, **options)

        return guarded


class Served(Protocol):
    """An agent's stream at a replica."""

    broken: bool

    def serve(self, now: float) -> None: ...

    def end(self) -> None: ...


@dataclass(eq=False)
class Slicer:
    """A replica. Times are those until which something is wrong with it."""

    name: str
    store: Etcd
    clock: VirtualClock
    line: Line = field(init=False)
    fanout: Fanout = field(init=False)
    progress: Progress = field(init=False)
    stalled_until: float = 0.0
    cut_until: float = 0.0
    state_late_until: float = 0.0
    progress_late_until: float = 0.0
    contact_since: float = 0.0
    lives: int = 0

    @property
    def runs(self) -> bool:
        return self.clock.now() >= self.stalled_until

    @property
    def in_contact(self) -> bool:
        """For long enough to have told the store of its agents, and to know the store's writes."""
        return self.clock.now() >= self.contact_since + CONTACT_SECONDS

    async def start(self) -> None:
        self.lives += 1
        self.line = Line(self.store)
        self.streams: list[Served] = []
        self.repository = Repository(self.line)
        self._replica = Replica(f"{self.name}-{self.lives}", "")
        # Every address is mapped everywhere: nothing is harder to take back.
        self._feed = Feed(self.repository, self._replica, self.clock, is_scoped=False)
        self.fanout = await self._feed.start()
        self._lease_at = float("-inf")
        self.progress = Progress(
            self.repository,
            self.fanout,
            self._replica.server_id,
            self.clock,
            lease=lambda: self._feed.lease,
            stale_after=STALE_AFTER,
        )
        await self._relist_progress()
        self.contact_since = self.clock.now()

    async def _relist_progress(self) -> None:
        items, revision = await self.repository.progress()
        self.progress.take_listing(items, revision)

    async def run(self) -> None:
        """What the loops of the process do until the next moment."""
        now = self.clock.now()
        if not self.runs:
            self.contact_since = now
            return
        self.line.up = now >= self.cut_until
        if not self.line.up or now < max(self.state_late_until, self.progress_late_until):
            self.contact_since = now
        if self.line.up:
            await self._watch(now)
        if self.fanout.cut_at() is not None:
            self.fanout.cut(now=now, wall_ns=self.clock.wall_ns())
        for stream in self.streams.copy():
            stream.serve(now)
        try:
            await self._keep_lease(now)
            await self.progress.step()
        except (Unavailable, NotFound):
            self.progress._published = None

    async def _watch(self, now: float) -> None:
        store = self.store
        if now >= self.state_late_until:
            if self.fanout.scanned + 1 < store._compacted:
                listing = await self.repository.listing()
                self.fanout.relist(listing.records, listing.revision, wall_ns=self.clock.wall_ns())
            events = store.written(keys.STATE, self.fanout.scanned, store.revision)
            records = tuple(record_from_store(event) for event in events)
            # A watch delivers whole revisions, and only then that nothing else happened.
            if records:
                self.fanout.take(records, records[-1].generation, wall_ns=self.clock.wall_ns())
            self.fanout.take((), store.revision, wall_ns=self.clock.wall_ns())
            self.fanout.quarantine.free(self.fanout.sender.passed()[0])
        if now >= self.progress_late_until:
            if self.progress.board.revision + 1 < store._compacted:
                await self._relist_progress()
            seen = store.written(keys.PROGRESS, self.progress.board.revision, store.revision)
            self.progress.take(seen, store.revision)

    async def _keep_lease(self, now: float) -> None:
        if now < self._lease_at + LEASE_SECONDS / 4:
            return
        self._lease_at = now
        feed = self._feed
        if not feed.lease or not await self.repository.keep_alive(feed.lease):
            feed.lease = 0
            feed.lease = await self.repository.announce(self._replica)

    def is_fresh(self, session: Session) -> bool:
        """Whether its agent has acknowledged all but the very last writes."""
        effective = self.fanout.sender.effective(session.reader)
        return effective >= self.store.revision_at(self.clock.now() - FRESH_SECONDS)
