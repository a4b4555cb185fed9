"""The gRPC services of the slicer. The stream's messages stay bytes: they were encoded for all."""

import asyncio
from collections.abc import AsyncIterator, Container, Iterator, Sequence
from itertools import islice
from typing import Any

import grpc
import grpc.aio

from deltaplane.delta.messages import Hello, StreamBroken
from deltaplane.delta.reader import Reader
from deltaplane.delta.wire import bundled, decode_request
from deltaplane.errors import DeltaplaneError, Invalid, Refused
from deltaplane.model.objects import Kind
from deltaplane.runtime import authorising, log
from deltaplane.runtime.clock import Clock
from deltaplane.v1 import receipts_pb2, receipts_pb2_grpc, slicer_pb2
from services.slicer import listings, metrics
from services.slicer.facts import EndpointRecord
from services.slicer.fanout import Fanout, Session
from services.slicer.peers import Peers
from services.slicer.postponing import is_postponed
from services.slicer.receipts import (
    ENDPOINT_KINDS,
    POLICY_KINDS,
    Concern,
    Receipt,
    Report,
    Subject,
    holders,
    newest,
    receipt,
)
from services.slicer.refusals import Refusals
from services.slicer.repository import Repository
from services.slicer.tracing import Stages
from services.slicer.waiting import wait, watching
from services.slicer.wire import (
    agent_to_proto,
    quarantine_to_proto,
    receipt_to_proto,
    report_to_proto,
)

SLICER = slicer_pb2.DESCRIPTOR.services_by_name["Slicer"].full_name
RECEIPTS = receipts_pb2.DESCRIPTOR.services_by_name["Receipts"].full_name

HELLO_SECONDS = 5.0
"""How long a new stream may stay silent."""

ADMIT_SECONDS = 2.0
"""How long an agent may wait for this replica to learn what the agent already knows."""

DRAIN_SECONDS = 2.0
"""How long agents have to leave a stopping replica."""

PEERS_SECONDS = 0.2
"""How often a waiting receipt asks the other replicas again."""

RECEIPT_SECONDS = 0.01
"""Pause between two receipts of one call: acknowledgements come in bursts, …"""

RECEIPT_SECONDS_PER_AGENT = 0.00005
"""… and each receipt looks at every agent."""

QUARANTINE_DEFAULT = 1000
QUARANTINE_AT_MOST = 10_000

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000

_Context = grpc.aio.ServicerContext[bytes, bytes]


