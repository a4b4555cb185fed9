from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from deltaplane.delta.changes import Change, Removal, Upsert
from deltaplane.delta.messages import Ack, Frame
from deltaplane.model.addresses import AddressPair
from deltaplane.model.objects import EndpointObject, Kind
from deltaplane.runtime import trace, tracing
from deltaplane.runtime.recording import SdkRecorder
from nodeagent.tracing import AT_ONCE, Following


@pytest.fixture(autouse=True)
def recorded() -> Iterator[None]:
    with tracing.recording(SdkRecorder(process="agent", instance="node-2", ratio=1.0)):
        yield


class Time:
    """Moves on by one with each look."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 1
        return self.now


def upsert(number: int, traceparent: str = "") -> Upsert:
    value = EndpointObject(
        node_index=1,
        id=number,
        identity=300,
        addresses=AddressPair(ipv6=bytes(15) + bytes([number])),
        incarnation=number,
    )
    return Upsert(value, number, traceparent)


def frame(revision: int, changes: Sequence[Change]) -> Frame:
    return Frame(
        previous_revision=revision - 1,
        revision=revision,
        oldest_change_unix_ns=0,
        changes=tuple(changes),
    )


def ack(revision: int) -> Ack:
    return Ack(applied_revision=revision, received_revision=revision)


def spans() -> list[dict[str, Any]]:
    answer: Any = tracing.finished()
    return list(answer["spans"])


def sampled() -> str:
    return str(trace.make(sampled=True))


def test_a_sampled_change_is_followed_to_its_acknowledgement() -> None:
    parent = sampled()
    following = Following(Time())
    gone = Removal(kind=Kind.ENDPOINT, key=b"x", generation=5, incarnation=1)
    following.received(frame(7, [gone, upsert(1), upsert(2, parent)]))
    following.applied(6, barrier_ns=50)
    following.sent(ack(6))
    assert spans() == []

    following.applied(8, barrier_ns=100)
    following.applied(9, barrier_ns=200)
    following.sent(ack(8))

    (span,) = spans()
    assert (span["trace"], span["parent"]) == (parent[3:35], parent[36:52])
    times = {event["name"]: event["unix_ns"] for event in span["events"]}
    assert times["barrier"] == 100
    assert span["start_unix_ns"] < times["applied"] < times["acknowledged"]
    assert span["end_unix_ns"] == times["acknowledged"]


def test_an_ack_ends_only_what_it_acknowledges() -> None:
    following = Following(Time())
    following.received(frame(7, [upsert(1, sampled())]))
    following.received(frame(8, [upsert(2, sampled())]))
    following.applied(8, barrier_ns=1)
    following.sent(ack(7))
    assert len(spans()) == 1
    following.sent(ack(8))
    assert len(spans()) == 2


def test_a_lost_stream_forgets_what_will_come_again() -> None:
    following = Following(Time())
    following.received(frame(7, [upsert(1, sampled())]))
    following.lost()
    following.applied(7, barrier_ns=1)
    following.sent(ack(7))
    assert spans() == []


def test_not_more_than_a_few_are_followed_at_once() -> None:
    following = Following(Time())
    following.received(frame(7, [upsert(number, sampled()) for number in range(1, 100)]))
    following.applied(7, barrier_ns=1)
    following.sent(ack(7))
    assert len(spans()) == AT_ONCE


def test_what_is_not_sampled_is_not_followed() -> None:
    following = Following(Time())
    following.received(frame(7, [upsert(1, str(trace.make(sampled=False))), upsert(2, "nonsense")]))
    following.applied(7, barrier_ns=1)
    following.sent(ack(7))
    assert spans() == []
