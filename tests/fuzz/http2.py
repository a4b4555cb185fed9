"""What a gRPC server sends on a connection, as our own client reads it."""

import random
import struct
from collections.abc import Sequence

from deltaplane.runtime.http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    STREAM,
    WINDOW_UPDATE,
    Call,
    CallBroken,
    frame,
)

LARGEST = 1 << 16
STATUS = b"\x88\x00\x0bgrpc-status\x010\x00\x0cgrpc-message\x02no"


class Http2Target:
    """Bytes from the server, in pieces of lengths that the first byte decides."""

    def seeds(self) -> Sequence[bytes]:
        """Whole conversations."""
        message = struct.pack(">BI", 0, 5) + b"hello"
        settings = frame(SETTINGS, 0, 0, struct.pack(">HIHI", 4, 1 << 20, 5, 1 << 14))
        begin = settings + frame(SETTINGS, ACK, 0) + frame(HEADERS, END_HEADERS, STREAM, b"\x88")
        end = frame(HEADERS, END_HEADERS | END_STREAM, STREAM, STATUS)
        padded = frame(DATA, PADDED, STREAM, b"\x03" + message + bytes(3))
        split = frame(HEADERS, END_STREAM | PRIORITY, STREAM, bytes(5) + STATUS[:4])
        split += frame(CONTINUATION, END_HEADERS, STREAM, STATUS[4:])
        others = frame(PING, 0, 0, bytes(8)) + frame(WINDOW_UPDATE, 0, 0, bytes((0, 0, 1, 0)))
        lost = frame(RST_STREAM, 0, STREAM, bytes(4)), frame(GOAWAY, 0, 0, bytes(8) + b"bye")
        bodies = (
            begin + frame(DATA, 0, STREAM, message) + end,
            begin + others + padded + split,
            *(begin + frame(DATA, 0, STREAM, message[:3]) + piece for piece in lost),
        )
        return [bytes((size,)) + body for body in bodies for size in (0, 1, 7)]

    def words(self) -> Sequence[bytes]:
        """Frames' heads and header fields."""
        heads = [frame(kind, 0xFF, STREAM) for kind in range(11)]
        return (*heads, STATUS, b"\x1f\xff\xff\xff\xff\x0f", b"\x20", b"\x3f\xe1\x1f", b"\x80")

    def feed(self, data: bytes) -> None:
        """One conversation."""
        if not data:
            return
        call = Call("127.0.0.1:1", "/a/b", largest=LARGEST)
        call.send(b"x" * 100)
        size = data[0] or len(data)
        at = 1
        chance = random.Random(data[0])
        try:
            while at < len(data) and call.ended is None:
                step = size if size > 7 else chance.randint(1, size)
                call.receive(data[at : at + step])
                call.take_outgoing()
                at += step
        except CallBroken:
            pass

    def close(self) -> None:
        """Nothing to let go of."""
