from dataclasses import replace

import pytest

from deltaplane.delta.changes import Change, Removal, Upsert
from deltaplane.delta.log import CHUNK_BYTES, Limits
from deltaplane.delta.messages import (
    Ack,
    Barrier,
    Drain,
    Frame,
    Hello,
    Interest,
    Mode,
    Nack,
    ServerMessage,
    SnapshotBegin,
    SnapshotChunk,
    SnapshotEnd,
    StreamBroken,
    Welcome,
)
from deltaplane.delta.reader import Reader
from deltaplane.delta.sender import ACKS_AT_ONCE, Sender
from deltaplane.delta.tick import Tick
from deltaplane.delta.wire import ProtobufEncoder
from deltaplane.delta.writer import DIGEST_EVERY, POLL_MESSAGES
from deltaplane.model.objects import IdentityObject, Kind
from tests.decoding import decode_response

LINEAGE = b"L" * 16


def identity(number: int, revision: int, *labels: str) -> Upsert:
    return Upsert(IdentityObject(id=number, namespace="shop", labels=labels), revision)


def gone(number: int, revision: int) -> Removal:
    return Removal(kind=Kind.IDENTITY, key=number.to_bytes(4), generation=revision)


def make(*changes: Change, limits: Limits | None = None, is_scoped: bool = False) -> Sender:
    return Sender(
        lineage=LINEAGE,
        server_id="test",
        encoder=ProtobufEncoder(),
        revision=10,
        objects=changes,
        limits=limits,
        is_scoped=is_scoped,
    )


def hello(
    *, applied: int = 0, lineage: bytes = LINEAGE, digest: bytes = b"", credit: int = 1 << 20
) -> Hello:
    return Hello(
        node="node-1",
        node_uid="uid",
        lineage=lineage,
        applied_revision=applied,
        root_digest=digest,
        credit_bytes=credit,
    )


def publish(sender: Sender, revision: int, *changes: Change) -> None:
    tick = Tick(
        revision=revision, changes=changes, events=(revision,), oldest_change_unix_ns=revision
    )
    sender.publish(tick, now=0.0, wall_ns=revision)


def drain(sender: Sender, reader: Reader, now: float = 0.0) -> list[ServerMessage]:
    out: list[ServerMessage] = []
    while batch := sender.poll(reader, now):
        out += map(decode_response, batch)
    return out


def kinds(messages: list[ServerMessage]) -> list[type]:
    return [type(message) for message in messages]


def resumed(sender: Sender) -> Reader:
    """A reader at the sender's head that has been told so."""
    reader = sender.connect(hello(applied=sender.head), node_index=1, now=0.0)
    assert kinds(drain(sender, reader)) == [Welcome, Barrier]
    return reader


def test_a_new_agent_gets_a_snapshot_and_a_barrier() -> None:
    sender = make(identity(300, 5), identity(301, 6))
    reader = sender.connect(hello(), node_index=7, now=0.0)
    first, begin, *chunks, end, barrier = drain(sender, reader)
    assert isinstance(first, Welcome)
    assert (first.mode, first.node_index, first.lineage) == (Mode.SNAPSHOT, 7, LINEAGE)
    assert begin == SnapshotBegin(id=1, revision=10)
    changes = [c for chunk in chunks if isinstance(chunk, SnapshotChunk) for c in chunk.changes]
    assert sorted(map(repr, changes)) == sorted(map(repr, [identity(300, 5), identity(301, 6)]))
    assert end == SnapshotEnd(
        id=1, chunks=len(chunks), objects=2, root_digest=sender.view.digest.root
    )
    assert isinstance(barrier, Barrier)
    assert barrier.revision == 10


def test_chunks_are_bounded_and_snapshots_encoded_once() -> None:
    labels = tuple(f"key-{n}={'x' * 50}" for n in range(40))
    sender = make(*(identity(300 + n, 5, *labels) for n in range(400)))
    one = sender.connect(hello(credit=1 << 30), node_index=1, now=0.0)
    two = sender.connect(hello(credit=1 << 30), node_index=2, now=0.0)
    assert all(isinstance(data, bytes) and len(data) <= CHUNK_BYTES for data in one.outbox)
    assert len(one.outbox) > 4
    assert all(a is b for a, b in zip(list(one.outbox)[1:], list(two.outbox)[1:], strict=True))


