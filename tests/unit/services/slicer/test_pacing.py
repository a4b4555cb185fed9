import pytest

from services.slicer.pacing import LONGEST_SECONDS, SHORTEST_SECONDS, Pacer


def test_idle_means_at_once() -> None:
    assert Pacer().cut_at(urgent=False) == float("-inf")


@pytest.mark.parametrize(
    ("round_seconds", "tick", "urgent"),
    [
        (0.0, SHORTEST_SECONDS, SHORTEST_SECONDS),
        (0.001, SHORTEST_SECONDS, SHORTEST_SECONDS),
        (0.02, 0.03, 0.02),
        (9.0, LONGEST_SECONDS, LONGEST_SECONDS),
    ],
)
def test_a_tick_follows_the_rounds(round_seconds: float, tick: float, urgent: float) -> None:
    pacer = Pacer()
    pacer.sent(cut_at=100.0, round_seconds=round_seconds)
    assert pacer.cut_at(urgent=False) == pytest.approx(100.0 + tick)
    assert pacer.cut_at(urgent=True) == pytest.approx(100.0 + urgent)
