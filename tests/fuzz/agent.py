"""What the agent and the bridge are asked over gRPC: confirmations and filters.

Of RepairAddresses only what it reads itself; the links and routes that it would mend are the
machine's. Requests without fields have nothing that could be changed.
"""

import asyncio
import contextlib
import random
from collections.abc import Sequence
from typing import Any, cast

from google.protobuf.message import DecodeError, Message

from deltaplane.errors import DeltaplaneError, Internal
from deltaplane.runtime.clock import SystemClock
from deltaplane.v1 import agent_pb2, audit_pb2, bridge_pb2
from nodeagent.apply import Applier
from nodeagent.dataplane.fake import FakeDataPlane
from nodeagent.reporting import AddressSources, NodeAddressesServicer
from nodeagent.servicer import AgentServicer, Sources
from nodeagent.worker import Worker
from services.kubernetes.books import Books
from services.kubernetes.kinds import Kind
from services.kubernetes.ledger import Wanted
from services.kubernetes.problems import Problems
from services.kubernetes.servicer import BridgeServicer
from tests.bpf.services import TARGET, Services, backend
from tests.fuzz.draw import Draw
from tests.fuzz.services import SECONDS, Context, Method, methods
from tests.fuzz.shapes import made

SERVICES = ((agent_pb2, "Agent"), (bridge_pb2, "Bridge"), (audit_pb2, "NodeAddresses"))
SEEDS = 40


class _Mender:
    """Refuses all: what it would mend is the machine's."""

    def __getattr__(self, name: str) -> Any:
        async def refuse(*_: object) -> None:
            raise Internal(name)

        return refuse


class AgentTarget:
    """First byte: the method. Second: whether the rest is the request, or decisions about it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._worker = Worker("fuzz")
        self._dataplane = FakeDataPlane()
        Services(cast("Any", self._dataplane)).put("10.96.0.1", 6, backend("10.0.0.5", TARGET))
        self._applier = Applier(self._dataplane, cast("Any", None), self._worker)
        self._books = _held()
        nothing = cast("Any", None)
        agent = AgentServicer(
            Sources(
                node=nothing,
                journal=nothing,
                applier=self._applier,
                balancing=nothing,
                stream=nothing,
                dataplane=self._dataplane,
                worker=self._worker,
                clock=SystemClock(),
            )
        )
        bridge = BridgeServicer(
            self._books, Problems(), is_active=lambda: True, leader=lambda: "", wake=lambda: None
        )
        sources = cast("AddressSources", nothing)
        addresses = NodeAddressesServicer(sources, cast("Any", _Mender()))
        servicers = (agent, bridge, addresses)
        self._methods = tuple(
            method
            for (module, name), servicer in zip(SERVICES, servicers, strict=True)
            for method in methods(module, name, servicer)
            if method.request().DESCRIPTOR.fields and method.name != "NodeAddresses.ListAddresses"
        )

    def seeds(self) -> Sequence[bytes]:
        """Empty requests, and decisions about some."""
        chance = random.Random(7)
        count = len(self._methods)
        return [
            *(bytes((number, 0)) for number in range(count)),
            *(bytes((number % count, 1)) + chance.randbytes(60) for number in range(SEEDS)),
        ]

    def words(self) -> Sequence[bytes]:
        """Kinds."""
        return tuple(kind.word.encode() for kind in Kind)

    def feed(self, data: bytes) -> None:
        """One call."""
        draw = Draw(data)
        method = draw.pick(self._methods)
        request = method.request()
        try:
            if draw.below(2):
                request = made(method.request, draw)
            else:
                request.ParseFromString(draw.rest())
        except DecodeError:
            return
        self._loop.run_until_complete(self._call(method, request))

    async def _call(self, method: Method, request: Message) -> None:
        before = self._dataplane.dump(), dict(self._books[Kind.POD].stored), self._sweep()
        try:
            async with asyncio.timeout(SECONDS):
                answer = await method.call(request, Context())
        except Internal as error:
            message = f"{method.name} says that it is broken: {error}\n{request}"
            raise AssertionError(message) from error
        except DeltaplaneError:
            # Nothing is half done.
            assert before == (
                self._dataplane.dump(),
                dict(self._books[Kind.POD].stored),
                self._sweep(),
            )
            return
        if isinstance(request, agent_pb2.ListFrontendsRequest):
            for found in answer.frontends:
                assert not request.addresses or found.address in request.addresses
                assert request.port in (0, found.port)
        if isinstance(request, bridge_pb2.BridgeConfirmSweepRequest):
            assert request.entries >= answer.entries > 0
            self._books.ledgers.update(_held().ledgers)

    def _sweep(self) -> object:
        return self._books[Kind.POD].sweep

    def close(self) -> None:
        """Ends its thread."""
        with contextlib.suppress(RuntimeError):
            self._worker.close()
        self._loop.close()


def _held() -> Books:
    """Books of a cluster that has lost most of its pods: their removal waits for somebody."""
    books = Books()
    pods = books[Kind.POD]
    pods.adopt({f"shop/{number}": b"" for number in range(1000)})
    pods.replace({"shop/0": Wanted(b"")})
    assert pods.sweep is not None
    return books
