"""One replica of the bridge: it follows the cluster always, and writes while it leads."""

import asyncio
from collections.abc import Callable

import grpc.aio
import msgspec

from deltaplane.runtime.clock import Clock
from services.kubernetes import metrics
from services.kubernetes.api.client import Client
from services.kubernetes.api.events import Reporter
from services.kubernetes.api.reflector import Reflector, Settings
from services.kubernetes.books import Books
from services.kubernetes.conditions import GatedPods, NodeConditions
from services.kubernetes.feed import Feed, Observer
from services.kubernetes.kinds import Kind, Object
from services.kubernetes.patching import GateKeeper, NodeWatcher
from services.kubernetes.problems import Problems
from services.kubernetes.repository import Repository
from services.kubernetes.telling import tell
from services.kubernetes.writing import AUDIT_SECONDS, Writer

CONTROLLER = "deltaplane.dev/bridge"
GAUGE_SECONDS = 2.0


class Bridge:
    """What one replica is made of.

    Attributes:
        books: what is wanted and what is stored.
        problems: what cannot be programmed as it is.
        is_active: it writes.
    """

    def __init__(
        self,
        client: Client,
        registry: grpc.aio.Channel,
        clock: Clock,
        *,
        kinds: tuple[Kind, ...] = tuple(Kind),
        slicer: grpc.aio.Channel | None = None,
        instance: str = "bridge",
        audit_seconds: float = AUDIT_SECONDS,
        clears_nodes: bool = True,
        tells: bool = True,
    ) -> None:
        """Makes one.

        Args:
            client: of the API server.
            registry: channel to the endpoint registry.
            clock: where the time comes from.
            kinds: that are watched.
            slicer: channel to slicers, for readiness gates; None: gates stay closed.
            instance: name of this replica in Events.
            audit_seconds: how often the registry is listed again.
            clears_nodes: NetworkUnavailable of nodes is set to False.
            tells: Events are created.
        """
        self.books = Books()
        self.problems = Problems()
        self.is_active = False
        self._client = client
        self._clock = clock
        self._kinds = kinds
        self._reporter = Reporter(controller=CONTROLLER, instance=instance)
        self._tells = tells
        self._audit_seconds = audit_seconds
        self._repository = Repository(registry)
        self._nodes = NodeConditions()
        self._clears_nodes = clears_nodes
        self._pods = GatedPods()
        self._slicer = slicer
        self._wake = asyncio.Event()
        observers: dict[Kind, Observer] = {Kind.NODE: self._nodes, Kind.POD: self._pods}
        self._feed = Feed(self.books, self.problems, observers, self._wake.set)

    def wake(self) -> None:
        """Something has changed."""
        self._wake.set()

    async def follow(self, settings: Settings | None = None) -> None:
        """Keeps the books up to date, until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for kind in self._kinds:
                decoder = msgspec.json.Decoder(kind.type)
                reflector: Reflector[Object] = Reflector(
                    self._client, kind.resource, decoder.decode, settings=settings
                )
                tasks.create_task(self._feed.follow(kind, reflector.events()))
            tasks.create_task(self._measure())

    async def lead(self, may_write: Callable[[], bool]) -> None:
        """Writes, until it is cancelled or may not write any more."""
        self.is_active = True
        try:
            async with asyncio.TaskGroup() as tasks:
                background = [tasks.create_task(self._watch_nodes())]
                if self._tells:
                    telling = tell(self.problems, self._client, self._reporter, self._clock)
                    background.append(tasks.create_task(telling))
                if self._slicer is not None:
                    gates = GateKeeper(
                        self._pods, self._client, self._repository, self._slicer, self._clock
                    )
                    background.append(tasks.create_task(gates.run()))
                await self._writer(may_write).run()
                for task in background:
                    task.cancel()
        finally:
            self.is_active = False

    @property
    def is_ready(self) -> bool:
        """Whether it knows the cluster and, if it writes, the registry."""
        wanted = (Kind.NAMESPACE, Kind.POD)
        ledgers = [self.books[kind] for kind in wanted]
        return all(
            ledger.is_listed and (ledger.is_adopted or not self.is_active) for ledger in ledgers
        )

    def _writer(self, may_write: Callable[[], bool]) -> Writer:
        return Writer(
            self.books,
            self._repository,
            self._clock,
            problems=self.problems,
            may_write=may_write,
            wake=self._wake,
            audit_seconds=self._audit_seconds,
        )

    async def _watch_nodes(self) -> None:
        seen = self._nodes if self._clears_nodes else NodeConditions()
        watcher = NodeWatcher(self.books, self._repository, self._client, seen, self._clock)
        await watcher.run(self._wake)

    async def _measure(self) -> None:
        while True:
            metrics.ACTIVE.set(self.is_active)
            for kind, ledger in self.books.ledgers.items():
                word = kind.word
                sweep = ledger.sweep
                metrics.OBJECTS.labels(word).set(len(ledger.wanted))
                metrics.STORED.labels(word).set(len(ledger.stored))
                metrics.PENDING.labels(word).set(ledger.pending)
                metrics.HELD.labels(word).set(sweep.entries if sweep else 0)
                metrics.REFUSED.labels(word).set(len(ledger.refused))
                metrics.UNPROGRAMMED.labels(word).set(len(self.problems.of(kind)))
            await asyncio.sleep(GAUGE_SECONDS)
