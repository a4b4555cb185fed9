import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from deltaplane.runtime import trace, tracing
from deltaplane.runtime.recording import SdkRecorder
from deltaplane.v1 import registry_pb2 as pb
from tests.services.plane import Plane, endpoint, ok


@pytest.fixture(autouse=True)
def recorded() -> Iterator[None]:
    with tracing.recording(SdkRecorder(process="endpoints", ratio=1.0)):
        yield


def spans(trace_id: str) -> dict[str, dict[str, Any]]:
    answer: Any = tracing.finished(trace_id)
    return {span["name"]: span for span in answer["spans"]}


async def register(plane: Plane, number: int, traceparent: str) -> pb.Endpoint:
    request = pb.RegisterEndpointRequest(
        endpoint=endpoint(number), node_uid=plane.nodes["node-1"].uid
    )
    metadata = (("traceparent", traceparent),)
    answer = await ok(plane.registry.RegisterEndpoint(request, metadata=metadata))
    return answer.endpoint


async def test_a_registration_goes_on_with_the_agent_s_trace(any_plane: Plane) -> None:
    await any_plane.ready_node()
    sent = trace.make(sampled=True)

    stored = await register(any_plane, 1, str(sent))

    found = spans(sent.trace_id)
    call, transaction = found["RegisterEndpoint"], found["etcd transaction"]
    assert call["parent"] == sent.span_id
    assert transaction["parent"] == call["span"]
    assert transaction["attributes"] == {"endpoints": 1}
    # What follows from the record is part of the registration, not of what called it.
    assert stored.traceparent == f"00-{sent.trace_id}-{call['span']}-01"


async def test_registrations_of_one_transaction_share_its_span(any_plane: Plane) -> None:
    """How many come to one transaction is a matter of time: it goes on until some have."""
    await any_plane.ready_node(block="10.244.0.0/24")
    for request in ("1", "2", "3"):
        await any_plane.claim(request=request, pool="pool-node-1")
    sent: list[trace.Traceparent] = []
    revisions: set[int] = set()
    while len(revisions) == len(sent):
        first = len(sent) + 1
        sent += [trace.make(sampled=True) for _ in range(20)]
        async with asyncio.TaskGroup() as group:
            made = [
                group.create_task(register(any_plane, number, str(item)))
                for number, item in enumerate(sent[first - 1 :], start=first)
            ]
        revisions |= {task.result().meta.create_revision for task in made}

    for item in sent:
        found = spans(item.trace_id)
        assert found["RegisterEndpoint"]["parent"] == item.span_id
    together = [span for item in sent for span in [spans(item.trace_id).get("etcd transaction")]]
    served = {span["span"]: span["attributes"]["endpoints"] for span in together if span}
    assert sum(served.values()) == len(sent)
    assert len(served) < len(sent)


async def test_a_trace_that_is_not_sampled_is_kept_and_not_recorded(any_plane: Plane) -> None:
    await any_plane.ready_node()
    sent = trace.make(sampled=False)

    stored = await register(any_plane, 1, str(sent))

    assert stored.traceparent == str(sent)
    assert spans(sent.trace_id) == {}
