"""Versions N and N+1 side by side: what the newer one adds, the older one passes over."""

import asyncio
import random
from collections.abc import Callable, Iterable

import pytest
from google.protobuf.message import Message

from deltaplane.delta.messages import StreamBroken
from deltaplane.delta.wire import decode_request, decode_responses
from deltaplane.errors import Invalid
from deltaplane.v1 import slicer_pb2
from tests.fuzz.draw import Draw
from tests.fuzz.services import MAKING, Context, Plane
from tests.fuzz.shapes import made
from tests.fuzz.templates import templates

ADDED = bytes.fromhex("e276") + b"\x03new" + bytes.fromhex("e876") + b"\x07"
"""Fields 1900 (bytes) and 1901 (a number), which no message has."""

SAMPLES, ENOUGH = 1200, 40


def newer(message: Message) -> Message:
    """The message as a later version might send it: with fields that we do not know, everywhere."""
    result = type(message)()
    result.CopyFrom(message)
    _add(result)
    return result


def _add(message: Message) -> None:
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for inner in [value] if isinstance(value, Message) else value:
            _add(inner)
    message.MergeFromString(ADDED)


@pytest.mark.parametrize(
    ("cls", "decode"),
    [
        pytest.param(slicer_pb2.StreamRequest, decode_request, id="agent to slicer"),
        pytest.param(
            slicer_pb2.StreamResponse,
            lambda data: [message for message, _ in decode_responses(data)],
            id="slicer to agent",
        ),
    ],
)
def test_fields_of_a_later_version_change_nothing_on_the_stream(
    cls: Callable[[], Message], decode: Callable[[bytes], object]
) -> None:
    chance = random.Random(1)
    compared = 0
    for _ in range(SAMPLES):
        message = made(cls, Draw(chance.randbytes(120)))
        try:
            wanted = decode(message.SerializeToString())
        except (Invalid, StreamBroken):
            continue
        assert decode(newer(message).SerializeToString()) == wanted
        compared += 1
    assert compared >= ENOUGH


def test_services_take_the_requests_of_a_later_version() -> None:
    async def run(requests: Iterable[tuple[str, Message]]) -> list[str]:
        plane = Plane()
        await plane.start()
        methods = {method.name: method for method in plane.methods}
        try:
            for name, request in requests:
                await methods[name].call(newer(request), Context())
            plane.check()
        finally:
            await plane.stop()
        return [name for name, _ in requests]

    makers = [item for item in templates().items() if item[0].partition(".")[2].startswith(MAKING)]
    assert len(asyncio.run(run(makers))) >= 8
