"""Writes conditions: nodes whose agents are up, pods that are known wherever they must be."""

import asyncio
from datetime import UTC, datetime

import grpc.aio

from deltaplane.errors import DeltaplaneError, NotFound
from deltaplane.runtime import log, rpc
from deltaplane.runtime.clock import Clock
from deltaplane.v1 import receipts_pb2, receipts_pb2_grpc, registry_pb2
from services.kubernetes import conditions, metrics
from services.kubernetes.api.client import Client
from services.kubernetes.api.resource import NODES, PODS
from services.kubernetes.books import Books
from services.kubernetes.conditions import GatedPods, NodeConditions
from services.kubernetes.kinds import Kind
from services.kubernetes.ledger import Key
from services.kubernetes.repository import Repository
from services.kubernetes.strangers import Strangers

POLL_SECONDS = 5.0
"""How often the registry is asked for its nodes."""

PATCHES_AT_ONCE = 16
WAITS_AT_ONCE = 64
"""Receipts that are followed together; more gated pods take turns."""

RECEIPT_SECONDS = 10.0
"""How long one pod's receipt is followed before another one gets its turn."""

LOOK_SECONDS = 0.5
"""How often it looks for gated pods that nobody follows yet."""


class NodeWatcher:
    """Follows the registered nodes: some are to be removed, some are up."""

    def __init__(
        self,
        books: Books,
        repository: Repository,
        client: Client,
        seen: NodeConditions,
        clock: Clock,
    ) -> None:
        self._books = books
        self._repository = repository
        self._client = client
        self._seen = seen
        self._clock = clock
        self._strangers = Strangers()

    async def run(self, wake: asyncio.Event, poll_seconds: float = POLL_SECONDS) -> None:
        """While this replica leads, until it is cancelled.

        Args:
            wake: set when the books change.
            poll_seconds: how often the registry is asked.
        """
        while True:
            try:
                answer = await self._repository.nodes()
            except DeltaplaneError as error:
                log.get().warning("registry_away", reason=str(error))
            else:
                self._adopt(answer)
                wake.set()
                await self._clear(answer)
            await asyncio.sleep(poll_seconds)

    def _adopt(self, answer: registry_pb2.ListNodesResponse) -> None:
        ledger = self._books[Kind.NODE]
        if not ledger.is_listed or ledger.is_busy:
            return
        names = {node.name for node in answer.nodes}
        admitted = self._strangers.admit(names, ledger.wanted, self._clock.now())
        ledger.adopt(dict.fromkeys(admitted, b""))

    async def _clear(self, answer: registry_pb2.ListNodesResponse) -> None:
        fenced = {fence.node for fence in answer.fences}
        due = self._seen.due({node.name for node in answer.nodes} - fenced)
        for start in range(0, len(due), PATCHES_AT_ONCE):
            await asyncio.gather(*map(self._patch, due[start : start + PATCHES_AT_ONCE]))

    async def _patch(self, name: Key) -> None:
        patch = conditions.cleared(_time(self._clock))
        try:
            await self._client.patch_status(NODES, name, patch)
        except DeltaplaneError as error:
            # It is due again at the next poll.
            log.get().warning("patch_failed", node=name, reason=str(error))
            metrics.PATCHES.labels("Node", "failed").inc()
        else:
            metrics.PATCHES.labels("Node", "done").inc()


class GateKeeper:
    """Opens the readiness gates of pods whose endpoint is known wherever it must be."""

    def __init__(
        self,
        pods: GatedPods,
        client: Client,
        repository: Repository,
        slicer: grpc.aio.Channel,
        clock: Clock,
    ) -> None:
        self._pods = pods
        self._client = client
        self._repository = repository
        self._receipts: receipts_pb2_grpc.ReceiptsAsyncStub = receipts_pb2_grpc.ReceiptsStub(slicer)
        self._clock = clock
        self._followed: dict[Key, asyncio.Task[None]] = {}

    async def run(self, look_seconds: float = LOOK_SECONDS) -> None:
        """While this replica leads, until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                for key in [key for key, task in self._followed.items() if task.done()]:
                    del self._followed[key]
                for key, uid in list(self._pods.waiting.items()):
                    if len(self._followed) >= WAITS_AT_ONCE:
                        break
                    if key not in self._followed:
                        following = self._follow(key, uid, look_seconds)
                        self._followed[key] = tasks.create_task(following)
                await asyncio.sleep(look_seconds)

    async def _follow(self, key: Key, uid: str, pause: float) -> None:
        try:
            # Another pod of that name may have left an endpoint that everybody knows.
            if uid in await self._repository.pod_uids(key) and await self._is_known(key):
                await self._open(key, uid)
                return
        except DeltaplaneError as error:
            if not isinstance(error, NotFound):
                log.get().info("receipt_open", pod=key, reason=str(error))
        # Its turn comes again; who has no endpoint yet is not asked about all the time.
        await asyncio.sleep(pause)

    async def _is_known(self, key: Key) -> bool:
        """Whether every node that must know the pod's endpoint does, or comes to in time."""
        request = receipts_pb2.WatchRequest(endpoint=key, wait=True)
        try:
            async for answer in self._receipts.Watch(request, timeout=RECEIPT_SECONDS):
                if answer.complete:
                    return True
        except grpc.aio.AioRpcError as error:
            raise rpc.translate(error) from error
        return False

    async def _open(self, key: Key, uid: str) -> None:
        namespace, _, name = key.partition("/")
        patch = conditions.ready(uid, _time(self._clock))
        try:
            await self._client.patch_status(PODS, name, patch, namespace=namespace)
        except DeltaplaneError as error:
            log.get().warning("patch_failed", pod=key, reason=str(error))
            metrics.PATCHES.labels("Pod", "failed").inc()
            return
        metrics.PATCHES.labels("Pod", "done").inc()
        # Until the watch says so itself.
        if self._pods.waiting.get(key) == uid:
            del self._pods.waiting[key]


def _time(clock: Clock) -> str:
    """RFC 3339, in seconds, as conditions have it."""
    seconds = clock.wall_ns() // 1_000_000_000
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
