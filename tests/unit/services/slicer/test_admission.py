from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.slicer.admission import (
    CHUNKS_AT_MOST,
    FIRST_GUESS_SECONDS,
    JITTER,
    LATEST_SECONDS,
    SOONEST_SECONDS,
    Admission,
)

EVEN = 0.5
"""The chance that leaves an appointment as it is."""


def test_the_last_one_may_exceed_the_limit_and_the_next_is_told_to_wait() -> None:
    admission = Admission(4)
    admission.take("a", 3, 0.0)
    assert admission.postponed(0.0, EVEN) is None
    admission.take("b", 3, 0.0)
    assert admission.used == 6
    assert admission.postponed(0.0, EVEN) is not None


@pytest.mark.parametrize("is_gone", [False, True])
def test_what_is_acknowledged_or_gone_makes_room_once(is_gone: bool) -> None:
    admission = Admission(1)
    admission.take("a", 1, 0.0)
    assert admission.postponed(0.0, EVEN) is not None
    for _ in range(2):
        if is_gone:
            admission.forget("a")
        else:
            admission.give_back("a", 1.0)
    assert (admission.used, admission.deliveries) == (0, 0)
    assert admission.postponed(0.0, EVEN) is None


def test_one_agent_has_one_delivery_of_bounded_cost() -> None:
    admission = Admission(100)
    admission.take("a", 0, 0.0)
    assert admission.used == 1
    admission.take("a", 1000, 0.0)
    assert (admission.used, admission.deliveries) == (CHUNKS_AT_MOST, 1)


def test_a_herd_gets_appointments_one_after_the_other() -> None:
    admission = Admission(2)
    admission.take("a", 2, 0.0)
    told = [admission.postponed(10.0, EVEN) or 0.0 for _ in range(20)]
    gaps = [late - early for early, late in pairwise(told)]
    assert told[0] >= SOONEST_SECONDS
    assert gaps == pytest.approx([FIRST_GUESS_SECONDS / 2] * 19)


def test_no_appointment_is_for_ever_and_slow_deliveries_space_them() -> None:
    admission = Admission(1)
    for _ in range(40):
        admission.take("a", 1, 0.0)
        admission.give_back("a", 8.0)
    admission.take("a", 1, 0.0)
    first, second = (admission.postponed(0.0, EVEN) or 0.0 for _ in range(2))
    assert second - first == pytest.approx(8.0, rel=0.1)
    assert max(admission.postponed(0.0, EVEN) or 0.0 for _ in range(50)) == LATEST_SECONDS


def test_chance_moves_an_appointment_by_a_share() -> None:
    told = []
    for chance in (0.0, EVEN, 1.0):
        admission = Admission(1)
        admission.take("a", 1, 0.0)
        told.append(admission.postponed(0.0, chance) or 0.0)
    assert told == pytest.approx([told[1] * (1 - JITTER), told[1], told[1] * (1 + JITTER)])


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(["take", "back", "gone"]), st.integers(0, 30)),
        max_size=60,
    ),
    st.integers(1, 40),
)
def test_memory_is_bounded_by_the_limit_and_one_delivery(
    acts: list[tuple[int, str, int]], limit: int
) -> None:
    admission = Admission(limit)
    holds: dict[int, int] = {}
    for now, (agent, act, chunks) in enumerate(acts):
        if act != "take":
            holds.pop(agent, None)
            admission.forget(agent) if act == "gone" else admission.give_back(agent, now)
        elif agent not in holds and admission.postponed(now, EVEN) is None:
            holds[agent] = max(1, min(chunks, CHUNKS_AT_MOST))
            admission.take(agent, chunks, now)
        assert admission.used == sum(holds.values()) < limit + CHUNKS_AT_MOST
