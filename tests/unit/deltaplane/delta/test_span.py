"""`SpanIndex` and `SpanDigest` after any history agree with what is computed from scratch."""

from hypothesis import given, settings
from hypothesis import strategies as st

from deltaplane.delta.span import Scope, held_span, span
from deltaplane.delta.span_digest import SpanDigest
from deltaplane.delta.span_index import SpanIndex
from deltaplane.delta.view import View
from tests.unit.deltaplane.delta.span_worlds import (
    IDENTITIES,
    NODES,
    SETS,
    Step,
    change_for,
    prefetches,
    restricted,
    steps,
)

histories = st.lists(st.one_of(steps, steps, steps, prefetches), max_size=40)


class World:
    def __init__(self) -> None:
        self.digest = SpanDigest()
        self.view = View(self.digest)
        self.index = SpanIndex()
        self.prefetched: dict[int, frozenset[int]] = {}
        self.revision = 10

    def take(self, step: Step) -> None:
        self.revision += 1
        if step.node:
            self.prefetched[step.node] = step.wanted
            self.index.prefetch(step.node, step.wanted)
            return
        if (change := change_for(self.view, step, self.revision)) is None:
            return
        held = self.view.get(step.key)
        self.view.apply(change)
        self.index.replace(None if held is None else held.value, step.value)

    def scopes(self) -> dict[int, Scope]:
        wanted = self.prefetched
        return {node: span(self.view, node, wanted.get(node, ())) for node in NODES}


def check(world: World, before: dict[int, Scope]) -> None:
    scopes, index = world.scopes(), world.index
    assert {node: index.scope(node) for node in NODES} == scopes
    for number in IDENTITIES:
        assert index.told(number) == {n for n, scope in scopes.items() if number in scope.peers}
        assert index.enforcing(number) == {
            n for n, scope in scopes.items() if number in scope.subjects
        }
    for key in SETS:
        assert index.naming(key) == {n for n, scope in scopes.items() if key in scope.peer_sets}
    assert {n for n in NODES if scopes[n] != before[n]} <= index.unsettled


@settings(max_examples=150, deadline=None)
@given(histories)
def test_the_index_agrees_with_the_function_after_each_change(history: list[Step]) -> None:
    world = World()
    for step in history:
        before = world.scopes()
        world.index.unsettled.clear()
        world.take(step)
        check(world, before)


@settings(max_examples=80, deadline=None)
@given(histories)
def test_the_index_of_a_listing_is_that_of_its_history(history: list[Step]) -> None:
    world = World()
    for step in history:
        world.take(step)
    fresh = SpanIndex(held.value for held in world.view)
    assert not fresh.unsettled
    for node in NODES:
        assert fresh.scope(node) == span(world.view, node)


@settings(max_examples=80, deadline=None)
@given(histories)
def test_the_root_of_a_span_is_the_digest_of_a_view_that_holds_just_it(history: list[Step]) -> None:
    world = World()
    for step in history:
        world.take(step)
    for node, scope in world.scopes().items():
        expected = restricted(world.view, scope, node).digest.root
        assert world.digest.root_of(scope, node) == expected


@settings(max_examples=80, deadline=None)
@given(histories)
def test_an_agent_knows_its_span_from_what_it_holds(history: list[Step]) -> None:
    world = World()
    for step in history:
        world.take(step)
    for node in NODES:
        scope = span(world.view, node)
        # An identity without a policy object is of no consequence: nothing of it is held.
        held = held_span(restricted(world.view, scope, node), node)
        assert restricted(world.view, held, node) == restricted(world.view, scope, node)
