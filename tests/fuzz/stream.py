"""The messages of the delta stream, as each side reads what the other sends."""

import random
from collections.abc import Sequence

from deltaplane.delta.messages import StreamBroken
from deltaplane.delta.wire import decode_request, decode_responses
from deltaplane.errors import Invalid
from deltaplane.v1 import slicer_pb2
from tests.fuzz.draw import Draw
from tests.fuzz.shapes import made

SEEDS = 40


class StreamTarget:
    """First byte: whether it is a request or a response, and made of decisions or as it comes."""

    def seeds(self) -> Sequence[bytes]:
        """Some of each."""
        chance = random.Random(7)
        return [bytes((number % 4,)) + chance.randbytes(300) for number in range(SEEDS)]

    def words(self) -> Sequence[bytes]:
        """None."""
        return ()

    def feed(self, data: bytes) -> None:
        """One message, read to its end."""
        draw = Draw(data)
        choice = draw.below(4)
        if choice < 2:
            body = draw.rest()
        else:
            cls = slicer_pb2.StreamRequest if choice == 2 else slicer_pb2.StreamResponse
            body = made(cls, draw).SerializeToString()
        try:
            if choice % 2 == 0:
                decode_request(body)
            else:
                list(decode_responses(body))
        except (Invalid, StreamBroken):
            pass

    def close(self) -> None:
        """Nothing to let go of."""