def test_a_snapshot_after_a_change_shows_it() -> None:
    sender = make(identity(300, 5), identity(301, 6))
    drain(sender, sender.connect(hello(), node_index=1, now=0.0))
    publish(sender, 12, gone(300, 11), identity(302, 12))
    messages = drain(sender, sender.connect(hello(), node_index=1, now=0.0))
    shown = {
        change.object_key[1]
        for message in messages
        if isinstance(message, SnapshotChunk)
        for change in message.changes
    }
    assert shown == {(301).to_bytes(4), (302).to_bytes(4)}


def test_agents_that_keep_up_share_one_frame() -> None:
    sender = make()
    other = replace(hello(applied=10), node="node-2")
    readers = [resumed(sender), sender.connect(other, node_index=2, now=0.0)]
    sender.poll(readers[1], 0.0)
    publish(sender, 11, identity(300, 11))
    (one, *_), (two, *_) = (sender.poll(reader, 0.1) for reader in readers)
    assert one is two
    frame = decode_response(one)
    assert isinstance(frame, Frame)
    assert (frame.previous_revision, frame.revision) == (10, 11)
    assert frame.changes == (identity(300, 11),)


def test_a_frame_names_the_one_before() -> None:
    sender = make()
    reader = resumed(sender)
    previous = []
    for revision in (11, 15):
        publish(sender, revision, identity(300, revision))
        frame, _ = drain(sender, reader)
        assert isinstance(frame, Frame)
        previous.append(frame.previous_revision)
    assert previous == [10, 11]


def test_a_rewrite_of_the_same_value_travels_with_its_generation() -> None:
    sender = make(identity(300, 5))
    reader = resumed(sender)
    publish(sender, 11, identity(300, 11))
    frame, _ = drain(sender, reader)
    assert isinstance(frame, Frame)
    assert frame.changes == (identity(300, 11),)


def test_a_tick_that_changes_nothing_sends_nothing_but_counts() -> None:
    sender = make(identity(300, 5))
    reader = resumed(sender)
    publish(sender, 11)
    assert kinds(drain(sender, reader, 0.5)) == [Barrier]
    publish(sender, 12, identity(301, 12))
    frame, _ = drain(sender, reader, 0.6)
    assert isinstance(frame, Frame)
    assert frame.previous_revision == 10


@pytest.mark.parametrize(
    ("said", "mode"),
    [
        (hello(applied=12), Mode.RESUME),
        (hello(applied=10), Mode.RESUME),
        (hello(applied=9), Mode.SNAPSHOT),  # before the log
        (hello(applied=0), Mode.SNAPSHOT),
        (hello(applied=12, lineage=b"O" * 16), Mode.SNAPSHOT),
        (hello(applied=12, digest=b"something else.."), Mode.REPAIR),
        (hello(applied=9, digest=b"a view of before"), Mode.REPAIR),
    ],
)
def test_the_cheapest_step_that_is_right(said: Hello, mode: Mode) -> None:
    sender = make()
    publish(sender, 12, identity(300, 12))
    reader = sender.connect(said, node_index=1, now=0.0)
    assert reader.mode is mode
    assert reader.applied == (said.applied_revision if mode is Mode.RESUME else 0)


def test_resume_sends_what_was_missed() -> None:
    sender = make()
    publish(sender, 12, identity(300, 12))
    publish(sender, 14, identity(301, 14))
    reader = sender.connect(hello(applied=12), node_index=1, now=0.0)
    messages = drain(sender, reader)
    assert kinds(messages) == [Welcome, Barrier, Frame, Barrier]
    assert messages[1].revision == 12  # type: ignore[union-attr]
    assert messages[2].changes == (identity(301, 14),)  # type: ignore[union-attr]


