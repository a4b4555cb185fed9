"""What `Delivery` sends leads a node from its span at any cut to its span at the last one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from deltaplane.delta.changes import Recorded, Removal, merge
from deltaplane.delta.delivery import Delivery
from deltaplane.delta.log import Limits, Log, Segment
from deltaplane.delta.messages import Frame
from deltaplane.delta.pieces import Pieces
from deltaplane.delta.span import Scope, span
from deltaplane.delta.span_digest import SpanDigest
from deltaplane.delta.view import View
from deltaplane.delta.wire import ProtobufEncoder
from deltaplane.model.objects import DERIVED_KINDS, Kind, StreamObject
from tests.decoding import decode_response
from tests.unit.deltaplane.delta.span_worlds import (
    NODES,
    Step,
    change_for,
    node_step,
    restricted,
    steps,
)

ENCODER = ProtobufEncoder()
ticks = st.lists(st.lists(steps, min_size=1, max_size=8), min_size=1, max_size=5)
Content = dict[tuple[Kind, bytes], tuple[StreamObject, int]]


class Server:
    """A view, its log and its pieces, tick by tick."""

    def __init__(self) -> None:
        self.view = View(SpanDigest())
        self.log = Log(ENCODER, 10, Limits())
        self.pieces = Pieces(self.view, ENCODER)
        self.delivery = Delivery(ENCODER, self.pieces)
        self.revision = 10

    def tick(self, happened: list[Step]) -> None:
        history: list[Recorded] = []
        for step in happened:
            self.revision += 1
            if (change := change_for(self.view, step, self.revision)) is None:
                continue
            held = self.view.get(step.key)
            self.view.apply(change)
            history.append(Recorded(change, None if held is None else held.value))
        merged = tuple(
            Recorded(r.change, r.before, ENCODER.change(r.change, self.revision))
            for r in merge(history)
        )
        self.log.append(
            Segment(
                previous=self.log.cut,
                revision=self.revision,
                events=(self.revision,),
                oldest_change_unix_ns=0,
                closed_at=0.0,
                changes=merged,
            )
        )
        self.pieces.touch(history)
        self.delivery.forget()

    def lead(self, agent: View, cut: int, old: Scope, new: Scope, node: int) -> None:
        """Sends an agent what it needs from a cut on."""
        changes = self.log.changes_after(cut)
        assert changes is not None
        pieces = self.delivery.pieces(
            changes, revision=self.log.cut, old=old, new=new, node_index=node
        )
        frame = decode_response(ENCODER.frame(cut, self.log.cut, 0, [p for p in pieces if p]))
        assert isinstance(frame, Frame)
        for change in frame.changes:
            if isinstance(change, Removal) and change.left_span and change.kind is Kind.IDENTITY:
                agent.leave(int.from_bytes(change.key), node)
            else:
                agent.apply(change)


def content(view: View) -> Content:
    """Values with the generations that count."""
    return {
        (held.value.kind, held.value.key): (
            held.value,
            0 if held.value.kind in DERIVED_KINDS else held.generation,
        )
        for held in view
    }


@settings(max_examples=120, deadline=None)
@given(ticks, ticks, st.frozensets(st.integers(300, 303), max_size=2))
def test_a_node_is_led_from_any_span_to_the_last_one(
    past: list[list[Step]], since: list[list[Step]], wanted: frozenset[int]
) -> None:
    server = Server()
    for happened in past:
        server.tick(happened)
    cut = server.log.cut
    old = {node: span(server.view, node) for node in NODES}
    agents = {node: restricted(server.view, old[node], node) for node in NODES}
    for happened in since:
        server.tick(happened)
    for node, agent in agents.items():
        new = span(server.view, node, wanted)
        server.lead(agent, cut, old[node], new, node)
        assert content(agent) == content(restricted(server.view, new, node))


@settings(max_examples=60, deadline=None)
@given(ticks, st.frozensets(st.integers(300, 303), max_size=2))
def test_a_span_changes_where_no_revision_does(
    past: list[list[Step]], wanted: frozenset[int]
) -> None:
    server = Server()
    for happened in past:
        server.tick(happened)
    cut = server.log.cut
    for node in NODES:
        plain, prefetched = span(server.view, node), span(server.view, node, wanted)
        agent = restricted(server.view, plain, node)
        server.lead(agent, cut, plain, prefetched, node)
        assert content(agent) == content(restricted(server.view, prefetched, node))
        server.lead(agent, cut, prefetched, plain, node)
        assert content(agent) == content(restricted(server.view, plain, node))


def test_nodes_with_the_same_needs_get_the_same_bytes() -> None:
    server = Server()
    server.tick([node_step(3, "x")])
    cut = server.log.cut
    server.tick([node_step(1, "x"), node_step(2, "x")])
    changes = server.log.changes_after(cut)
    assert changes is not None
    found = [
        server.delivery.pieces(
            changes,
            revision=server.log.cut,
            old=Scope(),
            new=Scope(),
            node_index=node,
        )
        for node in NODES
    ]
    assert found[0]
    assert all(one is other for one, other in zip(found[0], found[1], strict=True))
