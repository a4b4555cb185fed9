"""The messages of the stream ↔ deltaplane.v1 protobuf bytes.

Fragments, pieces and frames are put together by hand: a protobuf message is the concatenation of
its fields, so bytes that were encoded once can become part of any number of messages.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeVar, assert_never

from google.protobuf.message import DecodeError, Message

from deltaplane.delta import messages as m
from deltaplane.delta.changes import Change, Removal, Upsert
from deltaplane.delta.digest import BUCKETS
from deltaplane.delta.slices import Slice
from deltaplane.delta.span import Scope
from deltaplane.delta.wire.objects import deltas, object_from_proto, object_to_proto
from deltaplane.errors import Invalid
from deltaplane.model.objects import EndpointObject, Kind
from deltaplane.v1 import slicer_pb2 as pb

T = TypeVar("T")

_LENGTH_DELIMITED = 2
_DIGEST_BYTES = 16

_FIELD_OF = {
    Kind.NODE: "nodes",
    Kind.BLOCK: "blocks",
    Kind.IDENTITY: "identities",
    Kind.ENDPOINT: "endpoints",
    Kind.PEER_SET: "peer_sets",
    Kind.SUBJECT_POLICY: "subject_policies",
    Kind.POOL: "pools",
    Kind.SERVICE: "services",
    Kind.BACKEND: "backends",
}


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _tag(message: type[Message], field: str) -> bytes:
    number = message.DESCRIPTOR.fields_by_name[field].number
    return _varint(number << 3 | _LENGTH_DELIMITED)


def _field(tag: bytes, data: bytes) -> bytes:
    return tag + _varint(len(data)) + data


_CHANGE_TAGS = {kind: _tag(pb.Piece, field) for kind, field in _FIELD_OF.items()}
_REMOVAL_TAG = _tag(pb.Piece, "removals")
_FRAME_TAG = _tag(pb.StreamResponse, "frame")
_FRAME_PIECES_TAG = _tag(pb.Frame, "pieces")
_CHUNK_TAG = _tag(pb.StreamResponse, "snapshot_chunk")
_CHUNK_PIECES_TAG = _tag(pb.SnapshotChunk, "pieces")
_BUCKET_TAG = _tag(pb.StreamResponse, "bucket_replace")
_BUCKET_PIECES_TAG = _tag(pb.BucketReplace, "pieces")
_SLICES_TAG = _tag(pb.ListSlicesResponse, "slices")
_BUNDLE_TAG = _tag(pb.StreamResponse, "bundle")
_BUNDLE_MESSAGES_TAG = _tag(pb.Bundle, "messages")

BUNDLE_BYTES = 256 << 10
"""Of messages in a bundle: as much as the largest chunk of a snapshot."""


class ProtobufEncoder:
    """The encoding of the real stream."""

    def change(self, change: Change, base_revision: int) -> bytes:
        """A field of a Piece."""
        lag = base_revision - change.generation
        assert lag >= 0, (change, base_revision)
        if isinstance(change, Removal):
            removal = pb.Removal(
                kind=pb.Kind.ValueType(change.kind),
                key=change.key,
                incarnation_lag=base_revision - change.incarnation if change.incarnation else 0,
                generation_lag=lag,
                left_span=change.left_span,
            )
            return _field(_REMOVAL_TAG, removal.SerializeToString())
        message = object_to_proto(change.value, base_revision)
        message.generation_lag = lag
        if change.traceparent and isinstance(message, pb.EndpointUpsert):
            message.traceparent = change.traceparent
        return _field(_CHANGE_TAGS[change.value.kind], message.SerializeToString())

    def piece(self, base_revision: int, fragments: Sequence[bytes]) -> bytes:
        """The fields of a Piece."""
        head = pb.Piece(base_revision=base_revision).SerializeToString()
        return b"".join((head, *fragments))

    def frame(
        self,
        previous_revision: int,
        revision: int,
        oldest_change_unix_ns: int,
        pieces: Sequence[bytes],
        *,
        continues: bool = False,
    ) -> bytes:
        """A StreamResponse with a Frame."""
        head = pb.Frame(
            previous_revision=previous_revision,
            revision=revision,
            oldest_change_unix_ns=oldest_change_unix_ns,
            continues=continues,
        ).SerializeToString()
        body = b"".join((head, *(_field(_FRAME_PIECES_TAG, piece) for piece in pieces)))
        return _field(_FRAME_TAG, body)

    def chunk(self, snapshot_id: int, sequence: int, pieces: Sequence[bytes]) -> bytes:
        """A StreamResponse with a SnapshotChunk."""
        head = pb.SnapshotChunk(id=snapshot_id, sequence=sequence).SerializeToString()
        body = b"".join((head, *(_field(_CHUNK_PIECES_TAG, piece) for piece in pieces)))
        return _field(_CHUNK_TAG, body)

    def bucket(self, bucket: int, revision: int, pieces: Sequence[bytes], *, last: bool) -> bytes:
        """A StreamResponse with a BucketReplace."""
        head = pb.BucketReplace(revision=revision, bucket=bucket, last=last).SerializeToString()
        body = b"".join((head, *(_field(_BUCKET_PIECES_TAG, piece) for piece in pieces)))
        return _field(_BUCKET_TAG, body)

    def control(self, message: m.Control) -> bytes:
        """A StreamResponse without changes."""
        return _CONTROL_TO_PROTO[type(message)](message).SerializeToString()


def encode_slice(slice_: Slice, members: bytes) -> bytes:
    """A ListSlicesResponse with this slice alone: such concatenate to one with them all.

    Args:
        slice_: what it is.
        members: its members as fields of a piece (`Pieces.members`), whose numbers a Slice shares.
    """
    head = pb.Slice(
        id=slice_.id, identity=slice_.identity, generation=slice_.generation
    ).SerializeToString()
    return _field(_SLICES_TAG, head + members)


def bundled(batch: Sequence[bytes]) -> Iterator[bytes]:
    """Messages that are due at the same time, in as few writes as BUNDLE_BYTES allow.

    A write costs a server and an agent far more than the bytes of a small message.
    """
    start, size = 0, 0
    for position, data in enumerate(batch):
        if size and size + len(data) > BUNDLE_BYTES:
            yield _bundle(batch[start:position])
            start, size = position, 0
        size += len(data)
    if batch:
        yield _bundle(batch[start:])


def _bundle(batch: Sequence[bytes]) -> bytes:
    if len(batch) == 1:
        return batch[0]
    return _field(_BUNDLE_TAG, b"".join(_field(_BUNDLE_MESSAGES_TAG, data) for data in batch))


def _plain(field: str, cls: Callable[..., Message]) -> Callable[[Any], pb.StreamResponse]:
    """For messages whose dataclass has the fields of the protobuf message."""

    def convert(message: Any) -> pb.StreamResponse:  # noqa: ANN401 - any of the controls
        values = {name: getattr(message, name) for name in message.__slots__}
        return pb.StreamResponse(**{field: cls(**values)})  # type: ignore[arg-type]

    return convert


_CONTROL_TO_PROTO: Mapping[type, Callable[[Any], pb.StreamResponse]] = {
    m.Welcome: _plain("welcome", pb.Welcome),
    m.Barrier: _plain("barrier", pb.Barrier),
    m.SnapshotBegin: _plain("snapshot_begin", pb.SnapshotBegin),
    m.SnapshotEnd: _plain("snapshot_end", pb.SnapshotEnd),
    m.DigestRequest: _plain("digest_request", pb.DigestRequest),
    m.Drain: _plain("drain", pb.Drain),
    m.Reset: _plain("reset", pb.Reset),
}


def encode_request(message: m.ClientMessage) -> bytes:
    """An agent's message."""
    values = {name: getattr(message, name) for name in message.__slots__}
    match message:
        case m.Hello():
            values["held"] = _held_to_proto(message.held)
            request = pb.StreamRequest(hello=pb.Hello(**values))
        case m.Interest():
            request = pb.StreamRequest(interest=pb.Interest(**values))
        case m.Digests():
            values["buckets"] = b"".join(message.buckets)
            request = pb.StreamRequest(digests=pb.Digests(**values))
        case m.Ack():
            request = pb.StreamRequest(ack=pb.Ack(**values))
        case m.Nack():
            request = pb.StreamRequest(nack=pb.Nack(**values))
        case _:
            assert_never(message)
    return request.SerializeToString()