class SlicerServicer:
    """deltaplane.v1.Slicer."""

    def __init__(
        self,
        fanout: Fanout,
        repository: Repository,
        peers: Peers,
        clock: Clock,
        server_id: str,
        *,
        stages: Stages | None = None,
    ) -> None:
        self._fanout = fanout
        self._stages = stages or Stages()
        self._repository = repository
        self._peers = peers
        self._clock = clock
        self._server_id = server_id
        self._refusals = Refusals()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the methods; Stream without (de)serialisers."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Stream": grpc.stream_stream_rpc_method_handler(self.Stream),
            "ListSlices": grpc.unary_unary_rpc_method_handler(
                self.ListSlices,
                request_deserializer=slicer_pb2.ListSlicesRequest.FromString,
            ),
            "ListAgents": grpc.unary_unary_rpc_method_handler(
                self.ListAgents,
                request_deserializer=slicer_pb2.ListAgentsRequest.FromString,
                response_serializer=slicer_pb2.ListAgentsResponse.SerializeToString,
            ),
            "GetQuarantine": grpc.unary_unary_rpc_method_handler(
                self.GetQuarantine,
                request_deserializer=slicer_pb2.GetQuarantineRequest.FromString,
                response_serializer=slicer_pb2.GetQuarantineResponse.SerializeToString,
            ),
        }
        generic = grpc.method_handlers_generic_handler(SLICER, handlers)
        server.add_generic_rpc_handlers((generic,))

    # --- the stream ------------------------------------------------------------------------------

    async def Stream(self, requests: AsyncIterator[bytes], context: _Context) -> None:
        """One agent's stream."""
        wake = asyncio.Event()
        hello = await self._hello(context)
        await self._admissible(hello)
        if await is_postponed(hello, context, self._fanout, self._clock, self._server_id):
            return
        session = self._fanout.admit(hello, wake.set, now=self._clock.now())
        mode = session.reader.mode.name
        metrics.STREAMS.labels(mode).inc()
        log.get().info("agent_admitted", node=hello.node, mode=mode, has=hello.applied_revision)
        failure: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                writing = tasks.create_task(self._write(session, wake, context))
                await self._read(session, context)
                writing.cancel()
        except* DeltaplaneError as group:
            failure = group.exceptions[0]
        finally:
            self._fanout.leave(session)
            metrics.REPAIRED.inc(session.reader.replaced)
        if failure is not None:
            if isinstance(failure, StreamBroken | Invalid):
                self._note_broken(hello.node, failure)
            raise failure

    def _note_broken(self, node: str, reason: BaseException) -> None:
        metrics.BROKEN.inc()
        if self._refusals.is_news(node, self._clock.now()):
            log.get().warning("stream_broken", node=node, reason=str(reason))

    async def _hello(self, context: _Context) -> Hello:
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                first = await context.read()
        except TimeoutError:
            raise Invalid("", f"no Hello within {HELLO_SECONDS:.0f} s") from None
        message = decode_request(first) if isinstance(first, bytes) else None
        if not isinstance(message, Hello):
            raise Invalid("message", "the first message of a stream is a Hello")
        authorising.require_own([message.node])
        return message

    async def _admissible(self, hello: Hello) -> None:
        """Waits until nothing stands in the way: we may be a little behind the agent.

        Raises:
            DeltaplaneError: what still does.
        """
        fanout = self._fanout
        deadline = self._clock.now() + ADMIT_SECONDS
        with watching(fanout) as changed:
            while (obstacle := fanout.obstacle(hello)) is not None:
                left = deadline - self._clock.now()
                if fanout.draining or left <= 0:
                    break
                await wait(changed, left)
        if obstacle is None:
            return
        metrics.REFUSED.inc()
        if not fanout.draining and self._refusals.is_news(hello.node, self._clock.now()):
            # The scanned revision tells a watch that lags from a node that is not there.
            log.get().warning(
                "agent_refused", node=hello.node, reason=str(obstacle), scanned=fanout.scanned
            )
        if fanout.sender.is_behind(hello):
            await self._check_history(hello)
        raise obstacle

    async def _check_history(self, hello: Hello) -> None:
        """Whether the store itself is behind the agent: then it has lost writes.

        Raises:
            Refused: it is.
        """
        head = await self._repository.head()
        seen = max(hello.applied_revision, hello.floor_revision)
        if head < seen:
            raise Refused(
                f"the store is at revision {head}, but node {hello.node!r} has applied {seen} of "
                "the same lineage: was it restored from a backup? It needs a new lineage"
            )

    async def _read(self, session: Session, context: _Context) -> None:
        """Takes messages until the agent ends its side."""
        while isinstance(data := await context.read(), bytes):
            message = decode_request(data)
            since_ns = self._fanout.receive(session, message, now=self._clock.now())
            if since_ns is not None:
                wall_ns = self._clock.wall_ns()
                metrics.SEEN_TO_ACKED.observe((wall_ns - since_ns) / 1e9)
                self._stages.acked(since_ns, wall_ns)

    async def _write(self, session: Session, wake: asyncio.Event, context: _Context) -> None:
        """Writes what there is; `write` blocks while the agent does not read.

        Raises:
            Refused: a newer stream of the node has taken over.
        """
        sender, reader = self._fanout.sender, session.reader
        while not session.superseded:
            wake.clear()
            now = self._clock.now()
            batch = sender.poll(reader, now)
            self._fanout.delivering(session, written=len(batch), now=now)
            for data in bundled(batch):
                await context.write(data)
            if batch:
                metrics.SENT_MESSAGES.inc(len(batch))
                metrics.SENT_BYTES.inc(sum(map(len, batch)))
            else:
                self._fanout.rested(session)
                await wait(wake, sender.bookmark_at(reader) - self._clock.now())
        raise Refused("a newer stream of this node has taken over")

    async def drain(self) -> None:
        """Says goodbye to all agents and waits until they are gone."""
        fanout = self._fanout
        fanout.drain(deadline_seconds=DRAIN_SECONDS)
        deadline = self._clock.now() + DRAIN_SECONDS
        with watching(fanout) as changed:
            while fanout.sessions and (left := deadline - self._clock.now()) > 0:
                await wait(changed, left)

    # --- listings --------------------------------------------------------------------------------

    async def ListSlices(
        self,
        request: slicer_pb2.ListSlicesRequest,
        context: grpc.aio.ServicerContext[slicer_pb2.ListSlicesRequest, bytes],
    ) -> bytes:
        """A page of slices, each page at the revision it was made at."""
        size = request.page_size or DEFAULT_PAGE
        if size > LARGEST_PAGE:
            raise Invalid("page_size", f"{size} is above {LARGEST_PAGE}")
        sender = self._fanout.sender
        pieces, revision = sender.pieces, sender.head
        try:
            found = pieces.slices.slices(identity=request.identity, after=request.page_token)
            page = list(islice(found, size + 1))
        except ValueError as error:
            raise Invalid("page_token", str(error)) from error
        return await listings.page(
            page[:size],
            pieces,
            next_page_token=page[size - 1].id if len(page) > size else "",
            revision=revision,
        )

    async def ListAgents(
        self,
        request: slicer_pb2.ListAgentsRequest,
        context: grpc.aio.ServicerContext[
            slicer_pb2.ListAgentsRequest, slicer_pb2.ListAgentsResponse
        ],
    ) -> slicer_pb2.ListAgentsResponse:
        """The connected agents."""
        sender, now = self._fanout.sender, self._clock.now()
        readers: Sequence[Reader] = sorted(
            (session.reader for session in self._fanout.sessions.values()),
            key=lambda reader: reader.node,
        )
        return slicer_pb2.ListAgentsResponse(
            agents=(
                agent_to_proto(reader, effective=sender.effective(reader), now=now)
                for reader in readers
            ),
            head_revision=sender.head,
            server_id=self._server_id,
        )

    async def GetQuarantine(
        self,
        request: slicer_pb2.GetQuarantineRequest,
        context: grpc.aio.ServicerContext[
            slicer_pb2.GetQuarantineRequest, slicer_pb2.GetQuarantineResponse
        ],
    ) -> slicer_pb2.GetQuarantineResponse:
        """Released addresses that this replica saw go, and the nodes behind the newest of them."""
        limit = request.limit or QUARANTINE_DEFAULT
        if limit > QUARANTINE_AT_MOST:
            raise Invalid("limit", f"{limit} is above {QUARANTINE_AT_MOST}")
        others = await self._peers.reports()
        facts, wall_ns = self._fanout.facts, self._clock.wall_ns()
        found = holders(
            self._fanout.quarantine.newest,
            nodes={node.object.index: name for name, node in facts.nodes.items()},
            effective=newest(
                [*(report.nodes for report in others), self._fanout.effective(wall_ns)]
            ),
            fences=facts.fences,
        )
        return quarantine_to_proto(self._fanout, found, limit=limit, wall_ns=wall_ns)


