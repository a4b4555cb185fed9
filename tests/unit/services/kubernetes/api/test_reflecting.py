"""The state machine by itself: given what came, what is asked next and what is told."""

import json
from typing import Any

import msgspec
import pytest

from deltaplane.errors import DeltaplaneError, Invalid, NotFound, Refused, Unavailable
from services.kubernetes.api.changes import Event, Removed, Replaced, Unreadable, Upserted
from services.kubernetes.api.failures import Expired, Silent, Throttled
from services.kubernetes.api.reflecting import (
    USELESS_WATCHES,
    Encoded,
    GetChunk,
    OpenWatch,
    Reflection,
    Settings,
    Wait,
)
from services.kubernetes.api.types import INITIAL_EVENTS_END, Partial

DECODER = msgspec.json.Decoder(Partial)
AWAY = Unavailable("nobody answers")


def reflection(*, optional: bool = False) -> Reflection[Partial]:
    return Reflection(
        "pods", DECODER.decode, lambda: 0.0, optional=optional, settings=Settings(chunk=2)
    )


def thing(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "a", "resourceVersion": str(version)}}


def line(kind: str, value: object) -> bytes:
    # As the API server writes it; other ways are in `test_lines_that_are_written_otherwise`.
    return json.dumps({"type": kind, "object": value}, separators=(",", ":")).encode()


def mark(version: int, *, end: bool = False) -> bytes:
    notes = {INITIAL_EVENTS_END: "true"} if end else {}
    return line("BOOKMARK", {"metadata": {"resourceVersion": str(version), "annotations": notes}})


def chunk(version: int, *names: str, more: str = "") -> bytes:
    items = [thing(name, 1) for name in names] or None
    metadata = {"resourceVersion": str(version), "continue": more}
    return json.dumps({"metadata": metadata, "items": items}).encode()


def told(core: Reflection[Partial], *lines: bytes) -> list[Event[Partial]]:
    return [event for it in lines if (event := core.line(it)) is not None]


def watch(core: Reflection[Partial]) -> dict[str, str]:
    """Opens the watch that is wanted now; its query."""
    step = core.next()
    assert isinstance(step, OpenWatch)
    core.opened()
    return step.params


def get(core: Reflection[Partial]) -> dict[str, str]:
    step = core.next()
    assert isinstance(step, GetChunk)
    return step.params


def waited(core: Reflection[Partial]) -> float:
    step = core.next()
    assert isinstance(step, Wait)
    return step.seconds


def fail(core: Reflection[Partial], error: DeltaplaneError) -> list[Event[Partial]]:
    event = core.failed(error)
    return [] if event is None else [event]


def listed(core: Reflection[Partial], body: bytes) -> list[Event[Partial]]:
    event = core.chunk(body)
    return [] if event is None else [event]


def keys(events: list[Event[Partial]]) -> list[set[str]]:
    return [set(it.objects) for it in events if isinstance(it, Replaced)]


def synced(version: int = 5, *, optional: bool = False) -> Reflection[Partial]:
    core = reflection(optional=optional)
    watch(core)
    assert len(told(core, mark(version, end=True))) == 1
    return core


def test_a_streaming_list_is_told_when_it_is_complete() -> None:
    core = reflection()
    assert watch(core) == {
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "300",
    }
    assert not told(core, line("ADDED", thing("x", 3)), line("ADDED", thing("y", 2)), mark(4))
    assert not told(core, line("DELETED", thing("y", 5)), line("MODIFIED", thing("x", 6)))
    before = core.synced
    (event,) = told(core, mark(7, end=True))
    assert isinstance(event, Replaced)
    assert (set(event.objects), event.resource_version) == ({"a/x"}, "7")
    assert event.objects["a/x"].metadata.resource_version == "6"
    assert (before, core.synced) == (False, True)
    added, removed = told(core, line("ADDED", thing("z", 8)), line("DELETED", thing("x", 9)))
    assert isinstance(added, Upserted)
    assert isinstance(removed, Removed)
    assert (added.key, removed.key) == ("a/z", "a/x")
    core.ended(300)
    assert watch(core)["resourceVersion"] == "9"


def test_a_streaming_list_that_breaks_off_is_told_by_nobody() -> None:
    core = reflection()
    watch(core)
    told(core, line("ADDED", thing("x", 3)))
    assert not fail(core, AWAY)
    assert waited(core) == 0.8
    watch(core)
    assert keys(told(core, mark(7, end=True))) == [set()], "x was of another list"


