"""The two ways of delivery that ours is compared with, up to the bytes. No I/O and no clock.

Both are as good as we can make them: everything is encoded once for all agents, protobuf instead of
JSON, no limits on writes per second, and no write of a slice to etcd, which the real operator makes
before anybody sees it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from deltaplane.store.etcdpb import rpc_pb2
from deltaplane.store.port import Event, KeyValue
from deltaplane.v1 import registry_pb2

LIST_PAGE = 500
"""Objects of one message of the initial list, as client-go asks for."""

SLICE_LIMIT = 100
"""Endpoints of a CiliumEndpointSlice at most."""

SLICE_SECONDS = 0.5
"""From the first change of a slice to its being sent, as Cilium's operator waits by default."""

_ENDPOINTS_TAG = bytes(
    (registry_pb2.ListEndpointsResponse.DESCRIPTOR.fields_by_name["endpoints"].number << 3 | 2,)
)


def put(name: str, value: bytes) -> rpc_pb2.Event:
    """An object that is there."""
    return rpc_pb2.Event(kv=rpc_pb2.KeyValue(key=name.encode(), value=value))


def gone(name: str) -> rpc_pb2.Event:
    """An object that is gone."""
    kv = rpc_pb2.KeyValue(key=name.encode())
    return rpc_pb2.Event(type=rpc_pb2.Event.DELETE, kv=kv)


def message(events: Iterable[rpc_pb2.Event], number: int, *, complete: bool = False) -> bytes:
    """A message. number: counts messages; where an agent goes on after a reconnect."""
    header = rpc_pb2.ResponseHeader(revision=number)
    return rpc_pb2.WatchResponse(header=header, events=events, created=complete).SerializeToString()


@dataclass(slots=True)
class Endpoints:
    """Mode `endpoint`: each object whole, one message for each change, at once."""

    page: int = LIST_PAGE
    _objects: dict[str, bytes] = field(default_factory=dict)
    _changed: list[rpc_pb2.Event] = field(default_factory=list)

    def load(self, items: Iterable[KeyValue]) -> None:
        """Takes what is there at the begin."""
        self._objects = {item.key: item.value for item in items}

    def take(self, events: Iterable[Event], now: float) -> None:
        """Takes changes. now: seconds."""
        del now
        for event in events:
            if event.value is None:
                self._objects.pop(event.key, None)
                self._changed.append(gone(event.key))
            else:
                self._objects[event.key] = event.value
                self._changed.append(put(event.key, event.value))

    def due_at(self) -> float | None:
        """When `changes` has something, seconds; None: nothing waits."""
        return float("-inf") if self._changed else None

    def changes(self, now: float) -> list[rpc_pb2.Event]:
        """What is to be sent now, one message for each."""
        del now
        found, self._changed = self._changed, []
        return found

    def objects(self) -> Iterator[rpc_pb2.Event]:
        """All objects, for a list."""
        for name, value in self._objects.items():
            yield put(name, value)


@dataclass(slots=True)
class _Slice:
    name: str
    namespace: str
    members: dict[str, bytes] = field(default_factory=dict)

    def encoded(self) -> bytes:
        """All members as a message."""
        return b"".join(self.members.values())


class Slices:
    """Mode `slice`: whole slices of one namespace, first come first served, sent 500 ms later.

    An endpoint goes to the fullest slice of its namespace that has room, and stays there.
    """

    page = LIST_PAGE // SLICE_LIMIT

    def __init__(self, limit: int = SLICE_LIMIT, seconds: float = SLICE_SECONDS) -> None:
        self._limit, self._seconds = limit, seconds
        self._slice_of: dict[str, _Slice] = {}
        self._slices: dict[str, _Slice] = {}
        self._in_namespace: dict[str, dict[str, _Slice]] = {}
        self._due: dict[str, float] = {}  # first changed first
        self._sent: dict[str, rpc_pb2.Event] = {}
        self._number = 0

    def load(self, items: Iterable[KeyValue]) -> None:
        """Takes what is there at the begin; it is sent to whoever lists."""
        for item in items:
            self._put(item.key, item.value, float("-inf"))
        self.changes(float("inf"))

    def take(self, events: Iterable[Event], now: float) -> None:
        """Takes changes. now: seconds."""
        for event in events:
            if event.value is None:
                self._remove(event.key, now)
            else:
                self._put(event.key, event.value, now)

    def _put(self, key: str, value: bytes, now: float) -> None:
        record = registry_pb2.Endpoint.FromString(value)
        found = self._slice_of.get(key) or self._room(record.namespace)
        self._slice_of[key] = found
        found.members[key] = _core(record)
        self._due.setdefault(found.name, now + self._seconds)

    def _room(self, namespace: str) -> _Slice:
        mine = self._in_namespace.setdefault(namespace, {})
        open_ones = [one for one in mine.values() if len(one.members) < self._limit]
        if open_ones:
            return max(open_ones, key=lambda one: len(one.members))
        self._number += 1
        made = _Slice(f"ces-{self._number:09x}", namespace)
        mine[made.name] = self._slices[made.name] = made
        return made

    def _remove(self, key: str, now: float) -> None:
        if (found := self._slice_of.pop(key, None)) is None:
            return
        del found.members[key]
        self._due.setdefault(found.name, now + self._seconds)
        if not found.members:
            del self._slices[found.name]
            del self._in_namespace[found.namespace][found.name]

    def due_at(self) -> float | None:
        """When `changes` has something, seconds; None: nothing waits."""
        return next(iter(self._due.values()), None)

    def changes(self, now: float) -> list[rpc_pb2.Event]:
        """Slices whose time has come, whole."""
        found = []
        for name in [name for name, due in self._due.items() if due <= now]:
            del self._due[name]
            if name in self._slices:
                self._sent[name] = put(name, self._slices[name].encoded())
                found.append(self._sent[name])
            elif self._sent.pop(name, None) is not None:
                found.append(gone(name))
        return found

    def objects(self) -> Iterator[rpc_pb2.Event]:
        """All slices as they were sent last, for a list."""
        yield from self._sent.values()


def _core(record: registry_pb2.Endpoint) -> bytes:
    """What a slice holds of an endpoint, as Cilium's CoreCiliumEndpoint: no labels, no owner."""
    data = registry_pb2.Endpoint(
        pod=record.pod,
        node_index=record.node_index,
        id=record.id,
        identity=record.identity,
        addresses=record.addresses,
    ).SerializeToString()
    assert len(data) < 128, record  # its length is one byte
    return _ENDPOINTS_TAG + bytes((len(data),)) + data
