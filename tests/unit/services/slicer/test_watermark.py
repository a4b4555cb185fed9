import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.errors import Invalid
from services.slicer.watermark import (
    Coverage,
    Group,
    Patience,
    Watermark,
    advance,
    decode_coverage,
    decode_watermark,
    encode_coverage,
    encode_watermark,
    may_unfence,
)

LINEAGE = b"L" * 16

indexes = st.integers(1, 12)
revisions = st.integers(0, 50)
groups = st.builds(Group, revision=revisions, nodes=st.frozensets(indexes))
coverages = st.builds(
    lambda found: Coverage(lineage=LINEAGE, groups=tuple(found)), st.lists(groups, max_size=2)
)


def covered(revision: int, *nodes: int) -> Coverage:
    return Coverage(lineage=LINEAGE, groups=(Group(revision=revision, nodes=frozenset(nodes)),))


def step(
    *known: Coverage,
    nodes: set[int],
    fenced: set[int] | None = None,
    epoch: int = 0,
    scanned: int = 100,
    current: Watermark | None = None,
) -> Watermark | None:
    return advance(
        known,
        nodes=nodes,
        fenced=fenced or set(),
        epoch=epoch,
        scanned=scanned,
        current=current or Watermark(),
    )


# --- records -------------------------------------------------------------------------------------


@given(
    st.lists(
        st.builds(
            Group,
            revision=st.integers(0, 2**64 - 1),
            nodes=st.frozensets(st.integers(1, 100_000), max_size=20),
        ),
        max_size=3,
    )
)
def test_a_coverage_is_what_was_written(found: list[Group]) -> None:
    coverage = Coverage(lineage=LINEAGE, groups=tuple(found))
    assert decode_coverage(encode_coverage(coverage)) == coverage


def test_a_coverage_is_small() -> None:
    dense = encode_coverage(covered(1 << 40, *range(1, 5001)))
    sparse = encode_coverage(covered(1 << 40, *range(1, 5_000_000, 1000)))
    assert len(dense) < 60
    assert len(sparse) < 10_000


@pytest.mark.parametrize("cut", [0, 5, 17, 20, -1])
def test_half_a_coverage_is_none(cut: int) -> None:
    data = encode_coverage(covered(7, 1, 2))
    with pytest.raises(Invalid):
        decode_coverage(data[:cut])
    with pytest.raises(Invalid):
        decode_coverage(data + b"x")


def test_a_watermark_belongs_to_a_lineage() -> None:
    value = encode_watermark(LINEAGE, Watermark(live=7, strict=5))
    assert decode_watermark(value, LINEAGE) == Watermark(live=7, strict=5)
    assert decode_watermark(value, b"M" * 16) == Watermark()
    assert decode_watermark(None, LINEAGE) == Watermark()
    assert decode_watermark(value[:-1], LINEAGE) == Watermark()


# --- advance -------------------------------------------------------------------------------------


def test_the_slowest_node_decides() -> None:
    both = Watermark(live=20, strict=20)
    assert step(covered(20, 1), covered(30, 2), nodes={1, 2}) == both


def test_a_node_has_passed_the_highest_that_anybody_vouches_for() -> None:
    assert step(covered(20, 1, 2), covered(30, 2), covered(25, 1), nodes={1, 2}) == Watermark(
        live=25, strict=25
    )


def test_a_node_that_nobody_covers_holds_it() -> None:
    assert step(covered(20, 1), nodes={1, 2}) is None


def test_a_fenced_node_holds_only_the_strict_one() -> None:
    assert step(covered(20, 1), nodes={1, 2}, fenced={2}) == Watermark(live=20, strict=0)
    lagging = step(covered(20, 1), covered(5, 2), nodes={1, 2}, fenced={2})
    assert lagging == Watermark(live=20, strict=5)


def test_a_view_from_before_the_last_fence_went_computes_nothing() -> None:
    known = covered(20, 1)
    assert step(known, nodes={1, 2}, fenced={2}, epoch=101, scanned=100) is None
    assert step(known, nodes={1, 2}, fenced={2}, epoch=100, scanned=100) is not None


def test_it_is_never_above_what_was_scanned() -> None:
    # Nodes that registered later take no view below their registration, but one of 15 may.
    assert step(covered(20, 1), nodes={1}, scanned=15) == Watermark(live=15, strict=15)
    assert step(nodes=set(), scanned=15) == Watermark(live=15, strict=15)


