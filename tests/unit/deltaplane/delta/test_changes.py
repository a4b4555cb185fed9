from hypothesis import given
from hypothesis import strategies as st

from deltaplane.delta.changes import Change, Recorded, Removal, Upsert, incarnation_of, merge
from deltaplane.delta.view import Outcome, View
from deltaplane.model.addresses import AddressPair
from deltaplane.model.objects import EndpointObject, Kind

# A step of history: which endpoint, and whether it is there afterwards.
STEPS = st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=24)


def endpoint(number: int, *, incarnation: int, identity: int = 300) -> EndpointObject:
    return EndpointObject(
        node_index=1,
        id=number,
        identity=identity,
        addresses=AddressPair(ipv4=bytes((10, 0, 0, number))),
        incarnation=incarnation,
    )


def play(view: View, steps: list[tuple[int, bool]], revision: int) -> list[Recorded]:
    """What a sender records while the steps happen to its view."""
    history = []
    for number, present in steps:
        revision += 1
        held = view.get((Kind.ENDPOINT, endpoint(number, incarnation=0).key))
        before = None if held is None else held.value
        known = 0 if before is None else incarnation_of(before)
        change: Change
        if present:
            incarnation = known or revision
            value = endpoint(number, incarnation=incarnation, identity=revision)
            change = Upsert(value, revision)
        elif held is not None:
            change = Removal(
                kind=Kind.ENDPOINT, key=held.value.key, generation=revision, incarnation=known
            )
        else:
            continue
        assert view.apply(change) is Outcome.CHANGED
        history.append(Recorded(change, before))
    return history


def apply_all(view: View, history: list[Recorded]) -> View:
    for recorded in history:
        view.apply(recorded.change)
    return view


@given(STEPS, STEPS)
def test_merged_history_leads_a_reader_to_the_same_view(
    earlier: list[tuple[int, bool]], later: list[tuple[int, bool]]
) -> None:
    sender, reader = View(), View()
    apply_all(reader, play(sender, earlier, 0))
    merged = merge(play(sender, later, 100))
    assert apply_all(reader, merged) == sender
    keys = [recorded.change.object_key for recorded in merged]
    assert len(keys) == len(set(keys))


@given(STEPS, STEPS, STEPS)
def test_merges_of_merges_lead_to_the_same_view(
    earlier: list[tuple[int, bool]],
    first: list[tuple[int, bool]],
    second: list[tuple[int, bool]],
) -> None:
    sender, reader = View(), View()
    apply_all(reader, play(sender, earlier, 0))
    ticks = [*merge(play(sender, first, 100)), *merge(play(sender, second, 200))]
    assert apply_all(reader, merge(ticks)) == sender


def test_what_came_and_went_vanishes() -> None:
    view = View()
    assert merge(play(view, [(1, True), (2, True), (1, False)], 0)) == [
        Recorded(Upsert(endpoint(2, incarnation=2, identity=2), 2), None)
    ]


def test_a_removal_names_the_incarnation_that_readers_hold() -> None:
    view = View()
    play(view, [(1, True)], 0)
    (merged,) = merge(play(view, [(1, False), (1, True), (1, False)], 10))
    assert isinstance(merged.change, Removal)
    assert (merged.change.incarnation, merged.change.generation) == (1, 13)
