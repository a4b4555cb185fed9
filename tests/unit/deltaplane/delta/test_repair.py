"""An agent whose view is not what it was sent, and the server that mends it, without a network."""

from collections.abc import Callable

import pytest

from deltaplane.delta.changes import Change, Removal, Upsert
from deltaplane.delta.digest import BUCKETS, bucket_of
from deltaplane.delta.holding import AUDIT_SHARE
from deltaplane.delta.messages import (
    Ack,
    Barrier,
    BucketReplace,
    DigestRequest,
    Digests,
    Drift,
    Frame,
    Interest,
    Mode,
    ServerMessage,
    StreamBroken,
    Welcome,
)
from deltaplane.delta.reader import Reader
from deltaplane.delta.receiver import Receiver
from deltaplane.delta.sender import Sender
from deltaplane.delta.tick import Tick
from deltaplane.delta.view import Held
from deltaplane.delta.wire import ProtobufEncoder, decode_request, encode_request
from deltaplane.delta.writer import DIGEST_EVERY
from deltaplane.errors import Invalid
from deltaplane.model.addresses import AddressPair
from deltaplane.model.objects import EndpointObject, IdentityObject, Kind, NodeObject
from deltaplane.v1 import slicer_pb2 as pb
from tests.decoding import decode_response

LINEAGE = b"L" * 16
PLENTY = 1 << 20


def identity(number: int, revision: int, *labels: str) -> Upsert:
    return Upsert(IdentityObject(id=number, namespace="shop", labels=labels), revision)


def node(index: int, revision: int, name: str = "n") -> Upsert:
    pair = AddressPair(ipv4=bytes((198, 19, 0, index)), ipv6=b"\xfd" + bytes(14) + bytes((index,)))
    return Upsert(NodeObject(index=index, name=f"{name}{index}", addresses=pair), revision)


def key_of(change: Upsert) -> bytes:
    return change.value.key


class Pair:
    """A server and an agent, and what is on its way between them."""

    def __init__(self, *, is_scoped: bool = False, credit: int = PLENTY) -> None:
        self.sender = Sender(
            lineage=LINEAGE,
            server_id="test",
            encoder=ProtobufEncoder(),
            revision=10,
            objects=[node(index, index) for index in range(1, 9)],
            is_scoped=is_scoped,
        )
        self.receiver = Receiver(node="node-1", node_uid="uid", credit_bytes=credit)
        self.now = 0.0
        self.applied = 0
        self.seen: list[ServerMessage] = []
        self.sizes: dict[ServerMessage, int] = {}
        self.connect()

    def connect(self) -> Mode:
        hello = decode_request(encode_request(self.receiver.hello()))
        self.reader: Reader = self.sender.connect(hello, node_index=1, now=self.now)  # type: ignore[arg-type]
        return self.reader.mode

    def publish(self, revision: int, *changes: Change) -> None:
        tick = Tick(
            revision=revision,
            changes=changes,
            events=(revision,),
            oldest_change_unix_ns=1,
            structural=revision,
        )
        self.sender.publish(tick, now=self.now, wall_ns=1)

    def messages(self) -> list[ServerMessage]:
        self.now += 1.0
        found = []
        for data in self.sender.poll(self.reader, self.now):
            found.append(decode_response(data))
            self.sizes[found[-1]] = len(data)
        return found

    def take(self, message: ServerMessage) -> None:
        self.seen.append(message)
        self.receiver.receive(message, self.sizes.get(message, 50))

    def answer(self) -> None:
        for message in self.receiver.poll(self.now):
            request = decode_request(encode_request(message))
            self.sender.receive(self.reader, request, now=self.now)

    def apply(self) -> frozenset[tuple[Kind, bytes]]:
        if (barrier := self.receiver.take_barrier()) is None:
            return frozenset()
        assert barrier.complete
        self.applied = barrier.revision
        self.receiver.applied(barrier.revision)
        return barrier.changed

    def run(self, rounds: int = 1) -> set[tuple[Kind, bytes]]:
        """Everything arrives and is applied; what changed."""
        changed: set[tuple[Kind, bytes]] = set()
        for _ in range(rounds):
            for message in self.messages():
                self.take(message)
            changed |= self.apply()
            self.answer()
        return changed

    def audit(self) -> None:
        for _ in range(AUDIT_SHARE):
            self.receiver.audit()

    @property
    def buckets(self) -> list[BucketReplace]:
        return [message for message in self.seen if isinstance(message, BucketReplace)]

    def check(self) -> None:
        assert self.receiver.view == self.sender.view
        assert self.receiver.view.digest.buckets == self.sender.view.digest.buckets


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    pair.run(2)
    pair.check()
    return pair


def lose(pair: Pair) -> bytes:
    del pair.receiver.view.nodes[key_of(node(3, 3))]
    return key_of(node(3, 3))


