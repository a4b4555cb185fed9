"""The messages of the three ways of delivery, decoded into what an agent's memory takes. Pure.

What is kept of an endpoint is the decoded message itself. How much of the decoding agents of one
process share is the caller's choice (`Level`), and a report has to say it: a real agent shares with
nobody, but it has a processor to itself as well.
"""

import enum
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from bench.scale.world import endpoint_key
from deltaplane.store.etcdpb import rpc_pb2
from deltaplane.v1 import registry_pb2
from deltaplane.v1 import slicer_pb2 as pb

Endpoint = pb.EndpointUpsert | registry_pb2.Endpoint

ObjectKey = tuple[int, bytes]
"""Kind and canonical key of an object that is no endpoint."""

_OTHERS: Sequence[tuple[str, int, Callable[[Any], bytes]]] = (
    ("nodes", pb.KIND_NODE, lambda item: item.index.to_bytes(4)),
    ("blocks", pb.KIND_BLOCK, lambda item: bytes((item.prefix.length,)) + item.prefix.address),
    ("identities", pb.KIND_IDENTITY, lambda item: item.id.to_bytes(4)),
    ("peer_sets", pb.KIND_PEER_SET, lambda item: item.key),
    ("subject_policies", pb.KIND_SUBJECT_POLICY, lambda item: item.identity.to_bytes(4)),
    ("pools", pb.KIND_POOL, lambda item: item.name.encode()),
    ("services", pb.KIND_SERVICE, lambda item: item.number.to_bytes(4)),
    ("backends", pb.KIND_BACKEND, lambda item: item.service.to_bytes(4) + item.address),
)
"""Fields of a piece besides endpoints and removals, their kind, and the key of an object."""

_BUNDLE_TAG = pb.StreamResponse.DESCRIPTOR.fields_by_name["bundle"].number << 3 | 2

REMEMBERED = 256
"""Messages for which the outcome is remembered."""

M = TypeVar("M")
T = TypeVar("T")


@dataclass(slots=True)
class Content:
    """The changes of a piece. What is removed goes before what comes.

    Attributes:
        endpoints: that are there, by key.
        came: their keys.
        since: revisions at which these were written last, in the same order; oldest: the first.
        removed: endpoints to be forgotten; went: those of them that are gone for everybody.
        left: identities that this agent need not know any more, with their endpoints elsewhere.
        others: objects of other kinds.
        removed_others: such that are to be forgotten.
    """

    endpoints: Mapping[int, pb.EndpointUpsert]
    came: "array[int]"
    since: "array[int]"
    removed: Sequence[int] = ()
    went: "array[int]" = field(default_factory=lambda: array("Q"))
    left: Sequence[int] = ()
    others: Mapping[ObjectKey, Message] = field(default_factory=dict)
    removed_others: Sequence[ObjectKey] = ()
    oldest: int = 0

    def came_after(self, revision: int) -> "array[int]":
        """Keys of the endpoints that were written after a revision.

        The others had been written before: they come because the span has grown.
        """
        if self.oldest > revision:
            return self.came
        return array("Q", [k for k, at in zip(self.came, self.since, strict=True) if at > revision])


@dataclass(slots=True)
class Delta:
    """A message of the slicer: its kind, itself, and its changes if it has any."""

    kind: str | None
    message: pb.StreamResponse
    content: Sequence[Content] = ()


@dataclass(slots=True)
class Listed:
    """A message of the other two ways: objects by name; None: gone.

    Attributes:
        objects: by name, in order: an endpoint, or all endpoints of a slice.
        complete: everything that was there at the begin has been sent.
        resume_at: what to ask for after a reconnect.
    """

    objects: list[tuple[bytes, Endpoint | Mapping[int, Endpoint] | None]]
    complete: bool
    resume_at: int


class Level(enum.StrEnum):
    """How much of decoding every agent does itself.

    FULL: all. PARSED: protobuf's part, in C; going through the decoded objects in Python, which
    takes ten times as long and says nothing about an agent, is done once for equal bytes. SHARED:
    equal bytes are decoded once.
    """

    FULL = "full"
    PARSED = "parsed"
    SHARED = "shared"


