from dataclasses import replace

import pytest

from deltaplane.delta.messages import (
    Ack,
    Barrier,
    DigestRequest,
    Digests,
    Drain,
    Hello,
    Mode,
    Nack,
    StreamBroken,
)
from deltaplane.delta.sender import Sender
from deltaplane.delta.wire import ProtobufEncoder
from deltaplane.errors import Conflict, Internal, NotFound, Unavailable
from deltaplane.model.addresses import AddressPair
from deltaplane.model.identity import Identity, LabelSet
from deltaplane.model.objects import BRAKED, EndpointObject, Kind, NodeObject
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.selector import LabelSelector
from deltaplane.policy.compiler import Compiler
from services.slicer.admission import Admission
from services.slicer.facts import EndpointRecord, Facts, NodeRecord, Record
from services.slicer.fanout import Fanout, Session
from services.slicer.receipts import Effective
from services.slicer.timings import Spread
from services.slicer.wire import braked
from tests.decoding import decode_response

LINEAGE = b"L" * 16


def node(index: int, revision: int) -> Record:
    addresses = AddressPair(ipv4=bytes((198, 19, 0, index)))
    content = NodeRecord(
        NodeObject(index=index, name=f"node-{index}", addresses=addresses), f"uid-{index}"
    )
    return Record(key=f"nodes/{index}", generation=revision, content=content)


def endpoint(number: int, revision: int) -> Record:
    content = EndpointRecord(
        EndpointObject(
            node_index=1,
            id=number,
            identity=5,
            addresses=AddressPair(ipv4=bytes((10, 0, 0, number))),
            incarnation=revision,
        )
    )
    return Record(key=f"endpoints/{number}", generation=revision, content=content)


def deleted(number: int, revision: int) -> Record:
    return Record(key=f"endpoints/{number}", generation=revision, content=None)


@pytest.fixture
def fanout() -> Fanout:
    """Nodes 1 and 2 at revision 10."""
    facts = Facts(Compiler())
    for index in (1, 2):
        facts.apply(node(index, index))
    sender = Sender(
        lineage=LINEAGE,
        server_id="test",
        encoder=ProtobufEncoder(),
        revision=10,
        objects=facts.flush(10),
    )
    return Fanout(facts, sender)


class Woken:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def hello(index: int = 1, *, uid: str = "", applied: int = 10) -> Hello:
    return Hello(
        node=f"node-{index}",
        node_uid=uid or f"uid-{index}",
        lineage=LINEAGE,
        applied_revision=applied,
        credit_bytes=1 << 20,
    )


def admitted(fanout: Fanout, index: int = 1) -> Session:
    session = fanout.admit(hello(index), Woken(), now=0.0)
    assert session.reader.mode is Mode.RESUME
    while fanout.sender.poll(session.reader, 0.0):
        pass
    return session


def test_obstacles_and_their_end(fanout: Fanout) -> None:
    assert fanout.obstacle(hello()) is None
    assert isinstance(fanout.obstacle(hello(3)), NotFound)
    assert isinstance(fanout.obstacle(hello(uid="other")), Conflict)
    assert isinstance(fanout.obstacle(hello(applied=11)), Unavailable)
    fanout.take([node(3, 11)], 11, wall_ns=0)
    assert fanout.obstacle(hello(3)) is None
    fanout.cut(now=0.0, wall_ns=0)
    assert fanout.obstacle(hello(applied=11)) is None


def test_ticks_are_cut_when_due(fanout: Fanout) -> None:
    assert fanout.cut_at() is None
    fanout.take([endpoint(1, 11)], 11, wall_ns=0)
    assert fanout.cut_at() == float("-inf"), "idle: at once"
    fanout.cut(now=0.0, wall_ns=0)
    fanout.pacer.sent(cut_at=100.0, round_seconds=0.04)
    assert fanout.cut_at() is None
    fanout.take([endpoint(2, 12)], 12, wall_ns=0)
    assert fanout.cut_at() == pytest.approx(100.06)
    fanout.take([deleted(1, 13)], 13, wall_ns=0)
    assert fanout.cut_at() == pytest.approx(100.04), "a deletion waits for no more than the round"


def test_progress_without_writes_moves_the_head(fanout: Fanout) -> None:
    woken = Woken()
    fanout.watchers.add(woken)
    fanout.take([], 20, wall_ns=7)
    assert (fanout.sender.head, fanout.scanned, woken.times) == (20, 20, 1)
    fanout.take([], 15, wall_ns=7)
    assert fanout.sender.head == 20


def test_progress_behind_unpublished_writes_waits_for_their_tick(fanout: Fanout) -> None:
    fanout.take([endpoint(1, 11)], 11, wall_ns=5)
    fanout.take([], 20, wall_ns=6)
    assert (fanout.sender.head, fanout.scanned) == (10, 20)
    assert fanout.cut(now=0.0, wall_ns=7).changes == 1
    assert fanout.sender.head == 20