def change(pair: Pair) -> bytes:
    key = key_of(node(3, 3))
    pair.receiver.view.nodes[key] = Held(node(3, 3, "x").value, 3)  # type: ignore[arg-type]
    return key


def add(pair: Pair) -> bytes:
    phantom = node(77, 5)
    pair.receiver.view.nodes[key_of(phantom)] = Held(phantom.value, 5)  # type: ignore[arg-type]
    return key_of(phantom)


@pytest.mark.parametrize("spoil", [lose, change, add])
def test_an_audit_finds_what_changed_by_itself_and_one_bucket_mends_it(
    pair: Pair, spoil: Callable[[Pair], bytes]
) -> None:
    pair.audit()  # the keys are filed by now
    key = spoil(pair)
    pair.audit()
    assert pair.receiver.doubts == 1
    changed = pair.run(4)
    assert [(b.bucket, b.last) for b in pair.buckets] == [(bucket_of(Kind.NODE, key), True)]
    assert (Kind.NODE, key) in changed
    pair.check()


@pytest.mark.parametrize("spoil", [lose, change, add])
def test_a_doubted_view_counts_as_nothing(pair: Pair, spoil: Callable[[Pair], bytes]) -> None:
    pair.audit()
    spoil(pair)
    pair.audit()
    pair.publish(20, node(9, 20))
    for message in pair.messages():
        pair.take(message)
    assert pair.receiver.take_barrier() is None
    assert pair.receiver.hello().applied_revision == 0


def test_a_change_that_got_lost_shows_in_the_next_digest(pair: Pair) -> None:
    pair.publish(20, node(3, 20, "y"), node(4, 20, "y"))
    for message in pair.messages():
        if isinstance(message, Frame):
            message = Frame(  # noqa: PLW2901 - the network's work
                previous_revision=message.previous_revision,
                revision=message.revision,
                oldest_change_unix_ns=0,
                changes=message.changes[:1],
            )
        pair.take(message)
    pair.apply()
    pair.answer()
    assert pair.receiver.view != pair.sender.view
    pair.run(DIGEST_EVERY + 3)
    assert pair.receiver.doubts == len(pair.buckets) == 1
    pair.check()


def test_a_phantom_may_be_removed_by_the_stream(pair: Pair) -> None:
    pair.audit()
    key = add(pair)
    gone = Removal(kind=Kind.NODE, key=key, generation=30)
    pair.receiver.receive(
        Frame(previous_revision=10, revision=30, oldest_change_unix_ns=0, changes=(gone,)), 10
    )
    pair.receiver.receive(Barrier(revision=30, head_revision=30, head_unix_ns=0), 10)
    assert key not in pair.receiver.view.nodes


def test_a_second_doubt_without_a_digest_between_asks_for_a_snapshot(pair: Pair) -> None:
    pair.audit()
    change(pair)
    pair.audit()
    pair.reader.barriers = 0  # so that none with a digest comes meanwhile
    pair.run(DIGEST_EVERY - 1)
    pair.check()
    change(pair)
    with pytest.raises(Drift):
        pair.audit()
    assert pair.connect() is Mode.SNAPSHOT
    pair.run(2)
    pair.check()


def test_a_verified_digest_makes_another_repair_possible(pair: Pair) -> None:
    for doubts in (1, 2):
        pair.audit()
        change(pair)
        pair.audit()
        assert pair.receiver.doubts == doubts
        pair.run(3 + DIGEST_EVERY)
        pair.check()


def unknown_history(pair: Pair) -> None:
    """The server forgets: the agent's revision lies inside a tick that it cannot take apart."""
    tick = Tick(
        revision=30,
        changes=(node(3, 25, "z"), node(5, 30, "z")),
        events=None,
        oldest_change_unix_ns=1,
    )
    pair.sender.publish(tick, now=pair.now, wall_ns=1)
    pair.receiver.revision = 20
    pair.applied = 20


def test_a_view_of_a_forgotten_revision_is_mended_by_its_unequal_buckets(pair: Pair) -> None:
    unknown_history(pair)
    assert pair.connect() is Mode.REPAIR
    pair.run(4)
    unequal = {bucket_of(Kind.NODE, key_of(node(index, 0))) for index in (3, 5)}
    assert {b.bucket for b in pair.buckets} == unequal
    assert pair.reader.repairs == 1
    assert pair.reader.replaced == len(unequal)
    assert pair.applied == pair.reader.applied == 30
    pair.check()


def until_buckets(pair: Pair) -> list[BucketReplace]:
    """A repair up to its buckets, which are on their way."""
    unknown_history(pair)
    pair.connect()
    for message in pair.messages():
        pair.take(message)
    pair.answer()
    found = [m for m in pair.messages() if isinstance(m, BucketReplace)]
    assert len(found) == 2
    return found


