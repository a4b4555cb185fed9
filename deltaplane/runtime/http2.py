"""One gRPC call on one HTTP/2 connection of its own, the client's side. No sockets, no clock.

    call = Call("127.0.0.1:4003", "/deltaplane.v1.Slicer/Stream")
    call.send(hello)
    socket.send(call.take_outgoing())
    for message in call.receive(socket.recv(1 << 18)):
        …

The cheapest thing that is still a real client: preface and settings, flow control in both
directions, answers to PING and SETTINGS, the 5 bytes in front of every gRPC message. It makes one
call and nothing else; whether it travels in TLS is the connection's business. It is for streams of
very many small messages, where grpc.aio's own work for each of them is most of what they cost: a
watch on etcd, and simulated agents.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from deltaplane.errors import Invalid, Unavailable
from deltaplane.runtime import hpack

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 3, 4, 6, 7, 8, 9,
)  # fmt: skip
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 4, 5

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STREAM = 1
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME = 16_384
LARGEST_FRAME = (1 << 24) - 1

STATUS_DIGITS = 3
"""Of a grpc-status; what is longer is none."""

RECEIVE_WINDOW = 1 << 20
"""Bytes that may be on their way to us. What gRPC's own clients grow to on a fast network."""

MESSAGE_HEAD = 5
LARGEST_MESSAGE = 64 << 20

_FRAME = struct.Struct(">IBI")
"""Length and type (24 + 8 bits), flags, stream."""

_FRAME_BYTES = _FRAME.size

_SETTING_BYTES = 6