def test_writes_that_the_watch_has_already_vouched_for_are_not_lost_in_silence(
    fanout: Fanout,
) -> None:
    fanout.take([], 20, wall_ns=6)
    with pytest.raises(Internal, match="revision 15"):
        fanout.take([endpoint(1, 15)], 15, wall_ns=7)


def test_the_newest_stream_of_a_node_wins(fanout: Fanout) -> None:
    old = admitted(fanout)
    assert isinstance(old.wake, Woken)
    new = admitted(fanout)
    assert (old.superseded, old.wake.times, new.superseded) == (True, 1, False)
    fanout.leave(old)
    assert fanout.sessions == {"node-1": new}
    assert fanout.sender.readers == {"node-1": new.reader}


def test_acks_tell_since_when_and_wake_receipts(fanout: Fanout) -> None:
    session = admitted(fanout)
    fanout.take([endpoint(1, 11)], 11, wall_ns=500)
    fanout.cut(now=0.0, wall_ns=600)
    while fanout.sender.poll(session.reader, 0.0):
        pass
    woken = Woken()
    fanout.watchers.add(woken)
    assert fanout.lags(wall_ns=1_000_000_500) == [1.0]
    ack = Ack(applied_revision=11, received_revision=11)
    assert fanout.receive(session, ack, now=1.0) == 500
    assert fanout.receive(session, ack, now=2.0) is None, "nothing new is acknowledged"
    assert woken.times == 2
    assert fanout.lags(wall_ns=1_000_000_500) == [0.0]


def test_what_is_vouched_for(fanout: Fanout) -> None:
    session = admitted(fanout)
    refusal = Nack(revision=10, kind=Kind.BLOCK, key=b"\x01", reason="no")
    assert fanout.receive(session, refusal, now=0.0) is None
    assert fanout.effective(0) == (Effective(node_index=1, revision=10, refused=("BLOCK 01: no",)),)
    fanout.leave(session)
    assert fanout.effective(0) == ()


def test_a_doubt_is_followed_up_at_once(fanout: Fanout) -> None:
    session = admitted(fanout)
    fanout.sender.poll(session.reader, 0.0)
    assert isinstance(session.wake, Woken)
    woken = session.wake.times
    fanout.receive(session, Digests(revision=10, buckets=(bytes(16),) * 256), now=0.1)
    assert session.wake.times == woken + 1
    said = fanout.sender.poll(session.reader, 0.1) + fanout.sender.poll(session.reader, 0.1)
    kinds = [type(decode_response(data)) for data in said]
    assert kinds == [Barrier, DigestRequest], "not with the next bookmark"


def test_lies_end_the_stream(fanout: Fanout) -> None:
    session = admitted(fanout)
    with pytest.raises(StreamBroken):
        fanout.receive(session, Ack(applied_revision=99, received_revision=99), now=0.0)


def test_a_goodbye_spreads_the_agents(fanout: Fanout) -> None:
    sessions = [admitted(fanout, index) for index in (1, 2)]
    fanout.drain(deadline_seconds=2.0)
    said = [decode_response(fanout.sender.poll(s.reader, 0.0)[0]) for s in sessions]
    assert said == [
        Drain(deadline_ms=2000, retry_after_ms=0),
        Drain(deadline_ms=2000, retry_after_ms=500),
    ]
    assert isinstance(fanout.obstacle(hello()), Unavailable)


def test_who_needs_a_snapshot_waits_for_a_place_and_who_resumes_does_not(fanout: Fanout) -> None:
    fanout.admission = Admission(1)
    empty = replace(hello(1, applied=0), lineage=b"")
    assert fanout.postponed(empty, now=0.0, chance=0.5) is None
    session = fanout.admit(empty, Woken(), now=0.0)
    assert session.reader.mode is Mode.SNAPSHOT
    others = [
        replace(hello(2, applied=0), lineage=b""),
        replace(hello(2), lineage=b"M" * 16),
        hello(2, applied=9),  # before the log
    ]
    for other in others:
        assert fanout.postponed(other, now=0.0, chance=0.5) is not None
    assert fanout.postponed(hello(2), now=0.0, chance=0.5) is None
    while fanout.sender.poll(session.reader, 0.0):
        pass
    assert fanout.admission.used == 1  # sent is not applied
    fanout.receive(session, Ack(applied_revision=10, received_revision=10), now=0.1)
    assert fanout.admission.used == 0
    assert fanout.postponed(others[0], now=0.0, chance=0.5) is None


def test_a_repair_takes_a_place_and_a_stream_that_ends_leaves_it(fanout: Fanout) -> None:
    session = fanout.admit(replace(hello(), root_digest=b"?" * 16), Woken(), now=0.0)
    assert session.reader.mode is Mode.REPAIR
    assert fanout.admission.used == 1
    fanout.leave(session)
    assert fanout.admission.used == 0