# --- from the wire -------------------------------------------------------------------------------


@contextlib.contextmanager
def _checked() -> Iterator[None]:
    """Turns every way in which strange bytes can fail into Invalid."""
    try:
        yield
    except (DecodeError, ValueError, OverflowError) as error:
        raise Invalid("", f"malformed stream message: {error}") from error


def decode_request(data: bytes) -> m.ClientMessage:
    """An agent's message.

    Raises:
        Invalid: malformed, or of a kind that this version does not take.
    """
    with _checked():
        request = pb.StreamRequest.FromString(data)
        match which := request.WhichOneof("message"):
            case "hello":
                return _copy(m.Hello, request.hello, held=_held_from_proto(request.hello.held))
            case "interest":
                interest = request.interest
                return m.Interest(number=interest.number, identities=tuple(interest.identities))
            case "digests":
                return _digests(request.digests)
            case "ack":
                return _copy(m.Ack, request.ack)
            case "nack":
                return _copy(m.Nack, request.nack, kind=Kind(request.nack.kind))
            case _:
                raise Invalid("message", f"{which} is not taken")


def decode_responses(data: bytes) -> Iterator[tuple[m.ServerMessage, int]]:
    """A server's messages that came together, and the size of each in bytes.

    Raises:
        Invalid: malformed, or of a kind that this version does not take.
    """
    with _checked():
        response = pb.StreamResponse.FromString(data)
    if response.WhichOneof("message") != "bundle":
        yield _response(response), len(data)
        return
    for inner in response.bundle.messages:
        yield _response(inner), inner.ByteSize()