class Decoder(Generic[M, T]):
    """Decodes the messages of all agents of a process. What it returns nobody changes.

    Attributes:
        decoded: messages that protobuf decoded; reused: messages that were gone through before.
    """

    def __init__(
        self, parse: Callable[[bytes], M], walk: Callable[[M], T], level: Level = Level.FULL
    ) -> None:
        self.decoded = 0
        self.reused = 0
        self._parse, self._walk, self._level = parse, walk, level
        self._known: OrderedDict[bytes, T] = OrderedDict()

    def __call__(self, data: bytes) -> T:
        """The decoded message."""
        if self._level is Level.FULL:
            self.decoded += 1
            return self._walk(self._parse(data))
        if self._level is Level.PARSED:
            self.decoded += 1
            message = self._parse(data)
            if (found := self._known.get(data)) is not None:
                self.reused += 1
                return found
        elif (found := self._known.get(data)) is not None:
            self.reused += 1
            return found
        else:
            self.decoded += 1
            message = self._parse(data)
        found = self._known[data] = self._walk(message)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return found


def unbundled(data: bytes) -> Iterator[bytes]:
    """The messages of a bundle of the slicer; any other message as it is."""
    if not data or data[0] != _BUNDLE_TAG:
        yield data
        return
    _, position = _length(data, 1)
    while position < len(data):
        size, position = _length(data, position + 1)
        yield data[position : position + size]
        position += size


def _length(data: bytes, position: int) -> tuple[int, int]:
    """A varint, and where it ends."""
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7


def delta(message: pb.StreamResponse) -> Delta:
    """Goes through a message of the slicer."""
    kind = message.WhichOneof("message")
    match kind:
        case "frame":
            return Delta(kind, message, [_content(piece) for piece in message.frame.pieces])
        case "snapshot_chunk":
            pieces = message.snapshot_chunk.pieces
            return Delta(kind, message, [_content(piece) for piece in pieces])
        case _:
            return Delta(kind, message)


def _content(piece: pb.Piece) -> Content:
    endpoints = {item.node_index << 32 | item.id: item for item in piece.endpoints}
    base = piece.base_revision
    since = {key: base - item.generation_lag for key, item in endpoints.items()}
    content = Content(endpoints, array("Q", endpoints), array("Q", since.values()))
    content.oldest = min(content.since, default=base)
    if piece.removals:
        _take_removals(piece.removals, content)
    content.others = {
        (kind, key(item)): item for name, kind, key in _OTHERS for item in getattr(piece, name)
    }
    return content


def _take_removals(removals: Iterable[pb.Removal], content: Content) -> None:
    removed, went, left, others = [], array("Q"), [], []
    for item in removals:
        if item.kind == pb.KIND_ENDPOINT:
            key = int.from_bytes(item.key)
            removed.append(key)
            if not item.left_span:
                went.append(key)
            continue
        others.append((int(item.kind), item.key))
        if item.kind == pb.KIND_IDENTITY and item.left_span:
            left.append(int.from_bytes(item.key))
    content.removed, content.went = removed, went
    content.left, content.removed_others = left, others


def whole_endpoint(message: rpc_pb2.WatchResponse) -> Listed:
    """Goes through a message of mode `endpoint`: every object whole."""
    return _listed(message, registry_pb2.Endpoint.FromString)


def whole_slice(message: rpc_pb2.WatchResponse) -> Listed:
    """Goes through a message of mode `slice`: every slice whole."""
    return _listed(message, _members)


def _members(value: bytes) -> dict[int, Endpoint]:
    members = registry_pb2.ListEndpointsResponse.FromString(value).endpoints
    return {endpoint_key(item.node_index, item.id): item for item in members}


def _listed(
    message: rpc_pb2.WatchResponse, parse: Callable[[bytes], Endpoint | Mapping[int, Endpoint]]
) -> Listed:
    return Listed(
        [
            (event.kv.key, None if event.type == rpc_pb2.Event.DELETE else parse(event.kv.value))
            for event in message.events
        ],
        message.created,
        message.header.revision,
    )


DeltaDecoder = Decoder[pb.StreamResponse, Delta]
ListedDecoder = Decoder[rpc_pb2.WatchResponse, Listed]


def decoder_of(mode: str, level: Level) -> DeltaDecoder | ListedDecoder:
    """What the agents of a process decode with. mode: endpoint, slice or delta."""
    if mode == "delta":
        return Decoder(pb.StreamResponse.FromString, delta, level)
    walk = whole_slice if mode == "slice" else whole_endpoint
    return Decoder(rpc_pb2.WatchResponse.FromString, walk, level)
