from itertools import pairwise

import pytest

from deltaplane.delta.changes import Change, Recorded, Removal, Upsert
from deltaplane.delta.log import CHUNK_BYTES, Limits, Log, Segment
from deltaplane.delta.messages import Frame
from deltaplane.delta.wire import ProtobufEncoder
from deltaplane.model.objects import Kind, PeerSet, StreamObject
from tests.decoding import decode_response

ENCODER = ProtobufEncoder()


def peer_set(number: int, *identities: int) -> PeerSet:
    return PeerSet(set_key=number.to_bytes(16), identities=identities)


def segment(
    previous: int,
    revision: int,
    *changes: tuple[Change, StreamObject | None],
    events: tuple[int, ...] | None = (),
    closed_at: float = 0.0,
) -> Segment:
    recorded = tuple(Recorded(c, before, ENCODER.change(c, revision)) for c, before in changes)
    piece = ENCODER.piece(revision, [r.fragment for r in recorded])
    return Segment(
        previous=previous,
        revision=revision,
        events=(revision,) if events == () else events,
        oldest_change_unix_ns=revision * 10,
        closed_at=closed_at,
        changes=recorded,
        data=ENCODER.frame(previous, revision, revision * 10, [piece]) if changes else b"",
    )


def frames(log: Log, cursor: int) -> list[Frame]:
    found = log.read(cursor)
    assert found is not None
    decoded = [decode_response(data) for data in found]
    assert all(isinstance(message, Frame) for message in decoded)
    return decoded  # type: ignore[return-value]


@pytest.fixture
def log() -> Log:
    """Cuts at 10, 20, 30 and 40; 50 is scanned. What happened inside (20, 30] is not known."""
    log = Log(ENCODER, 10)
    log.append(segment(10, 20, (Upsert(peer_set(1, 300), 20), None), events=(13, 17)))
    log.append(segment(20, 30, (Upsert(peer_set(2, 300), 30), None), events=None))
    log.append(segment(30, 40, events=(35,)))
    log.head = 50
    return log


@pytest.mark.parametrize(
    ("revision", "cut"),
    [
        (9, None),  # before the log
        (10, 10),
        (12, 10),  # before the first write of the tick
        (13, None),  # in the middle of a tick
        (16, None),
        (17, 20),  # after its last write
        (20, 20),
        (21, None),  # history lost
        (30, 30),
        (34, 30),
        (35, 40),
        (40, 40),
        (47, 40),  # scanned, nothing happened
        (50, 40),
        (51, None),  # not scanned
    ],
)
def test_cut_for(log: Log, revision: int, cut: int | None) -> None:
    assert log.cut_for(revision) == cut


@pytest.mark.parametrize(
    ("applied", "effective"),
    [
        (5, 5),  # history gone: nothing more is proved
        (10, 12),
        (14, 16),  # a barrier of another replica; the next write is 17
        (20, 20),  # (20, 30] may have changed anything
        (25, 25),
        (30, 34),  # 35 left no change, but what came and went there was seen by others
        (34, 34),
        (35, 50),  # nothing was written since
        (50, 50),
        (60, 60),  # more than we have scanned
    ],
)
def test_effective(log: Log, applied: int, effective: int) -> None:
    assert log.effective(applied) == effective


def test_oldest_change_between(log: Log) -> None:
    assert log.oldest_change_between(10, 40) == 200
    assert log.oldest_change_between(20, 40) == 300
    assert log.oldest_change_between(20, 29) is None
    assert log.oldest_change_between(30, 40) is None


def test_one_frame_behind_is_that_very_frame(log: Log) -> None:
    (data,) = log.read(20) or ()
    assert data is log.read(20)[0]  # type: ignore[index]
    assert [f.revision for f in frames(log, 20)] == [30]
    assert frames(log, 30) == frames(log, 40) == []


def test_further_behind_gets_one_merge_for_all(log: Log) -> None:
    assert log.read(10) is log.read(10)
    (merged,) = frames(log, 10)
    assert (merged.previous_revision, merged.revision) == (10, 30)
    assert merged.changes == (Upsert(peer_set(1, 300), 20), Upsert(peer_set(2, 300), 30))


def test_merge_keeps_the_last_change_and_drops_what_came_and_went() -> None:
    log = Log(ENCODER, 10)
    gone = Removal(kind=Kind.PEER_SET, key=(2).to_bytes(16), generation=30)
    log.append(
        segment(10, 20, (Upsert(peer_set(1, 300), 20), None), (Upsert(peer_set(2, 300), 20), None))
    )
    log.append(
        segment(20, 30, (gone, peer_set(2, 300)), (Upsert(peer_set(1, 301), 30), peer_set(1, 300)))
    )
    (merged,) = frames(log, 10)
    assert merged.changes == (Upsert(peer_set(1, 301), 30),)
    (last,) = frames(log, 20)
    assert last.changes == (gone, Upsert(peer_set(1, 301), 30))


def test_large_merges_are_split_at_ticks() -> None:
    log = Log(ENCODER, 0)
    large = tuple(range(1, 1 + (1 << 30) * 3, 1 << 12))[: CHUNK_BYTES // 4]
    for number in range(1, 5):
        change = Upsert(peer_set(number, *large), number)
        log.append(segment(number - 1, number, (change, None)))
    parts = frames(log, 0)
    assert len(parts) > 1
    assert parts[0].previous_revision == 0
    for before, after in pairwise(parts):
        assert after.previous_revision == before.revision
    assert sum(len(part.changes) for part in parts) == 4


def test_history_is_bounded_by_age_and_size() -> None:
    log = Log(ENCODER, 0, Limits(max_bytes=10_000, max_seconds=60))
    for number in range(1, 200):
        change = Upsert(peer_set(number, 300), number)
        log.append(segment(number - 1, number, (change, None), closed_at=float(number)))
    assert log.start > 150
    assert log.read(log.start - 1) is None
    assert len(frames(log, log.start)[0].changes) == log.cut - log.start

    by_age = Log(ENCODER, 0, Limits(max_seconds=60))
    for number in range(1, 200):
        by_age.append(segment(number - 1, number, closed_at=float(number)))
    assert by_age.start == 138