def test_a_repair_that_was_cut_half_way_begins_anew(pair: Pair) -> None:
    first, _ = until_buckets(pair)
    pair.take(first)
    assert pair.receiver.take_barrier() is None
    hello = pair.receiver.hello()
    assert hello.applied_revision == 0
    assert pair.connect() is Mode.REPAIR
    pair.run(4)
    pair.check()


def test_a_repair_counts_only_with_its_barrier(pair: Pair) -> None:
    for message in until_buckets(pair):
        pair.take(message)
    assert pair.receiver.hello().applied_revision == 0
    assert pair.connect() is Mode.REPAIR
    assert not pair.sender.effective(pair.reader)
    pair.run(4)
    pair.check()


def test_what_a_barrier_inside_a_repair_shows_is_not_claimed_as_applied(pair: Pair) -> None:
    pair.publish(20, node(3, 20, "w"))
    frame, barrier = pair.messages()
    pair.take(DigestRequest(revision=10))
    pair.take(frame)
    pair.take(barrier)
    assert pair.apply() == frozenset()
    hello = pair.receiver.hello()
    assert hello.applied_revision == 0
    assert pair.connect() is Mode.REPAIR
    assert pair.run(4) >= {(Kind.NODE, key_of(node(3, 20)))}
    pair.check()


def test_a_snapshot_of_a_revision_that_was_shown_before_is_proven_by_its_number(
    pair: Pair,
) -> None:
    assert pair.reader.applied == 10
    pair.sender.renew(pair.reader)
    sent = pair.messages()
    assert not pair.sender.is_renewed(pair.reader, 10)
    for message in sent:
        pair.take(message)
    pair.answer()
    # It is there, but its barrier has not been applied.
    assert not pair.sender.is_renewed(pair.reader, 10)
    pair.run(2)
    assert pair.reader.applied == 10
    assert pair.sender.is_renewed(pair.reader, 10)


def test_more_snapshots_than_were_sent_are_not_acknowledged(pair: Pair) -> None:
    ack = Ack(applied_revision=10, received_revision=10, renewals=2)
    with pytest.raises(StreamBroken, match="2 snapshots and repairs acknowledged, 1 sent"):
        pair.sender.receive(pair.reader, ack, now=pair.now)


def test_the_view_before_a_repair_is_not_shown_after_its_first_bucket(pair: Pair) -> None:
    pair.receiver.receive(Barrier(revision=10, head_revision=10, head_unix_ns=0), 10)
    pair.receiver.receive(DigestRequest(revision=10), 10)
    pair.receiver.receive(BucketReplace(revision=10, bucket=0, changes=()), 10)
    assert pair.receiver.take_barrier() is None


def test_an_answer_that_crosses_a_snapshot_is_answered(pair: Pair) -> None:
    unknown_history(pair)
    pair.connect()
    for message in pair.messages():
        pair.take(message)
    pair.sender.renew(pair.reader)
    pair.reader.mending = type(pair.reader.mending).NOTHING
    crossing = pair.messages()
    pair.answer()
    for message in crossing:
        pair.take(message)
    pair.run(4)
    assert pair.reader.snapshots == 1
    pair.check()


def test_a_repair_of_all_it_holds_renews_an_agent(pair: Pair) -> None:
    unknown_history(pair)
    pair.connect()
    for message in pair.messages():
        pair.take(message)
    pair.publish(31, node(9, 31))  # its fence, say
    pair.sender.renew(pair.reader)
    pair.answer()
    pair.run(4)
    # A snapshot of what the repair has shown could not be proven before something is written.
    assert pair.reader.snapshots == 0
    assert pair.sender.is_renewed(pair.reader, 31)
    pair.check()


def test_what_came_before_the_buckets_of_a_repair_does_not_count_as_applied(pair: Pair) -> None:
    pair.take(DigestRequest(revision=10))
    pair.publish(30, node(3, 30, "y"))
    for message in pair.messages():
        pair.take(message)
    assert pair.receiver.revision == 30
    assert pair.receiver.take_barrier() is None
    assert pair.receiver.hello().applied_revision == 0
    assert pair.connect() is Mode.REPAIR
    assert not pair.sender.effective(pair.reader)
    assert (Kind.NODE, key_of(node(3, 3))) in pair.run(4)
    pair.check()


def test_an_agent_without_credit_is_mended_all_the_same() -> None:
    pair = Pair(credit=40)
    pair.run(60)
    pair.audit()
    change(pair)
    pair.audit()
    pair.publish(20, *(node(index, 20, "w") for index in range(1, 9)))
    pair.run(80)
    assert pair.applied == 20
    pair.check()


def test_a_bucket_outside_of_a_repair_breaks_the_stream(pair: Pair) -> None:
    with pytest.raises(StreamBroken, match="outside of a repair"):
        pair.take(BucketReplace(revision=10, bucket=0, changes=()))


