import pytest

from deltaplane.delta.acks import LAZY_ACK_SECONDS, Refusal
from deltaplane.delta.changes import Change, Removal, Upsert
from deltaplane.delta.digest import bucket_of
from deltaplane.delta.messages import (
    Ack,
    Barrier,
    BucketReplace,
    DigestRequest,
    Digests,
    Drift,
    Frame,
    Hello,
    Mode,
    Nack,
    Reset,
    ServerMessage,
    SnapshotBegin,
    SnapshotChunk,
    SnapshotEnd,
    StreamBroken,
    Welcome,
)
from deltaplane.delta.receiver import (
    BarrierReached,
    Floor,
    Receiver,
)
from deltaplane.delta.view import View
from deltaplane.model.objects import IdentityObject, Kind

LINEAGE = b"L" * 16
OTHER = b"O" * 16


def identity(number: int, revision: int, namespace: str = "shop") -> Upsert:
    return Upsert(IdentityObject(id=number, namespace=namespace, labels=()), revision)


def key(number: int) -> tuple[Kind, bytes]:
    return Kind.IDENTITY, number.to_bytes(4)


def welcome(mode: Mode = Mode.SNAPSHOT, lineage: bytes = LINEAGE) -> Welcome:
    return Welcome(
        lineage=lineage,
        server_id="test",
        mode=mode,
        head_revision=0,
        bookmark_period_ms=1000,
        ack_interval_ms=100,
    )


def barrier(revision: int, digest: bytes = b"") -> Barrier:
    return Barrier(revision=revision, head_revision=revision, head_unix_ns=0, root_digest=digest)


def frame(previous: int, revision: int, *changes: Change) -> Frame:
    return Frame(
        previous_revision=previous, revision=revision, oldest_change_unix_ns=0, changes=changes
    )


def digest(*changes: Change) -> bytes:
    view = View()
    for change in changes:
        view.apply(change)
    return view.digest.root


def snapshot(revision: int, *changes: Change) -> list[ServerMessage]:
    chunks = [SnapshotChunk(id=1, sequence=n, changes=(c,)) for n, c in enumerate(changes)]
    end = SnapshotEnd(id=1, chunks=len(changes), objects=len(changes), root_digest=digest(*changes))
    return [SnapshotBegin(id=1, revision=revision), *chunks, end]


def feed(receiver: Receiver, *messages: ServerMessage) -> BarrierReached | None:
    for message in messages:
        receiver.receive(message, 100)
    return receiver.take_barrier()


@pytest.fixture
def fresh() -> Receiver:
    receiver = Receiver(node="node-1", node_uid="uid", credit_bytes=1000)
    receiver.hello()
    return receiver


@pytest.fixture
def receiver(fresh: Receiver) -> Receiver:
    """Holds identities 300 and 301 of revision 10, applied."""
    reached = feed(fresh, welcome(), *snapshot(10, identity(300, 5), identity(301, 6)), barrier(10))
    assert reached is not None
    fresh.applied(10)
    fresh.poll(0.0)
    return fresh


def test_a_fresh_agent_holds_nothing(fresh: Receiver) -> None:
    assert fresh.hello() == Hello(node="node-1", node_uid="uid", credit_bytes=1000)


def test_a_restarted_agent_names_its_floor() -> None:
    floor = Floor(lineage=LINEAGE, revision=9)
    hello = Receiver(node="n", node_uid="u", floor=floor).hello()
    assert (hello.lineage, hello.applied_revision, hello.floor_revision) == (LINEAGE, 0, 9)


def test_nothing_shows_before_the_barrier(fresh: Receiver) -> None:
    assert feed(fresh, welcome(), *snapshot(10, identity(300, 5))) is None
    assert len(fresh.view) == 0
    reached = feed(fresh, frame(10, 12, identity(301, 12)))
    assert reached is None
    reached = feed(fresh, barrier(12))
    assert reached is not None
    assert (reached.revision, reached.lineage, reached.complete) == (12, LINEAGE, True)
    assert reached.changed == {key(300), key(301)}
    assert reached.view.identities.keys() == {key(300)[1], key(301)[1]}


def test_a_snapshot_changes_only_what_differs(receiver: Receiver) -> None:
    receiver.hello()
    reached = feed(
        receiver,
        welcome(),
        *snapshot(20, identity(300, 5), identity(302, 15)),
        barrier(20),
    )
    assert reached is not None
    assert reached.changed == {key(301), key(302)}


def test_barriers_that_nobody_took_are_one(receiver: Receiver) -> None:
    receiver.receive(frame(10, 11, identity(302, 11)), 1)
    receiver.receive(barrier(11), 1)
    receiver.receive(frame(11, 12, identity(303, 12)), 1)
    reached = feed(receiver, barrier(12))
    assert reached is not None
    assert reached.revision == 12
    assert reached.changed == {key(302), key(303)}
    assert receiver.take_barrier() is None