class CallBroken(Unavailable):
    """The call cannot go on. Connect again."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call ended. code: grpc-status; None when the server said none."""

    code: int | None
    reason: str


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame."""
    return _FRAME.pack(len(payload) << 8 | kind, flags, stream) + payload


class Call:
    """The call. What is to be sent collects in `take_outgoing`.

    Attributes:
        ended: None while it goes on.
        received_bytes: on the connection, frames and all.
    """

    def __init__(
        self,
        authority: str,
        path: str,
        *,
        window: int = RECEIVE_WINDOW,
        largest: int = LARGEST_MESSAGE,
        metadata: Iterable[tuple[str, str]] = (),
        scheme: str = "http",
    ) -> None:
        """Begins it.

        Args:
            authority: whom it goes to.
            path: the method.
            window: bytes that may be on their way to us, connection and stream alike.
            largest: bytes of a message that is taken.
            metadata: headers of the request besides those that gRPC wants.
            scheme: https where the connection is made by TLS.
        """
        self.ended: Ended | None = None
        self.received_bytes = 0
        self._window = window
        self._largest = largest
        self._consumed = 0
        self._partial = b""  # the begin of a frame
        self._body: list[bytes] = []  # the begin of a message
        self._body_bytes = 0
        self._wanted = 0  # bytes of that message; 0: no message has begun
        self._headers: bytearray | None = None  # the begin of a header block
        self._headers_end_stream = False
        self._peer_window = DEFAULT_WINDOW  # of new streams
        self._stream_credit = DEFAULT_WINDOW
        self._connection_credit = DEFAULT_WINDOW
        self._peer_frame = DEFAULT_FRAME
        self._waiting = bytearray()  # messages that found no credit
        self._outgoing = bytearray(self._opening(scheme, authority, path, metadata))

    def _opening(
        self, scheme: str, authority: str, path: str, metadata: Iterable[tuple[str, str]]
    ) -> bytes:
        settings = (
            (HEADER_TABLE_SIZE, 0),
            (ENABLE_PUSH, 0),
            (INITIAL_WINDOW_SIZE, self._window),
        )
        headers = (
            (":method", "POST"),
            (":scheme", scheme),
            (":path", path),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "deltaplane"),
            *metadata,
        )
        opening = PREFACE + frame(
            SETTINGS, 0, 0, b"".join(struct.pack(">HI", *setting) for setting in settings)
        )
        if self._window > DEFAULT_WINDOW:
            opening += _window_update(0, self._window - DEFAULT_WINDOW)
        return opening + frame(HEADERS, END_HEADERS, STREAM, hpack.encode(headers))

    # --- out -------------------------------------------------------------------------------------

    def take_outgoing(self) -> bytes:
        """What has to be sent now; forgotten afterwards."""
        out = bytes(self._outgoing)
        self._outgoing.clear()
        return out

    def put_back(self, unsent: bytes) -> None:
        """Takes back what the socket did not take."""
        self._outgoing[:0] = unsent

    def send(self, message: bytes) -> None:
        """Sends a message, as far as the server's flow control allows; the rest follows."""
        self._waiting += b"\0" + len(message).to_bytes(4) + message
        self._pump()

    def _pump(self) -> None:
        while self._waiting:
            size = min(
                len(self._waiting), self._peer_frame, self._stream_credit, self._connection_credit
            )
            if size <= 0:
                return
            self._outgoing += frame(DATA, 0, STREAM, bytes(self._waiting[:size]))
            del self._waiting[:size]
            self._stream_credit -= size
            self._connection_credit -= size

    # --- in --------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[bytes]:
        """Takes what came from the socket and returns the messages that are complete.

        Raises:
            CallBroken: the server broke the protocol.
        """
        self.received_bytes += len(data)
        if self._partial:
            data = self._partial + data
        messages: list[bytes] = []
        position, end = 0, len(data)
        while end - position >= _FRAME_BYTES:
            head, flags, stream = _FRAME.unpack_from(data, position)
            start = position + _FRAME_BYTES
            stop = start + (head >> 8)
            if stop > end:
                break
            if head & 0xFF == DATA:
                self._data(data[start:stop], flags, messages)
            else:
                self._other(head & 0xFF, flags, stream, data[start:stop])
            position = stop
        self._partial = data[position:]
        return messages

    def _data(self, payload: bytes, flags: int, messages: list[bytes]) -> None:
        self._consumed += len(payload)
        if 2 * self._consumed >= self._window:
            # What has arrived counts as taken: whoever cannot take more stops reading the socket.
            self._outgoing += _window_update(0, self._consumed)
            self._outgoing += _window_update(STREAM, self._consumed)
            self._consumed = 0
        if flags & PADDED:
            payload = _unpadded(payload)
        if payload:
            self._messages(payload, messages)
        if flags & END_STREAM and self.ended is None:
            self.ended = Ended(None, "the server closed the stream")

    def _messages(self, body: bytes, messages: list[bytes]) -> None:
        if self._wanted:
            self._body.append(body)
            self._body_bytes += len(body)
            if self._body_bytes < self._wanted:
                return
            body = b"".join(self._body)
        position, end = 0, len(body)
        wanted = MESSAGE_HEAD
        while end - position >= MESSAGE_HEAD:
            size = int.from_bytes(body[position + 1 : position + MESSAGE_HEAD])
            if body[position]:
                raise CallBroken("a compressed message, which was not offered")
            if size > self._largest:
                raise CallBroken(f"a message of {size} bytes")
            wanted = MESSAGE_HEAD + size
            if end - position < wanted:
                break
            messages.append(body[position + MESSAGE_HEAD : position + wanted])
            position += wanted
            wanted = MESSAGE_HEAD
        self._body = [body[position:]] if position < end else []
        self._body_bytes = end - position
        self._wanted = wanted if self._body else 0

    def _other(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        match kind:
            case 1:  # HEADERS
                self._headers_begin(flags, payload)
            case 9:  # CONTINUATION
                self._headers_go_on(flags, payload)
            case 4 if not flags & ACK:  # SETTINGS
                self._settings(payload)
                self._outgoing += frame(SETTINGS, ACK, 0)
                self._pump()
            case 6 if not flags & ACK:  # PING
                self._outgoing += frame(PING, ACK, 0, payload)
            case 8:  # WINDOW_UPDATE
                self._more_credit(stream, int.from_bytes(payload) & 0x7FFF_FFFF)
            case 3:  # RST_STREAM
                code = int.from_bytes(payload)
                self.ended = self.ended or Ended(None, f"the server reset the stream, code {code}")
            case 7:  # GOAWAY
                text = payload[8:].decode("utf-8", "replace")
                self.ended = self.ended or Ended(None, f"the server goes away: {text}")
            case _:
                pass  # RFC 9113, 5.5: what is not known is ignored

    def _settings(self, payload: bytes) -> None:
        if len(payload) % _SETTING_BYTES:
            raise CallBroken(f"settings of {len(payload)} bytes")
        for name, value in struct.iter_unpack(">HI", payload):
            if name == INITIAL_WINDOW_SIZE:
                self._stream_credit += value - self._peer_window
                self._peer_window = value
            elif name == MAX_FRAME_SIZE:
                # Nothing could be sent in frames without bytes.
                if not DEFAULT_FRAME <= value <= LARGEST_FRAME:
                    raise CallBroken(f"frames of at most {value} bytes")
                self._peer_frame = value

    def _more_credit(self, stream: int, amount: int) -> None:
        if stream:
            self._stream_credit += amount
        else:
            self._connection_credit += amount
        self._pump()

    def _headers_begin(self, flags: int, payload: bytes) -> None:
        if flags & PADDED:
            payload = _unpadded(payload)
        if flags & PRIORITY:
            payload = payload[5:]
        self._headers = bytearray()
        self._headers_end_stream = bool(flags & END_STREAM)
        self._headers_go_on(flags, payload)

    def _headers_go_on(self, flags: int, payload: bytes) -> None:
        if self._headers is None:
            raise CallBroken("headers go on that have not begun")
        self._headers += payload
        if not flags & END_HEADERS:
            return
        block, self._headers = bytes(self._headers), None
        if self._headers_end_stream:
            try:
                found = dict(hpack.decode(block))
            except Invalid as error:
                raise CallBroken(str(error)) from error
            status = found.get("grpc-status", "")
            self.ended = Ended(
                int(status) if status.isdecimal() and len(status) <= STATUS_DIGITS else None,
                found.get("grpc-message", "") or f"HTTP status {found.get(':status', 'unknown')}",
            )


def _unpadded(payload: bytes) -> bytes:
    """What is between the length of the padding and the padding."""
    if not payload or payload[0] >= len(payload):
        raise CallBroken("more padding than there are bytes")
    return payload[1 : len(payload) - payload[0]]


def _window_update(stream: int, amount: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, amount.to_bytes(4))
