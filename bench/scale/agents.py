"""Simulated agents without sockets: what all have in common, and those of the two baselines.

Each keeps its own memory of every endpoint that it was told of. `delta_agent` has ours.
"""

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from bench.scale.applied import Log
from bench.scale.decoding import Endpoint, ListedDecoder
from deltaplane.store.etcdpb import rpc_pb2
from deltaplane.v1 import registry_pb2

BASELINE = "/deltaplane.bench.Baseline/Watch"

Clock = Callable[[], int]
"""Nanoseconds of the machine's monotonic clock."""

_NOTHING = array("Q")


class Agent(Protocol):
    """One agent over all its connections.

    Attributes:
        path: the gRPC method of its stream.
        log: when it had which change.
        in_sync_ns: when this connection had everything that was there before; 0: not yet.
        snapshots: connections that began with everything instead of the rest.
        messages: received; acks: sent.
    """

    path: str
    log: Log
    in_sync_ns: int
    snapshots: int
    messages: int
    acks: int

    def hello(self) -> bytes:
        """Starts a connection: the first message."""
        ...

    def receive(self, data: bytes) -> None:
        """Takes a message."""
        ...

    def due_ns(self) -> int | None:
        """When `poll` has something to say; None: not before something comes."""
        ...

    def poll(self, now_ns: int) -> bytes | None:
        """What is to be sent now."""
        ...

    def endpoints(self) -> Iterator[tuple[int, Endpoint]]:
        """All that it holds, by endpoint key."""
        ...


class ListedAgent(ABC):
    """An agent of a baseline: lists, then watches; it acknowledges nothing, as in Kubernetes."""

    path: str = BASELINE

    def __init__(self, decoder: ListedDecoder, clock: Clock) -> None:
        self.log = Log()
        self.in_sync_ns = 0
        self.snapshots = self.messages = self.acks = 0
        self._decode, self._clock = decoder, clock
        self._resume_at = 0

    def hello(self) -> bytes:
        """See Agent."""
        self.in_sync_ns = 0
        if not self._resume_at:
            self.snapshots += 1
        create = rpc_pb2.WatchCreateRequest(start_revision=self._resume_at)
        return rpc_pb2.WatchRequest(create_request=create).SerializeToString()

    def receive(self, data: bytes) -> None:
        """See Agent."""
        self.messages += 1
        found = self._decode(data)
        for name, value in found.objects:
            self._take(name, value)
        self._resume_at = max(self._resume_at, found.resume_at)
        if found.complete:
            self.in_sync_ns = self._clock()

    @abstractmethod
    def _take(self, name: bytes, value: Endpoint | Mapping[int, Endpoint] | None) -> None:
        """An object is there with this value, or gone."""

    def due_ns(self) -> int | None:
        """See Agent."""
        return None

    def poll(self, now_ns: int) -> bytes | None:  # noqa: ARG002 - it has nothing to say
        """See Agent."""
        return None


class EndpointAgent(ListedAgent):
    """One object for each endpoint, by name."""

    def __init__(self, decoder: ListedDecoder, clock: Clock) -> None:
        super().__init__(decoder, clock)
        self._table: dict[bytes, registry_pb2.Endpoint] = {}

    def _take(self, name: bytes, value: Endpoint | Mapping[int, Endpoint] | None) -> None:
        if value is None:
            if (gone := self._table.pop(name, None)) is not None:
                self._note(_NOTHING, array("Q", (gone.node_index << 32 | gone.id,)))
            return
        assert isinstance(value, registry_pb2.Endpoint)
        self._table[name] = value
        self._note(array("Q", (value.node_index << 32 | value.id,)), _NOTHING)

    def _note(self, came: "array[int]", went: "array[int]") -> None:
        if self.in_sync_ns:
            self.log.note(self._clock(), came, went)

    def endpoints(self) -> Iterator[tuple[int, Endpoint]]:
        """See Agent."""
        for item in self._table.values():
            yield item.node_index << 32 | item.id, item


class SliceAgent(ListedAgent):
    """Slices by name; what changed in one is found by comparing."""

    def __init__(self, decoder: ListedDecoder, clock: Clock) -> None:
        super().__init__(decoder, clock)
        self._table: dict[bytes, Mapping[int, Endpoint]] = {}

    def _take(self, name: bytes, value: Endpoint | Mapping[int, Endpoint] | None) -> None:
        old: Mapping[int, Endpoint] = self._table.pop(name, {})
        new: Mapping[int, Endpoint] = value if isinstance(value, Mapping) else {}
        if new:
            self._table[name] = new
        if self.in_sync_ns:
            came = array("Q", new.keys() - old.keys())
            self.log.note(self._clock(), came, array("Q", old.keys() - new.keys()))

    def endpoints(self) -> Iterator[tuple[int, Endpoint]]:
        """See Agent."""
        for members in self._table.values():
            yield from members.items()