def test_chunks_where_there_are_no_streaming_lists() -> None:
    core = reflection()
    core.next()
    assert not fail(core, Invalid("", "forbidden"))
    assert get(core) == {"limit": "2"}
    assert not listed(core, chunk(5, "x", "y", more="t1"))
    fail(core, AWAY)
    waited(core)
    assert get(core) == {"limit": "2", "continue": "t1"}, "the same chunk again"
    assert keys(listed(core, chunk(5, "z"))) == [{"a/x", "a/y", "a/z"}]
    assert watch(core)["resourceVersion"] == "5"
    fail(core, Expired("gone"))
    assert get(core) == {"limit": "2"}, "it is not tried again on this server"


def test_a_list_that_expires_begins_again_without_what_it_had() -> None:
    core = reflection()
    core.next()
    fail(core, Invalid("", "forbidden"))
    get(core)
    listed(core, chunk(5, "x", "y", more="t1"))
    fail(core, Expired("the token is too old"))
    assert waited(core) > 0, "not in circles"
    assert get(core) == {"limit": "2"}
    assert keys(listed(core, chunk(9, "z"))) == [{"a/z"}]


def test_an_empty_list() -> None:
    core = reflection()
    core.next()
    fail(core, Invalid("", "forbidden"))
    get(core)
    assert keys(listed(core, chunk(5))) == [set()]


@pytest.mark.parametrize("way", ["exception", "line"])
def test_gone_history_means_a_list_at_once(way: str) -> None:
    core = synced()
    watch(core)
    error: DeltaplaneError = Expired("too old")
    if way == "line":
        with pytest.raises(Expired) as caught:
            told(core, line("ERROR", {"code": 410, "reason": "Expired", "message": "too old"}))
        error = caught.value
    assert not fail(core, error)
    assert not core.synced
    assert "sendInitialEvents" in watch(core)


def test_failures_are_waited_out_longer_each_time_and_resumed() -> None:
    core = synced(5)
    pauses = []
    for _ in range(7):
        core.next()
        fail(core, AWAY)
        pauses.append(waited(core))
    assert pauses == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0]
    assert watch(core)["resourceVersion"] == "5", "a server that is away is no reason to list"
    told(core, mark(6))
    fail(core, Throttled("busy", 7.0))
    assert waited(core) == 7.0, "what the server asks for"
    watch(core)
    fail(core, Refused("no longer"))
    assert waited(core) == 1.6
    assert core.synced


def test_silence_is_resumed_at_once_and_listed_after_a_while() -> None:
    core = synced(5)
    for _ in range(USELESS_WATCHES - 1):
        assert watch(core)["resourceVersion"] == "5"
        fail(core, Silent("nothing came"))
    told_once = watch(core)
    assert told_once["resourceVersion"] == "5"
    told(core, mark(6))
    for _ in range(USELESS_WATCHES):
        fail(core, Silent("nothing came"))
        assert watch(core)["resourceVersion"] == "6", "one of them brought a bookmark"
    fail(core, Silent("nothing came"))
    assert "sendInitialEvents" in watch(core), "perhaps the server has never had our version"


def test_a_version_that_the_server_refuses_means_a_list() -> None:
    core = synced()
    core.next()
    fail(core, Invalid("", "resourceVersion: Invalid value"))
    waited(core)
    assert "sendInitialEvents" in watch(core)


def test_a_watch_that_ends_at_once_is_a_failure() -> None:
    core = synced()
    watch(core)
    core.ended(0.1)
    assert waited(core) == 0.8
    watch(core)
    core.ended(300.0)
    watch(core)
    told(core, mark(6))
    core.ended(0.1)
    watch(core)
    assert core.counts.failures == 1


def test_a_server_that_never_ends_streaming_lists_is_asked_for_chunks() -> None:
    core = reflection()
    for error in (Silent("nothing came"), AWAY):
        watch(core)
        told(core, line("ADDED", thing("x", 3)))
        fail(core, error)
        waited(core)
    get(core)
    listed(core, chunk(5, "x"))
    fail(core, Expired("too old"))
    assert "sendInitialEvents" in watch(core), "it may have been bad luck"


def test_a_server_that_is_away_says_nothing_about_streaming_lists() -> None:
    core = reflection()
    for _ in range(5):
        core.next()
        fail(core, AWAY)
        waited(core)
    assert "sendInitialEvents" in watch(core)


def test_a_custom_kind_may_be_missing() -> None:
    core = reflection(optional=True)
    core.next()
    (event,) = fail(core, NotFound("no such kind"))
    assert event == Replaced(objects={}, served=False)
    assert core.synced
    assert waited(core) == 30.0
    watch(core)
    assert keys(told(core, line("ADDED", thing("x", 3)), mark(4, end=True))) == [{"a/x"}]


