from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from deltaplane.delta.sender import Published
from deltaplane.model.addresses import AddressPair
from deltaplane.model.objects import EndpointObject
from deltaplane.runtime import trace, tracing
from deltaplane.runtime.propagation import Stage
from deltaplane.runtime.recording import SdkRecorder
from services.slicer.facts import EndpointRecord, Record
from services.slicer.tracing import Stages

CHANGED = Published(1, 100)
NOTHING = Published(0, 0)
MS = 1_000_000


@pytest.fixture
def recorded() -> Iterator[None]:
    with tracing.recording(SdkRecorder(process="slicer", ratio=1.0)):
        yield


def record(number: int, traceparent: str = "") -> Record:
    value = EndpointObject(
        node_index=1,
        id=number,
        identity=300,
        addresses=AddressPair(ipv4=bytes((10, 0, 0, number))),
        incarnation=number,
    )
    return Record(
        key=f"endpoints/{number}", generation=number, content=EndpointRecord(value, traceparent)
    )


def spans() -> list[dict[str, Any]]:
    answer: Any = tracing.finished()
    return list(answer["spans"])


def seconds(stage: Stage) -> float:
    return (
        REGISTRY.get_sample_value("deltaplane_propagation_seconds_sum", {"stage": stage.value})
        or 0.0
    )


@pytest.mark.usefixtures("recorded")
def test_a_tick_is_one_span_from_its_first_change_to_the_last_writer() -> None:
    first, second = (str(trace.make(sampled=True)) for _ in range(2))
    stages = Stages()
    stages.seen([record(1)], 10 * MS)
    stages.seen([record(2, first), record(3, second)], 12 * MS)
    stages.cut(Published(3, 200), 15 * MS)
    stages.seen([record(4, first)], 16 * MS)
    stages.sent(19 * MS, agents=4)

    (span,) = spans()
    assert (span["trace"], span["parent"]) == (first[3:35], first[36:52])
    assert [link["trace"] for link in span["links"]] == [second[3:35]]
    assert (span["start_unix_ns"], span["end_unix_ns"]) == (10 * MS, 19 * MS)
    assert span["events"] == [
        {"name": "cut", "unix_ns": 15 * MS},
        {"name": "sent", "unix_ns": 19 * MS},
    ]
    assert span["attributes"] == {"changes": 3, "bytes": 200, "agents": 4}

    # What came in between belongs to the next one.
    stages.cut(CHANGED, 20 * MS)
    stages.sent(21 * MS, agents=4)
    assert spans()[1]["start_unix_ns"] == 16 * MS


@pytest.mark.usefixtures("recorded")
def test_a_tick_without_sampled_changes_leaves_no_span() -> None:
    stages = Stages()
    stages.seen([record(1), record(2, str(trace.make(sampled=False)))], MS)
    stages.cut(CHANGED, 2 * MS)
    stages.sent(3 * MS, agents=1)
    assert spans() == []


@pytest.mark.usefixtures("recorded")
def test_a_tick_that_changed_nothing_leaves_no_span() -> None:
    stages = Stages()
    stages.seen([record(1, str(trace.make(sampled=True)))], MS)
    stages.cut(NOTHING, 2 * MS)
    stages.sent(3 * MS, agents=1)
    assert spans() == []


@pytest.mark.parametrize("on", [False, True])
def test_every_tick_is_measured(on: bool) -> None:
    before = {stage: seconds(stage) for stage in Stage}
    stages = Stages()
    with tracing.recording(SdkRecorder(process="slicer", ratio=1.0) if on else None):
        stages.seen([], 1000 * MS)
        stages.seen([record(1)], 2000 * MS)
        stages.seen([record(2)], 2500 * MS)
        stages.cut(CHANGED, 3000 * MS)
        stages.sent(5000 * MS, agents=1)
        stages.acked(2000 * MS, 9000 * MS)
        stages.acked(7777 * MS, 9999 * MS)
    grown = {stage: seconds(stage) - before[stage] for stage in Stage}
    assert grown[Stage.SEEN_TO_CUT] == pytest.approx(1.0)
    assert grown[Stage.CUT_TO_SENT] == pytest.approx(2.0)
    assert grown[Stage.CUT_TO_ACKED] == pytest.approx(6.0)