def _response(response: pb.StreamResponse) -> m.ServerMessage:
    with _checked():
        match which := response.WhichOneof("message"):
            case "frame":
                frame = response.frame
                return _copy(m.Frame, frame, changes=tuple(_changes(frame.pieces)))
            case "snapshot_chunk":
                chunk = response.snapshot_chunk
                return _copy(m.SnapshotChunk, chunk, changes=tuple(_changes(chunk.pieces)))
            case "welcome":
                return _copy(m.Welcome, response.welcome, mode=m.Mode(response.welcome.mode))
            case "bucket_replace":
                bucket = response.bucket_replace
                return _copy(m.BucketReplace, bucket, changes=tuple(_changes(bucket.pieces)))
            case str() if which in _PLAIN_RESPONSES:
                return _copy(_PLAIN_RESPONSES[which], getattr(response, which))
            case _:
                raise Invalid("message", f"{which} is not taken")


_PLAIN_RESPONSES: Mapping[str, type[m.Control]] = {
    "barrier": m.Barrier,
    "snapshot_begin": m.SnapshotBegin,
    "snapshot_end": m.SnapshotEnd,
    "digest_request": m.DigestRequest,
    "drain": m.Drain,
    "reset": m.Reset,
}


def _held_to_proto(scope: Scope) -> pb.Held:
    return pb.Held(
        subject_deltas=deltas(sorted(scope.subjects)),
        peer_deltas=deltas(sorted(scope.peers)),
        peer_sets=sorted(scope.peer_sets),
    )


def _held_from_proto(held: pb.Held) -> Scope:
    return Scope(
        frozenset(accumulate(held.subject_deltas)),
        frozenset(held.peer_sets),
        frozenset(accumulate(held.peer_deltas)),
    )


def _digests(message: pb.Digests) -> m.Digests:
    data = message.buckets
    if len(data) != BUCKETS * _DIGEST_BYTES:
        raise Invalid("buckets", f"{BUCKETS * _DIGEST_BYTES} bytes are expected, not {len(data)}")
    starts = range(0, len(data), _DIGEST_BYTES)
    return m.Digests(
        revision=message.revision, buckets=tuple(data[at : at + _DIGEST_BYTES] for at in starts)
    )


def _copy(cls: type[T], message: Message, **given: object) -> T:
    """A dataclass from the protobuf fields of the same names, but for those that are given."""
    names: tuple[str, ...] = cls.__slots__  # type: ignore[attr-defined]
    return cls(**{name: getattr(message, name) for name in names if name not in given}, **given)


def _changes(pieces: Iterable[pb.Piece]) -> Iterator[Change]:
    """All changes. A piece holds an object at most once, so the order of kinds does not matter."""
    for piece in pieces:
        base = piece.base_revision
        for removal in piece.removals:
            kind = Kind(removal.kind)
            if kind not in _FIELD_OF:
                raise Invalid("removals", f"kind {kind.name} is not taken")
            yield Removal(
                kind=kind,
                key=removal.key,
                generation=base - removal.generation_lag,
                incarnation=(base - removal.incarnation_lag if kind is Kind.ENDPOINT else 0),
                left_span=removal.left_span,
            )
        for field in _FIELD_OF.values():
            for item in getattr(piece, field):
                value = object_from_proto(item, base)
                traceparent = item.traceparent if isinstance(value, EndpointObject) else ""
                yield Upsert(value, base - item.generation_lag, traceparent)
