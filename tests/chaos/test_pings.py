from tests.chaos.pings import AFTER_SECONDS, BEFORE_SECONDS, Cut, Path, judge

PATHS = (
    Path(nodes=("a", "b"), namespace="x", address="10.0.0.1"),
    Path(nodes=("b", "c"), namespace="y", address="fd00::1"),
)


def test_only_a_cut_of_one_of_its_nodes_excuses_a_lost_ping() -> None:
    cuts = [Cut(node="a", begin=100.0, end=101.0)]
    results = [{"sent": [99.9, 100.5, 102.0], "lost": [100.5]}, {"sent": [100.5], "lost": [100.5]}]

    verdict = judge(PATHS, results, cuts)

    assert (verdict.sent, verdict.excused) == (4, 1)
    assert verdict.lost == ("100.500: b to c (fd00::1)",)


def test_a_ping_long_before_or_after_a_cut_is_not_excused() -> None:
    cuts = [Cut(node="a", begin=100.0, end=101.0)]
    early, late = 100.0 - BEFORE_SECONDS - 0.01, 101.0 + AFTER_SECONDS + 0.01
    nothing: dict[str, list[float]] = {"sent": [], "lost": []}
    results = [{"sent": [early, late], "lost": [early, late]}, nothing]

    assert len(judge(PATHS, results, cuts).lost) == 2
