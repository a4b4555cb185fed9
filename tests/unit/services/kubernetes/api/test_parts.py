"""Lines, pauses, failures and events, each by itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.errors import Invalid, Unavailable
from services.kubernetes.api import failures
from services.kubernetes.api import resource as resources
from services.kubernetes.api.backoff import Backoff, Pauses
from services.kubernetes.api.events import EventType, Report, micro_time
from services.kubernetes.api.failures import Expired, Throttled
from services.kubernetes.api.lines import Lines
from services.kubernetes.api.types import ObjectMeta


@given(
    st.lists(st.binary(min_size=1, max_size=20).filter(lambda it: b"\n" not in it and it.strip())),
    st.lists(st.integers(1, 30), min_size=1),
)
def test_lines_do_not_depend_on_chunks(wanted: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(line + b"\n" for line in wanted)
    lines, found, turn = Lines(), [], 0
    while stream:
        size = sizes[turn % len(sizes)]
        found += lines.feed(stream[:size])
        stream, turn = stream[size:], turn + 1
    assert found == wanted


def test_a_line_has_a_longest_size() -> None:
    lines = Lines(longest_bytes=10)
    assert lines.feed(b"0123456789\n") == [b"0123456789"]
    for first, second in (
        (b"x", b"01234567890\n"),
        (b"012345", b"67890"),
        (b"x\n", b"01234567890"),
    ):
        lines = Lines(longest_bytes=10)
        lines.feed(first)
        with pytest.raises(Unavailable, match="longer than 10 bytes"):
            lines.feed(second)


def test_pauses_double_up_to_the_longest_and_begin_again() -> None:
    backoff = Backoff(Pauses(first=1, longest=8, spread=0.5), lambda: 0.5)
    assert [backoff.failed() for _ in range(5)] == [1.25, 2.5, 5.0, 10.0, 10.0]
    for _ in range(2000):
        assert backoff.failed() == 10.0
    backoff.succeeded()
    assert backoff.failed() == 1.25


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry-after": "3"}, b"", 3.0),
        ({"retry-after": "100000"}, b"", 60.0),
        ({"retry-after": "9" * 50}, b"", 1.0),
        ({"retry-after": "soon"}, b"", 1.0),
        ({"retry-after": "0"}, b"", 1.0),
        ({}, b'{"details":{"retryAfterSeconds":4}}', 4.0),
        ({}, b"<html>", 1.0),
    ],
)
def test_when_to_come_again(headers: dict[str, str], body: bytes, seconds: float) -> None:
    error = failures.of_answer("list pods", 429, body, headers)
    assert isinstance(error, Throttled)
    assert error.retry_after_seconds == seconds


def test_what_a_watch_says_without_a_code() -> None:
    error = failures.of_event("watch pods", b'{"reason":"Expired","message":"too old"}')
    assert isinstance(error, Expired)
    assert str(error) == "watch pods: 0 Expired: too old"
    assert type(failures.of_event("watch pods", b"\xff\xfe")) is Unavailable


def test_micro_time() -> None:
    assert micro_time(0) == "1970-01-01T00:00:00.000000Z"
    assert micro_time(1_790_000_000_000_999_999) == "2026-09-21T14:13:20.000999Z"


@pytest.mark.parametrize("fields", [{"reason": ""}, {"reason": "x" * 129}, {"action": ""}])
def test_reports_that_the_api_would_refuse(fields: dict[str, str]) -> None:
    words = {"reason": "PolicyRefused", "note": "why"} | fields
    with pytest.raises(Invalid):
        Report(
            resource=resources.PODS,
            metadata=ObjectMeta(name="p", namespace="a"),
            type=EventType.NORMAL,
            **words,
        )
