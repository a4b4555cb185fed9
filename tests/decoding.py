"""What a server has written, for tests that look at one message at a time."""

from deltaplane.delta.messages import ServerMessage
from deltaplane.delta.wire import decode_responses


def decode_response(data: bytes) -> ServerMessage:
    """A message that came alone."""
    ((message, _),) = decode_responses(data)
    return message