def test_who_has_seen_more_than_we_must_wait() -> None:
    sender = make()
    ahead = hello(applied=11)
    assert sender.is_behind(ahead)
    with pytest.raises(StreamBroken):
        sender.connect(ahead, node_index=1, now=0.0)
    assert not sender.is_behind(hello(applied=11, lineage=b"O" * 16))
    sender.advance(11, wall_ns=0)
    assert not sender.is_behind(ahead)


def test_another_protocol_is_refused() -> None:
    later = Hello(node="n", node_uid="u", protocol_min=2, protocol_max=3)
    with pytest.raises(StreamBroken, match="protocol"):
        make().connect(later, node_index=1, now=0.0)


def test_bookmarks_every_second_and_digests_now_and_then() -> None:
    sender = make(identity(300, 5))
    reader = resumed(sender)
    assert sender.poll(reader, 0.9) == []
    assert sender.bookmark_at(reader) == 1.0
    barriers = []
    for second in range(1, 11):
        sender.advance(10 + second, wall_ns=second)
        (barrier,) = drain(sender, reader, float(second))
        assert isinstance(barrier, Barrier)
        barriers.append(barrier)
    assert [b.revision for b in barriers] == list(range(11, 21))
    assert barriers[-1].head_unix_ns == 10
    digests = [b.root_digest for b in barriers if b.root_digest]
    assert digests == [sender.view.digest.root] * (10 // DIGEST_EVERY)


def test_what_nothing_was_written_for_is_a_bookmark() -> None:
    sender = make()
    reader = sender.connect(hello(applied=0), node_index=1, now=0.0)
    first = drain(sender, reader)[-1]
    sender.advance(11, wall_ns=1)
    quiet = drain(sender, reader, 1.0)[-1]
    publish(sender, 12, identity(300, 12))
    after = drain(sender, reader, 1.1)[-1]
    found = [b.bookmark for b in (first, quiet, after) if isinstance(b, Barrier)]
    assert found == [False, True, False]


def test_without_credit_nothing_is_queued_and_later_all_is_merged() -> None:
    sender = make()
    reader = sender.connect(hello(applied=10, credit=1), node_index=1, now=0.0)
    drain(sender, reader)
    publish(sender, 11, identity(300, 11))
    assert kinds(drain(sender, reader)) == [Frame, Barrier]  # the last one may exceed it
    for revision in range(12, 100):
        publish(sender, revision, identity(300, revision), identity(301, revision))
        assert drain(sender, reader) == []
        assert not reader.outbox
    sender.receive(
        reader,
        Ack(applied_revision=11, received_revision=11, added_credit_bytes=10_000),
        now=1.0,
    )
    frame, barrier = drain(sender, reader)
    assert isinstance(frame, Frame)
    assert (frame.previous_revision, frame.revision) == (11, 99)
    assert frame.changes == (identity(300, 99), identity(301, 99))
    assert isinstance(barrier, Barrier)
    assert barrier.revision == 99


def test_signs_of_life_inside_a_snapshot_need_no_credit() -> None:
    labels = ("x" * 60_000,)
    sender = make(*(identity(300 + n, 5, *labels) for n in range(20)))
    reader = sender.connect(hello(credit=1), node_index=1, now=0.0)
    drain(sender, reader, 0.0)
    assert reader.outbox
    (sign,) = drain(sender, reader, 1.0)
    assert isinstance(sign, Barrier)
    assert sign.revision == 0


def test_one_that_falls_behind_the_log_gets_a_snapshot_in_the_stream() -> None:
    sender = make(limits=Limits(max_bytes=3000))
    reader = resumed(sender)
    for revision in range(11, 60):
        publish(sender, revision, identity(revision, revision))
    messages = drain(sender, reader, 0.5)
    assert kinds(messages) == [SnapshotBegin, SnapshotChunk, SnapshotEnd, Barrier]
    assert messages[0] == SnapshotBegin(id=1, revision=59)


def test_a_poll_is_bounded() -> None:
    labels = ("x" * 200_000,)
    sender = make(*(identity(300 + n, 5, *labels) for n in range(50)))
    reader = sender.connect(hello(credit=1 << 30), node_index=1, now=0.0)
    assert len(sender.poll(reader, 0.0)) <= POLL_MESSAGES + 1


def test_acks_move_forward_only_and_not_beyond_what_was_sent() -> None:
    sender = make()
    publish(sender, 12, identity(300, 12))
    reader = resumed(sender)
    publish(sender, 14, identity(301, 14))
    with pytest.raises(StreamBroken, match="14 acknowledged"):
        sender.receive(reader, Ack(applied_revision=14, received_revision=14), now=0.0)
    drain(sender, reader)
    sender.receive(reader, Ack(applied_revision=14, received_revision=14), now=3.0)
    sender.receive(reader, Ack(applied_revision=12, received_revision=14), now=4.0)
    assert (reader.applied, reader.heard_at) == (14, 4.0)
    with pytest.raises(StreamBroken):
        sender.receive(reader, hello(), now=0.0)


def test_effective_revision_needs_no_message_where_nothing_changed() -> None:
    sender = make()
    reader = resumed(sender)
    assert sender.effective(reader) == 10
    sender.advance(20, wall_ns=0)
    assert sender.effective(reader) == 20
    publish(sender, 30, identity(300, 30))
    assert sender.effective(reader) == 29
    assert sender.delays.unacknowledged_since_ns(reader) == 30
    drain(sender, reader)
    sender.receive(reader, Ack(applied_revision=30, received_revision=30), now=0.0)
    assert sender.effective(reader) == 30
    assert sender.delays.unacknowledged_since_ns(reader) is None


def test_an_agent_with_a_snapshot_is_effective_only_after_its_ack() -> None:
    sender = make()
    reader = sender.connect(hello(), node_index=1, now=0.0)
    drain(sender, reader)
    assert sender.effective(reader) == 0


def test_nacks_are_kept_until_taken_back() -> None:
    sender = make()
    reader = resumed(sender)
    sender.receive(reader, Nack(revision=10, kind=Kind.BLOCK, key=b"k", reason="no"), now=0.0)
    assert reader.refused == {(Kind.BLOCK, b"k"): "no"}
    sender.receive(reader, Nack(revision=11, kind=Kind.BLOCK, key=b"k", reason=""), now=0.0)
    assert reader.refused == {}


def test_the_newest_stream_of_a_node_stays() -> None:
    sender = make()
    old, new = (sender.connect(hello(), node_index=1, now=0.0) for _ in range(2))
    sender.disconnect(old)
    assert sender.readers == {"node-1": new}
    sender.disconnect(new)
    assert sender.readers == {}


def test_a_goodbye_goes_first() -> None:
    sender = make()
    reader = resumed(sender)
    publish(sender, 11, identity(300, 11))
    sender.say(reader, Drain(deadline_ms=1, retry_after_ms=2))
    assert kinds(drain(sender, reader)) == [Drain, Frame, Barrier]


def test_a_flood_of_acks_ends_the_stream() -> None:
    sender = make()
    reader = resumed(sender)
    for number in range(10 * ACKS_AT_ONCE):  # ten a second, as agents may
        sender.receive(reader, Ack(applied_revision=10, received_revision=10), now=number / 10)
    ack = Ack(applied_revision=10, received_revision=10)
    for _ in range(ACKS_AT_ONCE):
        sender.receive(reader, ack, now=100.0)
    with pytest.raises(StreamBroken, match="acknowledgements at once"):
        sender.receive(reader, ack, now=100.0)


def test_an_interest_in_what_is_not_there_is_passed_over() -> None:
    sender = make(identity(300, 5), is_scoped=True)
    reader = sender.connect(hello(applied=10), node_index=1, now=0.0)
    drain(sender, reader)
    sender.receive(reader, Interest(number=1, identities=(300, 999, 0)), now=0.0)
    frame, barrier = drain(sender, reader)
    assert isinstance(frame, Frame)
    assert frame.changes == (identity(300, 5),)
    assert isinstance(barrier, Barrier)
    assert (barrier.interest_number, barrier.span_version) == (1, 1)
    with pytest.raises(StreamBroken, match="4096 may be"):
        sender.receive(reader, Interest(number=2, identities=(300,) * 4097), now=0.0)