def test_who_is_braked_keeps_no_place_and_says_so(fanout: Fanout) -> None:
    session = fanout.admit(replace(hello(applied=0), lineage=b""), Woken(), now=0.0)
    assert (fanout.admission.used, braked(session.reader)) == (1, "")
    nack = Nack(revision=0, kind=Kind.NODE, key=(1).to_bytes(4), reason="no route", retryable=True)
    fanout.receive(session, nack, now=0.0)
    assert (fanout.admission.used, braked(session.reader)) == (1, "")
    fanout.receive(session, replace(nack, reason=f"{BRAKED}7 of 8"), now=0.0)
    assert (fanout.admission.used, braked(session.reader)) == (0, "7 of 8")


def test_a_listing_after_lost_history_goes_on_in_the_stream(fanout: Fanout) -> None:
    fanout.take([endpoint(1, 11), endpoint(2, 12)], 12, wall_ns=0)
    fanout.cut(now=0.0, wall_ns=0)
    session = fanout.admit(hello(applied=12), Woken(), now=0.0)
    listing = [node(1, 1), node(2, 2), endpoint(2, 12), endpoint(3, 30)]
    fanout.relist(listing, 40, wall_ns=0)
    assert fanout.cut(now=0.0, wall_ns=0).changes == 2
    *_, barrier = fanout.sender.poll(session.reader, 0.0)
    decoded = decode_response(barrier)
    assert isinstance(decoded, Barrier)
    assert decoded.revision == 40
    assert len(fanout.sender.view.endpoints) == 2
    # Nobody can resume from inside of what was lost.
    assert fanout.admit(hello(2, applied=30), Woken(), now=0.0).reader.mode is Mode.SNAPSHOT


def test_a_round_is_over_when_all_but_the_slow_have_come_to_rest(fanout: Fanout) -> None:
    sessions = [fanout.admit(hello(index), Woken(), now=0.0) for index in (1, 2)]
    over = Woken()
    fanout.take([endpoint(1, 11)], 11, wall_ns=0)
    fanout.cut(now=0.0, wall_ns=0)
    assert set(fanout.begin_round(over)) == set(sessions)
    fanout.rested(sessions[0])
    calls = [over.times]
    fanout.take([endpoint(2, 12)], 12, wall_ns=0)
    fanout.cut(now=0.0, wall_ns=0)
    assert set(fanout.begin_round(over)) == set(sessions), "the slow one is woken, too"
    for session in (sessions[0], sessions[1]):
        fanout.rested(session)
        calls.append(over.times)
    assert calls == [0, 1, 1], "but not waited for a second time"


def test_a_round_of_nobody_is_over_at_once(fanout: Fanout) -> None:
    over = Woken()
    assert fanout.begin_round(over) == []
    assert over.times == 1


def selecting(revision: int) -> Record:
    policy = NetworkPolicy(
        namespace="shop",
        name="web",
        pod_selector=LabelSelector(),
        applies_to_ingress=True,
        applies_to_egress=revision % 2 == 1,
    )
    return Record(key="policies/shop/web", generation=revision, content=policy)


def acknowledge(fanout: Fanout, session: Session, revision: int, *, now: float) -> None:
    while fanout.sender.poll(session.reader, now):
        pass
    fanout.receive(session, Ack(applied_revision=revision, received_revision=revision), now=now)


def test_a_policy_is_timed_where_another_view_was_in_force(fanout: Fanout) -> None:
    identity = Identity(300, LabelSet.of("shop", {}, {"app": "web"}))
    fanout.take([Record(key="identities/300", generation=11, content=identity)], 11, wall_ns=0)
    fanout.cut(now=0.0, wall_ns=0)
    here = admitted(fanout, 1)
    acknowledge(fanout, here, 11, now=1.0)

    def write(revision: int, now: float) -> Spread:
        fanout.take([selecting(revision)], revision, wall_ns=0)
        fanout.timings.seen([selecting(revision)], now)
        fanout.cut(now=now, wall_ns=0)
        return fanout.timings.spread("shop/web", revision)

    assert write(12, now=2.0).total == 0
    without_view = Hello(node="node-2", node_uid="uid-2", credit_bytes=1 << 20)
    new = fanout.admit(without_view, Woken(), now=2.1)
    acknowledge(fanout, new, 12, now=2.2)
    assert fanout.timings.spread("shop/web", 12).total == 0, "nobody knows what it had before"
    refusal = Nack(revision=12, kind=Kind.SUBJECT_POLICY, key=(300).to_bytes(4), reason="no room")
    fanout.receive(here, refusal, now=2.3)
    acknowledge(fanout, here, 12, now=2.3)
    assert fanout.timings.spread("shop/web", 12).total == 0, "it has it, but not in force"

    write(13, now=3.0)
    fanout.receive(here, replace(refusal, reason=""), now=3.4)
    acknowledge(fanout, here, 13, now=3.5)
    assert 0.5 <= fanout.timings.spread("shop/web", 13).quantile(1.0) < 0.6