def test_a_bucket_with_objects_of_another_breaks_the_stream(pair: Pair) -> None:
    wrong = (bucket_of(Kind.NODE, key_of(node(3, 3))) + 1) % BUCKETS
    pair.take(DigestRequest(revision=10))
    with pytest.raises(StreamBroken, match="other buckets"):
        pair.take(BucketReplace(revision=10, bucket=wrong, changes=(node(3, 3),)))


# --- spans and interests -------------------------------------------------------------------------


def endpoint(on: int, number: int, of: int, revision: int) -> Upsert:
    value = EndpointObject(
        node_index=on,
        id=number,
        identity=of,
        addresses=AddressPair(ipv4=bytes((10, 0, on, number))),
        incarnation=revision,
    )
    return Upsert(value, revision)


def test_a_barrier_names_an_interest_only_after_what_it_brings() -> None:
    pair = Pair(is_scoped=True)
    pair.run(2)
    pair.publish(20, identity(300, 20))
    pair.run(2)
    interest = Interest(number=1, identities=(300, 999))
    assert decode_request(encode_request(interest)) == interest
    pair.reader.credit = 0
    pair.sender.receive(pair.reader, interest, now=pair.now)
    (bookmark,) = pair.messages()
    assert isinstance(bookmark, Barrier)
    assert bookmark.interest_number == 0
    pair.reader.credit = PLENTY
    brought, barrier = pair.messages()
    assert isinstance(brought, Frame)
    assert isinstance(barrier, Barrier)
    assert (barrier.interest_number, barrier.span_version) == (1, 1)
    pair.take(brought)
    pair.take(barrier)
    assert pair.receiver.view.identities.keys() == {(300).to_bytes(4)}


def test_an_interest_beside_a_repair_is_brought_to_an_agent_that_was_at_the_head() -> None:
    pair = Pair(is_scoped=True)
    pair.publish(20, identity(300, 20))
    pair.sender.advance(25, wall_ns=1)  # nothing of it is on the stream
    pair.run(2)
    assert pair.applied == 25
    pair.receiver.view._forget(pair.receiver.view.nodes[key_of(node(3, 3))])
    assert pair.connect() is Mode.REPAIR
    for message in pair.messages():
        pair.take(message)
    pair.answer()
    pair.sender.receive(pair.reader, Interest(number=1, identities=(300,)), now=pair.now)
    pair.run(2)
    assert pair.reader.covers[0] == 1
    assert pair.receiver.view.identities.keys() == {(300).to_bytes(4)}
    assert pair.receiver.view.nodes == pair.sender.view.nodes


def test_a_span_is_mended_in_its_own_buckets() -> None:
    pair = Pair(is_scoped=True)
    pair.publish(20, identity(300, 20), identity(301, 20), endpoint(1, 1, 300, 20))
    pair.publish(21, endpoint(2, 1, 301, 21))
    pair.run(3)
    assert len(pair.receiver.view.endpoints) == len(pair.receiver.view.identities) == 1
    pair.audit()
    change(pair)
    pair.audit()
    pair.run(4)
    assert len(pair.buckets) == 1
    assert len(pair.receiver.view.endpoints) == 1
    assert pair.receiver.view.nodes == pair.sender.view.nodes


# --- the wire ------------------------------------------------------------------------------------


def test_messages_of_a_repair_survive_the_wire() -> None:
    encoder = ProtobufEncoder()
    request = DigestRequest(revision=7)
    assert decode_response(encoder.control(request)) == request
    piece = encoder.piece(9, [encoder.change(node(3, 4), 9)])
    data = encoder.bucket(5, 9, [piece], last=True)
    assert decode_response(data) == BucketReplace(
        revision=9, bucket=5, changes=(node(3, 4),), last=True
    )
    digests = Digests(revision=7, buckets=tuple(bytes([n]) * 16 for n in range(BUCKETS)))
    assert decode_request(encode_request(digests)) == digests
    frame = encoder.frame(3, 9, 1, [piece], continues=True)
    decoded = decode_response(frame)
    assert isinstance(decoded, Frame)
    assert decoded.continues


def test_digests_of_another_length_are_refused() -> None:
    request = pb.StreamRequest(digests=pb.Digests(revision=1, buckets=b"x" * 100))
    with pytest.raises(Invalid, match="4096 bytes are expected"):
        decode_request(request.SerializeToString())


def test_a_welcome_to_a_repair_needs_a_view() -> None:
    receiver = Receiver(node="n", node_uid="u")
    receiver.hello()
    with pytest.raises(Drift):
        receiver.receive(
            Welcome(
                lineage=LINEAGE,
                server_id="s",
                mode=Mode.REPAIR,
                head_revision=5,
                bookmark_period_ms=1000,
                ack_interval_ms=100,
            ),
            10,
        )
