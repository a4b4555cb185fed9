import pytest

from deltaplane.delta.changes import Upsert
from deltaplane.model.objects import DirectionPolicy, SubjectPolicy
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.selector import LabelSelector
from services.slicer import timings
from services.slicer.facts import Record
from services.slicer.timings import LAST_STEP, RATIO, SHORTEST_SECONDS, Spread, Timings, step_of

NODES = {300: (1, 2), 301: (2, 3)}


def written(name: str, revision: int) -> Record:
    policy = NetworkPolicy(
        namespace="shop",
        name=name,
        pod_selector=LabelSelector(),
        applies_to_ingress=True,
        applies_to_egress=False,
    )
    return Record(key=f"policies/shop/{name}", generation=revision, content=policy)


def selecting(identity: int, *policies: str) -> Upsert:
    direction = DirectionPolicy(isolated=True, policies=policies)
    return Upsert(SubjectPolicy(identity=identity, egress=direction), 99)


def nodes_with(identity: int) -> tuple[int, ...]:
    return NODES[identity]


def seconds(spread: Spread) -> list[float]:
    """As they were counted, ascending."""
    return sorted(
        SHORTEST_SECONDS * RATIO**step for step, n in spread.counts.items() for _ in range(n)
    )


@pytest.fixture
def timed() -> Timings:
    """Policy shop/web, written at revision 50 and seen at 10.0, concerns nodes 1 and 2."""
    made = Timings()
    made.seen([written("web", 50)], 10.0)
    made.cut([selecting(300, "shop/web")], nodes_with)
    return made


def test_each_node_that_a_policy_concerns_is_measured_once(timed: Timings) -> None:
    timed.passed(1, 40, 50, 10.083)
    timed.passed(1, 50, 60, 11.0)  # of something else
    timed.passed(3, 40, 60, 12.0)  # it has no such pods
    timed.passed(2, 40, 70, 13.2)
    first, second = seconds(timed.spread("shop/web", 50))
    assert 0.083 <= first <= 0.083 * RATIO
    assert 3.2 <= second <= 3.2 * RATIO


def test_what_is_behind_has_not_passed_and_what_was_in_front_never_waited(timed: Timings) -> None:
    timed.passed(1, 40, 49, 10.5)
    timed.passed(2, 50, 60, 10.5)
    assert timed.spread("shop/web", 50).total == 0


def test_a_policy_that_is_written_again_is_measured_anew(timed: Timings) -> None:
    timed.passed(1, 40, 50, 10.1)
    timed.seen([written("web", 51)], 20.0)
    timed.cut([selecting(301, "shop/web")], nodes_with)
    timed.passed(2, 40, 60, 20.2)
    assert timed.spread("shop/web", 50).total == 0, "nobody asks for what it said before"
    (only,) = seconds(timed.spread("shop/web", 51))
    assert only < 0.3


def test_policies_of_one_tick_are_told_apart() -> None:
    made = Timings()
    made.seen([written("web", 50), written("db", 51)], 10.0)
    made.cut([selecting(300, "shop/web"), selecting(301, "shop/db", "shop/old")], nodes_with)
    made.passed(3, 40, 60, 10.2)
    assert [made.spread(p, r).total for p, r in (("shop/web", 50), ("shop/db", 51))] == [0, 1]
    assert made.spread("shop/old", 30) == Spread(), "written before this replica watched"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timings, "POLICIES_AT_MOST", 3)
    monkeypatch.setattr(timings, "OPEN_AT_MOST", 2)
    made = Timings()
    for number in range(5):
        made.seen([written(f"p{number}", 50 + number)], 10.0)
        made.cut([selecting(300, f"shop/p{number}")], nodes_with)
    made.passed(1, 0, 90, 10.1)
    totals = [made.spread(f"shop/p{n}", 50 + n).total for n in range(5)]
    assert totals == [0, 0, 0, 1, 1]
    assert len(made._policies) == 3


def test_quantiles_are_never_too_low_and_at_most_a_step_too_high() -> None:
    times = [0.0, 0.001, *(0.01 * n for n in range(1, 98)), 7.0]
    spread = Spread.sum(Spread({step_of(time): 1}) for time in times)
    assert spread.total == len(times) == 100
    for share, exact in ((0.5, 0.48), (0.99, 0.97), (1.0, 7.0)):
        assert exact <= spread.quantile(share) <= exact * RATIO
    assert Spread().quantile(0.99) == 0.0
    assert step_of(1e9) == LAST_STEP
