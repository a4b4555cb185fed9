"""Every unary method of every service, on a store in memory: what no request may bring about.

The first byte chooses the method; the others are the request itself, or the decisions of which one
is made. What one request leaves behind the next one finds.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message

from deltaplane.delta.messages import StreamBroken
from deltaplane.errors import DeltaplaneError, Internal, Unavailable
from deltaplane.runtime.clock import SystemClock
from deltaplane.store import lineage
from deltaplane.store.memory import MemoryStore
from deltaplane.v1 import audit_pb2, ipam_pb2, receipts_pb2, registry_pb2, slicer_pb2
from services.endpoints.auditing import AuditServicer
from services.endpoints.identity import LabelFilter
from services.endpoints.repository import Repositories
from services.endpoints.servicer import RegistryServicer
from services.ipam.repository import Repository as IpamRepository
from services.ipam.servicer import IpamServicer
from services.slicer.feed import Feed
from services.slicer.peers import Peers
from services.slicer.repository import Replica
from services.slicer.repository import Repository as SlicerRepository
from services.slicer.servicer import ReceiptsServicer, SlicerServicer
from services.slicer.tracing import Stages
from tests.fuzz.draw import Draw
from tests.fuzz.shapes import change, made
from tests.fuzz.templates import templates

RAW, MADE = 0, 1
"""Second byte of an input whose rest is the request as it comes, or decisions of a whole request.

Else it is a request that is fine, and decisions of what to change in it.
"""

INPUTS_OF_A_STORE = 300
"""Then all begins anew: a store that grows for ever finds nothing more."""

SECONDS = 30.0

MAKING = ("Create", "Register", "ClaimBlocks", "Apply")
"""Methods that make what others need."""
SEEDS = 40


class Context:
    """As much of a call's context as the services look at."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """None."""
        return ()


@dataclass(frozen=True, slots=True)
class Method:
    """One method. call: what it does with a request."""

    name: str
    request: Callable[[], Message]
    call: Callable[[Any, Any], Any]


SERVICES = (
    (registry_pb2, "Registry"),
    (audit_pb2, "AddressRecords"),
    (ipam_pb2, "Ipam"),
    (slicer_pb2, "Slicer"),
    (receipts_pb2, "Receipts"),
)


class Plane:
    """The services on one new store, and the tasks that they need."""

    def __init__(self) -> None:
        self.methods: tuple[Method, ...] = ()
        self._store = MemoryStore()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Starts them."""
        await lineage.ensure(self._store, b"")
        repositories = Repositories.over(self._store, LabelFilter(()))
        self._tasks.append(asyncio.create_task(repositories.coalescer.run()))
        clock, slices = SystemClock(), SlicerRepository(self._store, b"")
        replica = Replica("fuzz", "127.0.0.1:1")
        self._feed = Feed(slices, replica, clock, Stages(), is_scoped=True)
        fanout = await self._feed.start()
        self._tasks.append(asyncio.create_task(self._feed.run(fanout)))
        peers = Peers(slices, replica.server_id, clock)
        servicers = (
            RegistryServicer(repositories),
            AuditServicer(repositories.auditor),
            IpamServicer(IpamRepository(self._store)),
            SlicerServicer(fanout, slices, peers, clock, replica.server_id),
            ReceiptsServicer(fanout, slices, peers, clock),
        )
        self.methods = tuple(
            method
            for (module, name), servicer in zip(SERVICES, servicers, strict=True)
            for method in methods(module, name, servicer)
        )

    def check(self) -> None:
        """Raises what has ended a task: the slicer reads what the others have let in."""
        for task in self._tasks:
            if task.done():
                task.result()
                message = f"{task} has ended"
                raise AssertionError(message)

    async def stop(self) -> None:
        """Ends the tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def methods(module: Any, service: str, servicer: object) -> Iterator[Method]:
    """All of a service but the delta stream, which is no call; new ones come by themselves."""
    for method in module.DESCRIPTOR.services_by_name[service].methods:
        if method.name != "Stream":
            request = getattr(module, method.input_type.name)
            yield Method(f"{service}.{method.name}", request, getattr(servicer, method.name))


class ServicesTarget:
    """All methods."""

    def __init__(self) -> None:
        self._templates = templates()
        self._loop = asyncio.new_event_loop()
        self._plane = self._fresh()
        self._fed = 0

    def _fresh(self) -> Plane:
        plane = Plane()
        self._loop.run_until_complete(plane.start())
        methods = {method.name: method for method in plane.methods}
        for name, request in self._templates.items():
            if name.partition(".")[2].startswith(MAKING):
                self._loop.run_until_complete(_answered(methods[name].call(request, Context())))
        return plane

    def seeds(self) -> Sequence[bytes]:
        """For each method some decisions, and an empty request."""
        chance = random.Random(7)
        count = len(self._plane.methods)
        empty = [bytes((number, RAW)) for number in range(count)]
        return [
            *empty,
            *(
                bytes((number % count, choice)) + chance.randbytes(80 if choice else 200)
                for number in range(SEEDS)
                for choice in (MADE, 2, 3)
            ),
        ]

    def words(self) -> Sequence[bytes]:
        """None."""
        return ()

    def feed(self, data: bytes) -> None:
        """One call."""
        draw = Draw(data)
        method = draw.pick(self._plane.methods)
        try:
            request = self._request(method, draw)
        except DecodeError:
            return  # gRPC answers that before it calls anybody
        self._loop.run_until_complete(self._call(method, request))
        self._fed += 1
        if self._fed % INPUTS_OF_A_STORE == 0:
            self._loop.run_until_complete(self._plane.stop())
            self._plane = self._fresh()

    def _request(self, method: Method, draw: Draw) -> Message:
        template = self._templates.get(method.name)
        choice = draw.below(8)
        if choice == RAW:
            request = method.request()
            request.ParseFromString(draw.rest())
            return request
        if template is None or choice == MADE:
            return made(method.request, draw)
        request = method.request()
        request.CopyFrom(template)
        for _ in range(draw.pick((0, 1, 1, 2, 3))):
            change(request, draw)
        return request

    async def _call(self, method: Method, request: Message) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                await _answered(method.call(request, Context()))
        except (Internal, StreamBroken) as error:
            message = f"{method.name} says that it is broken: {error}\n{request}"
            raise AssertionError(message) from error
        except Unavailable as error:
            message = f"{method.name} on a store that is there: {error}\n{request}"
            raise AssertionError(message) from error
        except DeltaplaneError:
            pass
        self._plane.check()

    def close(self) -> None:
        """Ends the services."""
        self._loop.run_until_complete(self._plane.stop())
        self._loop.close()


async def _answered(call: Any) -> None:
    if isinstance(call, Awaitable):
        await call
        return
    async for _ in call:
        return
