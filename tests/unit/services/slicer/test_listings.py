"""Listings that are encoded in advance say the same as those that are not."""

import asyncio

import pytest

from deltaplane.delta.changes import Removal, Upsert
from deltaplane.delta.pieces import Pieces
from deltaplane.delta.sender import Sender
from deltaplane.delta.tick import Tick
from deltaplane.delta.wire import ProtobufEncoder
from deltaplane.model.addresses import AddressPair
from deltaplane.model.objects import EndpointObject, Kind
from deltaplane.v1 import slicer_pb2
from services.slicer import listings

ENDPOINTS = 900
IDENTITIES = 4


class Still:
    """A clock on which encoding takes no time, so that nobody pauses for long."""

    def now(self) -> float:
        return 0.0

    def wall_ns(self) -> int:
        return 0


def endpoint(number: int) -> EndpointObject:
    return EndpointObject(
        node_index=1,
        id=number,
        identity=300 + number % IDENTITIES,
        addresses=AddressPair(
            ipv4=b"\x0a\x00" + number.to_bytes(2), ipv6=b"\xfd" + number.to_bytes(15)
        ),
        incarnation=5,
    )


@pytest.fixture
def sender() -> Sender:
    objects = [Upsert(endpoint(number), 5) for number in range(1, ENDPOINTS + 1)]
    return Sender(
        lineage=b"L" * 16,
        server_id="here",
        encoder=ProtobufEncoder(),
        revision=10,
        objects=objects,
    )


async def listed(pieces: Pieces) -> slicer_pb2.ListSlicesResponse:
    slices = list(pieces.slices.slices())
    data = await listings.page(slices, pieces, next_page_token="next", revision=7)
    return slicer_pb2.ListSlicesResponse.FromString(data)


async def test_a_listing_after_warming_encodes_nothing_and_says_the_same(sender: Sender) -> None:
    pieces = sender.pieces
    cold = await listed(Pieces(sender.view, ProtobufEncoder()))
    await listings.warm(pieces, Still())
    encoded = pieces.encoded
    assert await listed(pieces) == cold
    assert pieces.encoded == encoded == len(cold.slices)
    assert (cold.next_page_token, cold.revision) == ("next", 7)


async def test_others_get_turns_and_may_change_everything_meanwhile(sender: Sender) -> None:
    warming = asyncio.ensure_future(listings.warm(sender.pieces, Still()))
    turns = 0
    while not warming.done():
        await asyncio.sleep(0)
        turns += 1
        number = ENDPOINTS + 1 - turns
        gone = Removal(
            kind=Kind.ENDPOINT, key=endpoint(number).key, generation=10 + turns, incarnation=5
        )
        tick = Tick(
            revision=10 + turns, changes=(gone,), events=(10 + turns,), oldest_change_unix_ns=1
        )
        sender.publish(tick, now=0.0, wall_ns=0)
    await warming
    assert turns >= ENDPOINTS // (3 * listings.AT_ONCE)
    found = await listed(sender.pieces)
    assert found == await listed(Pieces(sender.view, ProtobufEncoder()))
    assert sum(len(one.endpoints) for one in found.slices) == ENDPOINTS - turns
