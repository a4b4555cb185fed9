"""Two candidates, one record, in virtual time."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.errors import Invalid
from services.kubernetes.api.leading import (
    Create,
    Election,
    LeaseTimes,
    Read,
    Replace,
    Wait,
)
from services.kubernetes.api.types import Body, Lease, LeaseSpec, ObjectMeta

TIMES = LeaseTimes(lease=10, renew=7.0, retry=2.0)


@dataclass
class Record:
    """The Lease as the API server keeps it: a write needs the version that it is based on."""

    lease: Lease | None = None
    version: int = 0
    holders: list[str] = field(default_factory=list)

    def write(self, body: Body) -> Lease | None:
        """None: somebody was faster."""
        expected = body["metadata"].get("resourceVersion")
        if expected != (self.lease.metadata.resource_version if self.lease else None):
            return None
        self.version += 1
        spec = body["spec"]
        self.lease = Lease(
            metadata=ObjectMeta(name="bridge", resource_version=str(self.version)),
            spec=LeaseSpec(
                holder_identity=spec["holderIdentity"],
                lease_duration_seconds=spec["leaseDurationSeconds"],
                acquire_time=spec.get("acquireTime"),
                renew_time=spec["renewTime"],
                lease_transitions=spec["leaseTransitions"],
            ),
        )
        self.holders.append(spec["holderIdentity"])
        return self.lease


class Candidate:
    """Runs an election as the shell does; `wakes` is when it wants to go on."""

    def __init__(self, name: str, record: Record) -> None:
        self.election = Election("bridge", name, lambda: 0.5, TIMES)
        self.record = record
        self.wakes = 0.0

    def step(self, now: float) -> None:
        match self.election.next(now, int(now * 1e9)):
            case Wait() as wait:
                assert wait.seconds > 0
                self.wakes = now + wait.seconds
            case Read():
                self.election.saw(self.record.lease, now)
            case Create() | Replace() as write:
                if (made := self.record.write(write.body)) is None:
                    self.election.failed(conflict=True)
                else:
                    self.election.wrote(made, began=now)

    def run(self, now: float) -> None:
        self.wakes = now
        while self.wakes <= now:
            self.step(now)


def together(*candidates: Candidate, start: float, end: float) -> float:
    """Lets candidates run until a time; gives the time."""
    now = start
    while (first := min(candidates, key=lambda it: it.wakes)).wakes <= end:
        now = max(now, first.wakes)
        first.run(now)
        assert sum(it.election.holds(now) for it in candidates) <= 1
    return end


def test_the_first_one_leads_and_goes_on_leading() -> None:
    record = Record()
    a, b = Candidate("a", record), Candidate("b", record)
    together(a, b, start=0, end=60)
    assert a.election.holds(60)
    assert set(record.holders) == {"a"}
    assert b.election.holder == "a"
    assert record.lease is not None
    assert record.lease.spec.lease_transitions == 0
    # acquired once, renewed since
    assert record.lease.spec.acquire_time == "1970-01-01T00:00:00.000000Z"
    assert record.lease.spec.renew_time != record.lease.spec.acquire_time


def test_a_dead_leader_is_followed_within_a_lease_and_a_retry() -> None:
    record = Record()
    a, b = Candidate("a", record), Candidate("b", record)
    now = together(a, b, start=0, end=31)
    while not b.election.holds(now):
        now = b.wakes
        b.run(now)
    assert 31 + TIMES.lease - TIMES.retry * 1.2 <= now <= 31 + TIMES.lease + TIMES.retry * 1.2
    assert now < 31 + 15
    assert b.election.term == 1


def test_a_leader_that_slept_does_not_lead_when_it_wakes() -> None:
    record = Record()
    a, b = Candidate("a", record), Candidate("b", record)
    now = together(a, b, start=0, end=20)
    now = together(b, start=now, end=now + 30)
    assert b.election.holds(now)
    assert not a.election.holds(now)
    together(a, b, start=now, end=now + 30)
    assert b.election.holds(now + 30)
    assert a.election.holder == "b"


def test_who_cannot_renew_stops_before_the_others_begin() -> None:
    record = Record()
    a, b = Candidate("a", record), Candidate("b", record)
    together(a, b, start=0, end=20)
    last = a.election.seconds_left(20)
    assert 0 < last <= TIMES.renew
    assert not a.election.holds(20 + last)
    now = 20.0
    while not b.election.holds(now):
        now = b.wakes
        b.run(now)
    assert now > 20 + last


def test_a_release_lets_the_next_one_lead_at_its_next_try() -> None:
    record = Record()
    a, b = Candidate("a", record), Candidate("b", record)
    now = together(a, b, start=0, end=20)
    step = a.election.release(0)
    assert step is not None
    assert record.write(step.body) is not None
    assert not a.election.holds(now)
    together(b, start=now, end=now + 2.4)
    assert b.election.holds(now + 2.4)
    assert b.election.release(0) is not None
    assert a.election.release(0) is None or record.write(step.body) is None


def test_a_lost_answer_is_found_out() -> None:
    record = Record()
    a = Candidate("a", record)
    a.step(0.0)
    step = a.election.next(0.0, 0)
    assert isinstance(step, Create)
    record.write(step.body)
    a.election.failed(conflict=False)
    assert not a.election.holds(0.0)
    assert isinstance(a.election.next(0.0, 0), Wait), "not again at once"
    a.run(2.0)
    assert a.election.holds(2.0)


def test_a_record_that_was_deleted_is_made_again() -> None:
    record = Record()
    a = Candidate("a", record)
    a.run(0.0)
    forgotten, record.lease = record.lease, None
    a.run(2.2)
    assert record.lease != forgotten
    assert a.election.holds(2.2)


def test_times_that_make_no_sense() -> None:
    for lease, renew, retry in ((5, 5.0, 1.0), (10, 2.0, 2.0), (10, 5.0, 0.0)):
        with pytest.raises(Invalid):
            LeaseTimes(lease=lease, renew=renew, retry=retry)
    with pytest.raises(Invalid):
        Election("bridge", "", lambda: 0.0, TIMES)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.floats(0.01, 12.0), st.sampled_from(["run", "sleep", "lose"])
        ),
        max_size=60,
    )
)
def test_never_two(script: list[tuple[int, float, str]]) -> None:
    """Candidates that sleep, wake and lose answers at any time: at most one holds."""
    record = Record()
    candidates = [Candidate(name, record) for name in "abc"]
    now = 0.0
    for which, seconds, what in script:
        now += seconds
        awake = [it for it in candidates if it is not candidates[which] or what != "sleep"]
        for candidate in awake:
            if candidate.wakes <= now:
                candidate.run(now)
        if what == "lose":
            step = candidates[which].election.next(now, 0)
            if isinstance(step, Create | Replace):
                record.write(step.body)
            if not isinstance(step, Wait):
                candidates[which].election.failed(conflict=False)
        assert sum(it.election.holds(now) for it in candidates) <= 1