def test_repeated_messages_change_nothing(receiver: Receiver) -> None:
    came = frame(10, 11, identity(302, 11))
    went = frame(11, 12, Removal(kind=Kind.IDENTITY, key=key(302)[1], generation=12))
    assert feed(receiver, came, went, came, barrier(12)) is not None
    before = digest(*(Upsert(held.value, held.generation) for held in receiver.view))
    assert key(302)[1] not in receiver.view.identities
    again = feed(receiver, came, went, barrier(12))
    assert again is not None
    assert again.changed == frozenset()
    assert receiver.view.digest.root == before


def test_bookmarks_move_the_revision(receiver: Receiver) -> None:
    reached = feed(receiver, barrier(17))
    assert reached is not None
    assert (reached.revision, reached.changed) == (17, frozenset())


def test_a_sign_of_life_inside_a_merge_is_no_barrier(receiver: Receiver) -> None:
    reached = feed(receiver, frame(10, 12, identity(302, 12)), barrier(10))
    assert reached is None
    assert feed(receiver, frame(12, 14), barrier(14)) is not None


def test_a_cut_stream_resumes_from_the_last_barrier(receiver: Receiver) -> None:
    receiver.receive(frame(10, 12, identity(302, 12)), 1)
    hello = receiver.hello()
    assert (hello.applied_revision, hello.lineage) == (10, LINEAGE)
    assert hello.root_digest == receiver.view.digest.root
    reached = feed(receiver, welcome(Mode.RESUME), frame(10, 13, identity(303, 13)), barrier(13))
    assert reached is not None
    assert reached.changed == {key(303)}


def test_a_hello_before_the_last_barrier_is_applied_is_a_bug(receiver: Receiver) -> None:
    receiver.receive(barrier(11), 1)
    with pytest.raises(AssertionError):
        receiver.hello()


def test_a_gap_asks_for_a_snapshot(receiver: Receiver) -> None:
    with pytest.raises(Drift):
        feed(receiver, frame(11, 12))
    assert receiver.take_barrier() is None
    hello = receiver.hello()
    assert (hello.lineage, hello.applied_revision) == (LINEAGE, 0)
    assert hello.floor_revision >= 10
    reached = feed(receiver, welcome(), *snapshot(30, identity(300, 5)), barrier(30))
    assert reached is not None
    assert key(301) in reached.changed


@pytest.mark.parametrize(
    "end",
    [
        SnapshotEnd(id=1, chunks=2, objects=1, root_digest=digest(identity(300, 5))),
        SnapshotEnd(id=1, chunks=1, objects=2, root_digest=digest(identity(300, 5))),
        SnapshotEnd(id=1, chunks=1, objects=1, root_digest=digest(identity(300, 6))),
    ],
)
def test_a_snapshot_that_does_not_add_up_replaces_nothing(
    receiver: Receiver, end: SnapshotEnd
) -> None:
    receiver.hello()
    with pytest.raises(Drift):
        feed(receiver, welcome(), *snapshot(20, identity(300, 5))[:-1], end)
    assert len(receiver.view) == 2


def test_no_snapshot_below_what_was_seen(receiver: Receiver) -> None:
    receiver.hello()
    with pytest.raises(StreamBroken, match="below 10"):
        feed(receiver, welcome(), *snapshot(9, identity(300, 5)))


def test_another_lineage_starts_anywhere(receiver: Receiver) -> None:
    receiver.hello()
    reached = feed(
        receiver, welcome(lineage=OTHER), *snapshot(3, identity(300, 2, "new")), barrier(3)
    )
    assert reached is not None
    assert (reached.revision, reached.lineage) == (3, OTHER)
    assert reached.changed == {key(300), key(301)}


