import pytest

from deltaplane.errors import Compacted, Refused, Unavailable
from deltaplane.store.etcd_watch import Position, answers_prove, together
from deltaplane.store.etcdpb import rpc_pb2 as pb
from deltaplane.store.port import WatchBatch


def mark(revision: int, *, watch_id: int) -> pb.WatchResponse:
    return pb.WatchResponse(header=pb.ResponseHeader(revision=revision), watch_id=watch_id)


def events(*revisions: int, header: int = 1000) -> pb.WatchResponse:
    return pb.WatchResponse(
        header=pb.ResponseHeader(revision=header),
        events=[
            pb.Event(kv=pb.KeyValue(key=b"a", create_revision=1, mod_revision=revision))
            for revision in revisions
        ],
    )


def revision_of(batch: WatchBatch | None) -> int:
    assert batch is not None
    return batch.revision


@pytest.mark.parametrize(
    ("version", "proves"),
    [
        ("3.4.23", False),
        ("3.4.31", True),
        ("3.5.1", False),
        ("3.5.12", False),
        ("3.5.13", True),
        ("3.5.21+git", True),
        ("3.6.0-rc.1", True),
        ("4.0.0", True),
        ("3.3.27", False),
        ("", False),
    ],
)
def test_only_fixed_servers_prove_progress_by_their_answers(version: str, proves: bool) -> None:
    assert answers_prove(version) is proves


def test_the_cursor_follows_events_and_never_the_header() -> None:
    position = Position(cursor=10, answers_prove=True)
    batch = position.receive(events(11, 12, 12, header=900))
    assert revision_of(batch) == 12
    assert position.cursor == 12


def test_what_was_delivered_before_is_not_delivered_again() -> None:
    position = Position(cursor=10, answers_prove=True)
    assert position.receive(events(9, 10)) is None
    batch = position.receive(events(10, 11))
    assert batch is not None
    assert [event.mod_revision for event in batch.events] == [11]


def test_an_old_servers_answer_shows_life_but_proves_nothing() -> None:
    position = Position(cursor=10, answers_prove=False)
    assert revision_of(position.receive(mark(50, watch_id=-1))) == 10
    assert position.behind == 1
    # Its notification of the watch itself is in order.
    assert revision_of(position.receive(mark(40, watch_id=0))) == 40
    assert revision_of(position.receive(mark(40, watch_id=-1))) == 40
    assert position.behind == 0


def test_a_new_servers_answer_proves() -> None:
    position = Position(cursor=10, answers_prove=True)
    assert revision_of(position.receive(mark(50, watch_id=-1))) == 50


def test_a_mark_never_goes_back() -> None:
    position = Position(cursor=10, answers_prove=True)
    position.receive(mark(50, watch_id=0))
    assert revision_of(position.receive(mark(20, watch_id=0))) == 50
    position.receive(events(60))
    assert revision_of(position.receive(mark(20, watch_id=0))) == 60


def test_the_first_answer_of_a_watch_says_nothing() -> None:
    created = pb.WatchResponse(header=pb.ResponseHeader(revision=99), created=True)
    assert Position(cursor=10, answers_prove=True).receive(created) is None


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (pb.WatchResponse(canceled=True, compact_revision=7), Compacted),
        (pb.WatchResponse(canceled=True, created=True, compact_revision=7), Compacted),
        (pb.WatchResponse(canceled=True, cancel_reason="rpc error: permission denied"), Refused),
        (pb.WatchResponse(canceled=True, cancel_reason="etcdserver: no leader"), Unavailable),
    ],
)
def test_the_end_of_a_watch_is_an_error(response: pb.WatchResponse, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        Position(cursor=1, answers_prove=True).receive(response)


def spelt(batch: WatchBatch) -> tuple[int, list[int]]:
    return batch.revision, [event.mod_revision for event in batch.events]


def test_events_that_came_together_are_one_batch() -> None:
    position = Position(cursor=10, answers_prove=True)
    found = together(position, [events(9, 10), events(11, 12), events(12), events(13)])
    assert [spelt(batch) for batch in found] == [(13, [11, 12, 13])]


def test_a_mark_stands_where_it_came() -> None:
    position = Position(cursor=10, answers_prove=True)
    came = [events(11), events(12), mark(20, watch_id=0), events(21), mark(22, watch_id=0)]
    found = [spelt(batch) for batch in together(position, came)]
    assert found == [(12, [11, 12]), (20, []), (21, [21]), (22, [])]


def test_what_came_before_the_end_is_delivered() -> None:
    position = Position(cursor=10, answers_prove=True)
    ended = pb.WatchResponse(canceled=True, compact_revision=7)
    found = together(position, [events(11), ended, events(12)])
    assert spelt(next(found)) == (11, [11])
    with pytest.raises(Compacted):
        next(found)
