"""calls.c: what goes well, what does not, and that somebody notices."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.services.calling import Caller, build, calling, decode, failures, serving
from lab import netns

NAME = "dpcalls"
ENOUGH = 20


@pytest.fixture
def namespace() -> Iterator[str]:
    netns.create(NAME)
    try:
        netns.ip_batch(NAME, ["link set lo up"])
        yield NAME
    finally:
        netns.delete(NAME)


def await_calls(caller: Caller, count: int) -> None:
    while caller.count < count:
        time.sleep(0.001)


@pytest.mark.serial
def test_calls_are_answered_or_said_to_have_failed(tmp_path: Path, namespace: str) -> None:
    program = build(tmp_path)
    targets = [("127.0.0.1", 80), ("::1", 80), ("::1", 81)]
    with (
        serving(program, [namespace], 80),
        calling(program, namespace, targets, interval_us=500) as caller,
    ):
        await_calls(caller, ENOUGH)

    calls = caller.calls()
    assert [call.target for call in calls[:4]] == [0, 1, 2, 0]
    assert [call.ended_ms for call in calls] == sorted(call.ended_ms for call in calls)
    assert all(call.took_ns for call in calls)
    assert failures([call for call in calls if call.target < 2]) == {}
    refused = [call for call in calls if call.target == 2]
    assert failures(refused) == {"connect 111": len(refused)}


def test_a_part_of_a_call_is_left_out() -> None:
    whole = bytes((1, 0, 3, 111, 2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0))
    (call,) = decode(whole + whole[:-1])
    assert (call.target, call.failed, call.ended_ms, call.took_ns) == (1, "receive 111", 2, 5)