BROKEN: dict[str, list[ServerMessage]] = {
    "before the welcome": [barrier(1)],
    "welcomed twice": [welcome(), welcome()],
    "resumed without a view": [welcome(Mode.RESUME)],
    "a mode of a later version": [welcome(Mode.PATCH)],
    "a frame without a snapshot": [welcome(), frame(1, 2)],
    "a frame inside a snapshot": [welcome(), SnapshotBegin(id=1, revision=5), frame(4, 6)],
    "a chunk of no snapshot": [welcome(), SnapshotChunk(id=1, sequence=0, changes=())],
    "a chunk of another snapshot": [
        welcome(),
        SnapshotBegin(id=1, revision=5),
        SnapshotChunk(id=2, sequence=0, changes=()),
    ],
    "a lost chunk": [
        welcome(),
        SnapshotBegin(id=1, revision=5),
        SnapshotChunk(id=1, sequence=1, changes=()),
    ],
    "a removal in a snapshot": [
        welcome(),
        SnapshotBegin(id=1, revision=5),
        SnapshotChunk(
            id=1, sequence=0, changes=(Removal(kind=Kind.IDENTITY, key=b"k", generation=1),)
        ),
    ],
    "reset": [welcome(), Reset(reason="because")],
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_streams_end(fresh: Receiver, name: str) -> None:
    with pytest.raises(StreamBroken):
        feed(fresh, *BROKEN[name])


def test_acks_keep_their_distance(receiver: Receiver) -> None:
    feed(receiver, barrier(11))
    receiver.applied(11, took_seconds=0.002)
    assert receiver.ack_due_at() == pytest.approx(0.1)
    assert receiver.poll(0.05) == ()
    assert receiver.poll(0.1) == (
        Ack(
            applied_revision=11,
            received_revision=11,
            # The snapshot's four messages came back with the first Ack.
            added_credit_bytes=0,
            worst_apply_us=2000,
            renewals=1,
        ),
    )
    assert receiver.ack_due_at() is None


def bookmark(revision: int) -> Barrier:
    return Barrier(revision=revision, head_revision=revision, head_unix_ns=0, bookmark=True)


def test_bookmarks_alone_are_acknowledged_late(receiver: Receiver) -> None:
    feed(receiver, bookmark(11))
    receiver.applied(11)
    assert receiver.ack_due_at() == LAZY_ACK_SECONDS
    assert receiver.poll(LAZY_ACK_SECONDS - 0.1) == ()
    (ack,) = receiver.poll(LAZY_ACK_SECONDS)
    assert isinstance(ack, Ack)
    assert ack.applied_revision == 11
    assert receiver.ack_due_at() is None


def test_a_bookmark_does_not_hold_up_the_barrier_before_it(receiver: Receiver) -> None:
    feed(receiver, barrier(11), bookmark(12))
    receiver.applied(12)
    assert receiver.ack_due_at() == pytest.approx(0.1)
    (ack,) = receiver.poll(0.1)
    assert isinstance(ack, Ack)
    assert ack.applied_revision == 12


def test_what_memory_has_lost_is_named_though_it_is_gone_for_everybody(receiver: Receiver) -> None:
    receiver.audit(1)
    del receiver.view.identities[key(300)[1]]
    gone = frame(10, 12, Removal(kind=Kind.IDENTITY, key=key(300)[1], generation=12))
    reached = feed(receiver, gone, barrier(12))
    assert reached is not None
    assert reached.changed == frozenset(), "nobody knows yet"
    receiver.audit()
    (digests,) = receiver.poll(1.0)
    assert isinstance(digests, Digests)
    content = tuple(Upsert(h.value, h.generation) for h in receiver.view)
    bucket = bucket_of(*content[0].object_key)
    mended = BucketReplace(revision=12, bucket=bucket, changes=content, last=True)
    reached = feed(receiver, DigestRequest(revision=12), mended, barrier(12))
    assert reached is not None
    assert key(300) in reached.changed, "the kernel has it still"


def test_what_memory_has_lost_is_named_by_a_snapshot_without_it(receiver: Receiver) -> None:
    receiver.hello()
    del receiver.view.identities[key(300)[1]]
    reached = feed(receiver, welcome(), *snapshot(20), barrier(20))
    assert reached is not None
    assert key(300) in reached.changed


def test_credit_comes_back_with_the_next_ack_or_when_it_runs_low(receiver: Receiver) -> None:
    receiver.receive(frame(10, 11), 200)
    assert receiver.poll(1.0) == ()
    receiver.receive(frame(11, 12), 200)
    (ack,) = receiver.poll(1.0)
    assert isinstance(ack, Ack)
    assert (ack.added_credit_bytes, ack.applied_revision) == (400, 10)


def test_refusals_are_reported_once_and_taken_back(receiver: Receiver) -> None:
    refusal = Refusal(kind=Kind.IDENTITY, key=b"k", reason="map is full", retryable=True)
    feed(receiver, barrier(11))
    receiver.applied(11, refused=[refusal])
    nack, ack = receiver.poll(1.0)
    assert nack == Nack(
        revision=11, kind=Kind.IDENTITY, key=b"k", reason="map is full", retryable=True
    )
    assert isinstance(ack, Ack)

    feed(receiver, barrier(12))
    receiver.applied(12, refused=[refusal])
    assert len(receiver.poll(2.0)) == 1

    receiver.hello()
    feed(receiver, welcome(Mode.RESUME))
    assert isinstance(receiver.poll(3.0)[0], Nack), "a new server does not know of it"

    feed(receiver, barrier(13))
    receiver.applied(13)
    nack, _ = receiver.poll(4.0)
    assert isinstance(nack, Nack)
    assert nack.reason == ""