def test_a_custom_kind_that_was_there_is_gone_after_three_answers() -> None:
    core = synced(optional=True)
    for _ in range(2):
        core.next()
        assert not fail(core, NotFound("no such kind"))
        waited(core)
    watch(core)
    core.ended(300.0)
    for answer in range(3):
        core.next()
        events = fail(core, NotFound("no such kind"))
        assert len(events) == (answer == 2), "a watch in between was accepted"
        waited(core)


def test_a_built_in_kind_is_never_missing() -> None:
    core = synced()
    for _ in range(10):
        core.next()
        assert not fail(core, NotFound("the proxy knows no page of that name"))
        waited(core)
    assert watch(core)["resourceVersion"] == "5"


def test_what_cannot_be_decoded_is_said_and_passed() -> None:
    core = reflection()
    watch(core)
    bad = {"metadata": {"name": "bad", "namespace": "a", "resourceVersion": "3", "labels": 1}}
    with pytest.raises(Unavailable, match="without metadata"):
        told(core, line("ADDED", bad))
    strict = Reflection("pods", refuse, lambda: 0.0)
    watch(strict)
    (event,) = told(strict, line("ADDED", thing("x", 3)), mark(4, end=True))
    assert isinstance(event, Replaced)
    assert event.unreadable == {"a/x": "spec: so not"}
    assert told(strict, line("MODIFIED", thing("x", 5)), line("DELETED", thing("x", 6))) == [
        Unreadable(key="a/x", reason="spec: so not"),
        Removed(key="a/x", last=None),
    ]
    assert watch(strict)["resourceVersion"] == "6"


def refuse(_encoded: Encoded) -> Partial:
    raise Invalid("spec", "so not")


@pytest.mark.parametrize(
    "bad", [b"", b"{", b'{"type":"NEWS","object":{}}', b'{"type":"ADDED"}', b"\xff", b'{"type":1}']
)
def test_a_line_that_is_none(bad: bytes) -> None:
    core = synced()
    watch(core)
    with pytest.raises(Unavailable):
        told(core, bad)


@pytest.mark.parametrize("bad", [b"", b"<html>", b"[]", b'{"items":[]}', b'{"items":{}}'])
def test_a_list_that_is_none(bad: bytes) -> None:
    core = reflection()
    core.next()
    fail(core, Invalid("", "forbidden"))
    get(core)
    with pytest.raises(Unavailable):
        listed(core, bad)


@pytest.mark.parametrize(
    "text",
    [
        '{ "type": "ADDED", "object": %s }',
        '{"object":%s,"type":"ADDED"}',
        '{"type":"ADDED","object":%s,"more":1}',
        '{"type":"ADDED","object":%s}  ',
    ],
)
def test_lines_that_are_written_otherwise(text: str) -> None:
    core = synced()
    watch(core)
    (event,) = told(core, (text % json.dumps(thing("x", 6))).encode())
    assert isinstance(event, Upserted)
    assert event.key == "a/x"
    core.ended(300.0)
    assert watch(core)["resourceVersion"] == "6"


def test_an_object_may_become_readable_while_the_list_comes() -> None:
    core = Reflection("pods", picky, lambda: 0.0)
    watch(core)
    for versions in ((3, 4), (4, 3)):
        told(core, *(line("ADDED", thing("x", version)) for version in versions))
    (event,) = told(core, mark(5, end=True))
    assert isinstance(event, Replaced)
    assert (set(event.objects), set(event.unreadable)) == (set(), {"a/x"})


def test_an_object_that_is_nested_by_the_thousand_ends_the_watch_and_nothing_else() -> None:
    core = synced()
    watch(core)
    deep = b'{"metadata":{"name":"x"},"spec":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
    for sent in (
        b'{"type":"ADDED","object":' + deep + b"}",
        b'{"object":' + deep + b',"type":"ADDED"}',
        b'{"type":"ERROR","object":' + deep + b"}",
    ):
        with pytest.raises(Unavailable):
            core.line(sent)
    assert watch(core)["resourceVersion"] == "5"
    core.failed(Expired("gone"))
    core.failed(Invalid("", "no streaming lists"))
    assert isinstance(core.next(), GetChunk)
    with pytest.raises(Unavailable):
        core.chunk(b'{"metadata":{"resourceVersion":"9"},"items":[' + deep + b"]}")


def picky(encoded: Encoded) -> Partial:
    """Odd versions are refused."""
    value = DECODER.decode(encoded)
    if int(value.metadata.resource_version) % 2:
        raise Invalid("metadata", "odd")
    return value
