"""One replica of the bridge: it follows the cluster always, and writes while it leads."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass

import grpc.aio
import msgspec

from deltaplane.runtime.clock import Clock
from services.kubernetes import metrics
from services.kubernetes.api.client import Client
from services.kubernetes.api.events import Reporter
from services.kubernetes.api.reflector import Reflector, Settings
from services.kubernetes.books import Books
from services.kubernetes.certifying import Authority, Certifier
from services.kubernetes.conditions import GatedPods, NodeConditions
from services.kubernetes.feed import Feed, Observer
from services.kubernetes.kinds import Kind, Object
from services.kubernetes.patching import LOOK_SECONDS, POLL_SECONDS, GateKeeper, NodeWatcher
from services.kubernetes.problems import Problems
from services.kubernetes.repository import Repository
from services.kubernetes.telling import tell
from services.kubernetes.writing import AUDIT_SECONDS, Writer

CONTROLLER = "deltaplane.dev/bridge"
GAUGE_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a replica works. Times in seconds.

    Attributes:
        kinds: that are watched.
        instance: name of this replica in Events.
        audit_seconds: how often the registry is listed again.
        poll_seconds: how often it is asked for its nodes.
        look_seconds: how often pods are looked for that wait at their gates.
        clears_nodes: NetworkUnavailable of nodes is set to False.
        tells: Events are created.
        authority: who makes nodes' certificates; None: not we.
    """

    kinds: tuple[Kind, ...] = tuple(Kind)
    instance: str = "bridge"
    audit_seconds: float = AUDIT_SECONDS
    poll_seconds: float = POLL_SECONDS
    look_seconds: float = LOOK_SECONDS
    clears_nodes: bool = True
    tells: bool = True
    authority: Authority | None = None


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
        slicer: grpc.aio.Channel | None = None,
        options: Options | None = None,
    ) -> None:
        """Makes one.

        Args:
            client: of the API server.
            registry: channel to the endpoint registry.
            clock: where the time comes from.
            slicer: channel to slicers, for readiness gates; None: gates stay closed.
            options: None: the defaults.
        """
        self.books = Books()
        self.problems = Problems()
        self.is_active = False
        self._client = client
        self._clock = clock
        self._slicer = slicer
        self._options = options or Options()
        self._repository = Repository(registry)
        self._nodes = NodeConditions()
        self._pods = GatedPods()
        self._wake = asyncio.Event()
        observers: dict[Kind, Observer] = {Kind.NODE: self._nodes, Kind.POD: self._pods}
        self._certifier: Certifier | None = None
        if self._options.authority is not None:
            authority = self._options.authority
            self._certifier = Certifier(client, authority, self._node_uids, clock)
        self._feed = Feed(self.books, self.problems, observers, self._wake.set)

    def wake(self) -> None:
        """Something has changed."""
        self._wake.set()

    async def follow(self, settings: Settings | None = None) -> None:
        """Keeps the books up to date, until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for kind in self._options.kinds:
                decoder = msgspec.json.Decoder(kind.type)
                reflector: Reflector[Object] = Reflector(
                    self._client, kind.resource, decoder.decode, settings=settings
                )
                tasks.create_task(self._feed.follow(kind, reflector.events()))
            if self._certifier is not None:
                tasks.create_task(self._certifier.follow(settings))
            tasks.create_task(self._measure())

    async def lead(self, may_write: Callable[[], bool]) -> None:
        """Writes, until it is cancelled or may not write any more."""
        self.is_active = True
        try:
            async with asyncio.TaskGroup() as tasks:
                background = [tasks.create_task(it) for it in self._background(may_write)]
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
            audit_seconds=self._options.audit_seconds,
        )

    def _node_uids(self) -> dict[str, str] | None:
        """UID of each node by name; None: not known yet."""
        ledger = self.books[Kind.NODE]
        return {key: it.uid for key, it in ledger.wanted.items()} if ledger.is_listed else None

    def _background(self, may_write: Callable[[], bool]) -> Iterator[Coroutine[None, None, None]]:
        """What a leader does besides writing the registry."""
        options = self._options
        seen = self._nodes if options.clears_nodes else NodeConditions()
        nodes = NodeWatcher(self.books, self._repository, self._client, seen, self._clock)
        yield nodes.run(self._wake, options.poll_seconds)
        if options.tells:
            reporter = Reporter(controller=CONTROLLER, instance=options.instance)
            yield tell(self.problems, self._client, reporter, self._clock)
        if self._slicer is not None:
            gates = GateKeeper(
                self._pods, self._client, self._repository, self._slicer, self._clock
            )
            yield gates.run(options.look_seconds)
        if self._certifier is not None:
            yield self._certifier.run(may_write)

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