def test_without_news_it_stays() -> None:
    assert step(covered(20, 1), nodes={1}, current=Watermark(live=20, strict=20)) is None
    assert step(covered(10, 1), nodes={1}, current=Watermark(live=20, strict=20)) is None


@given(
    st.lists(coverages, max_size=4),
    st.sets(indexes),
    st.sets(indexes),
    st.tuples(*4 * [st.integers(0, 60)]),
)
def test_whatever_it_says_every_live_node_has_passed(
    known: list[Coverage], nodes: set[int], fenced: set[int], numbers: tuple[int, int, int, int]
) -> None:
    epoch, scanned, one, other = numbers
    current = Watermark(live=max(one, other), strict=min(one, other))
    found = step(*known, nodes=nodes, fenced=fenced, epoch=epoch, scanned=scanned, current=current)
    if found is None:
        return
    assert scanned >= epoch
    assert found.live >= found.strict
    assert (found.live, found.strict) >= (current.live, current.strict)

    def has_passed(node: int, revision: int) -> bool:
        return any(
            node in group.nodes and group.revision >= revision
            for coverage in known
            for group in coverage.groups
        )

    if found.live > current.live:
        assert found.live <= scanned
        assert all(has_passed(node, found.live) for node in nodes - fenced)
    if found.strict > current.strict:
        assert found.strict <= scanned
        assert all(has_passed(node, found.strict) for node in nodes)


def test_a_fence_goes_after_a_snapshot_that_has_reached_the_watermark() -> None:
    assert may_unfence(effective=20, renewed=True, watermark=20)
    assert not may_unfence(effective=19, renewed=True, watermark=20)
    assert not may_unfence(effective=20, renewed=False, watermark=20)


# --- patience ------------------------------------------------------------------------------------


def due(
    patience: Patience,
    now: float,
    *,
    live: set[int],
    covered: set[int] | None = None,
    current: dict[int, float] | None = None,
) -> tuple[int, ...]:
    return patience.fences_due(now=now, live=live, covered=covered or set(), current=current or {})


def seconds(start: int, end: int) -> range:
    return range(start, end + 1)


def test_a_node_that_nobody_covers_is_due_after_a_while_counted_from_the_start() -> None:
    patience = Patience(60.0)
    assert not any(due(patience, now, live={1, 2}, covered={2}) for now in seconds(1000, 1060))
    assert due(patience, 1061, live={1, 2}, covered={2}) == (1,)


def test_being_covered_by_another_replica_starts_it_anew() -> None:
    patience = Patience(60.0)
    for now in seconds(0, 59):
        due(patience, now, live={1})
    due(patience, 60, live={1}, covered={1})
    assert not any(due(patience, now, live={1}) for now in seconds(61, 120))
    assert due(patience, 121, live={1}) == (1,)


def test_an_own_agent_counts_from_when_it_was_up_to_date() -> None:
    patience = Patience(60.0)
    assert not any(
        due(patience, now, live={1}, current={1: float(min(now, 30))}) for now in seconds(0, 90)
    )
    assert due(patience, 91, live={1}, current={1: 30.0}) == (1,)


def test_what_another_replica_saw_is_not_forgotten_when_the_agent_comes_here() -> None:
    patience = Patience(60.0)
    for now in seconds(0, 50):
        due(patience, now, live={1}, covered={1})
    # It starts over here with a snapshot, and the log's first change is old.
    assert not any(due(patience, now, live={1}, current={1: -900.0}) for now in seconds(51, 110))


def test_nobody_is_counted_while_nothing_waits() -> None:
    patience = Patience(60.0)
    for now in seconds(0, 50):
        due(patience, now, live={1})
    patience.rest(51)
    assert not any(due(patience, now, live={1}) for now in seconds(52, 112))
    assert due(patience, 113, live={1}) == (1,)


def test_a_replica_that_was_stalled_counts_anew() -> None:
    patience = Patience(60.0)
    for now in seconds(0, 50):
        due(patience, now, live={1})
    assert due(patience, 110, live={1}) == ()
    assert not any(due(patience, now, live={1}) for now in seconds(111, 170))
    assert due(patience, 171, live={1}) == (1,)


def test_a_node_counts_from_when_it_is_live() -> None:
    patience = Patience(60.0)
    for now in seconds(0, 50):
        due(patience, now, live=set())
    assert not any(due(patience, now, live={1}) for now in seconds(51, 111))