class ReceiptsServicer(receipts_pb2_grpc.ReceiptsServicer):
    """deltaplane.v1.Receipts."""

    def __init__(self, fanout: Fanout, repository: Repository, peers: Peers, clock: Clock) -> None:
        self._fanout = fanout
        self._repository = repository
        self._peers = peers
        self._clock = clock

    async def Watch(
        self,
        request: receipts_pb2.WatchRequest,
        context: grpc.aio.ServicerContext[receipts_pb2.WatchRequest, receipts_pb2.WatchResponse],
    ) -> AsyncIterator[receipts_pb2.WatchResponse]:
        """Receipts until the last node has it."""
        started = self._clock.now()
        subject = await self._subject(request)
        last: Receipt | None = None
        with watching(self._fanout) as changed:
            while True:
                changed.clear()
                current = await self._receipt(subject)
                if current != last:
                    elapsed_ms = (self._clock.now() - started) * 1000
                    yield receipt_to_proto(current, elapsed_ms)
                    last = current
                if current.complete or not request.wait:
                    return
                agents = len(self._fanout.sessions)
                await asyncio.sleep(max(RECEIPT_SECONDS, RECEIPT_SECONDS_PER_AGENT * agents))
                await wait(changed, PEERS_SECONDS)

    async def ListEffective(
        self,
        request: receipts_pb2.ListEffectiveRequest,
        context: grpc.aio.ServicerContext[
            receipts_pb2.ListEffectiveRequest, receipts_pb2.ListEffectiveResponse
        ],
    ) -> receipts_pb2.ListEffectiveResponse:
        """What this replica alone can vouch for."""
        report = self._report(request.policy, request.revision)
        return report_to_proto(report, self._fanout.sender.head)

    def _report(self, policy: str, revision: int) -> Report:
        return Report(
            nodes=self._fanout.effective(self._clock.wall_ns()),
            times=self._fanout.timings.spread(policy, revision),
        )

    async def _subject(self, request: receipts_pb2.WatchRequest) -> Subject:
        kind = request.WhichOneof("subject")
        if kind != "endpoint":
            authorising.require_own([])
        match kind:
            case "policy":
                revision = await self._repository.policy_revision(request.policy)
                return Subject(revision=revision, kinds=POLICY_KINDS, policy=request.policy)
            case "endpoint":
                found = await self._repository.endpoints(request.endpoint)
                endpoints = tuple(
                    (record.content.object.node_index, record.content.object.identity)
                    for record in found
                    if isinstance(record.content, EndpointRecord)
                )
                authorising.require_own(self._names({index for index, _ in endpoints}))
                return Subject(
                    revision=max(record.generation for record in found),
                    kinds=ENDPOINT_KINDS,
                    endpoints=endpoints,
                )
            case "revision":
                return Subject(revision=request.revision, kinds=frozenset(Kind))
            case None:
                raise Invalid("subject", "one of policy, revision and endpoint is required")

    def _names(self, indices: Container[int]) -> Iterator[str]:
        nodes = self._fanout.facts.nodes.items()
        return (name for name, node in nodes if node.object.index in indices)

    async def _receipt(self, subject: Subject) -> Receipt:
        others = await self._peers.reports(subject.policy, subject.revision)
        sender = self._fanout.sender
        concern = Concern.of(subject, sender.view)
        counted = concern.nodes(sender.index) if sender.is_scoped else None
        nodes = {n.object.index: name for name, n in self._fanout.facts.nodes.items()}
        return receipt(
            concern,
            nodes={i: n for i, n in nodes.items() if counted is None or i in counted},
            reports=[*others, self._report(subject.policy, subject.revision)],
            head=sender.head,
            fenced=self._fanout.facts.fences.keys(),
        )
