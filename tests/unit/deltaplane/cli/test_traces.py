from typing import Any

from deltaplane.cli import traces

TRACE, OTHER = "a" * 32, "b" * 32
MS = 1_000_000


def span(
    name: str,
    number: str,
    parent: str = "",
    *,
    at: int = 0,
    took: int = 10,
    trace: str = TRACE,
    links: tuple[tuple[str, str], ...] = (),
    where: str = "node-1",
    events: tuple[tuple[str, int], ...] = (),
    error: str = "",
) -> dict[str, Any]:
    return {
        "name": name,
        "process": "agent" if where.startswith("node") else where,
        "instance": where,
        "trace": trace,
        "span": number,
        "parent": parent,
        "links": [{"trace": t, "span": s} for t, s in links],
        "start_unix_ns": at * MS,
        "end_unix_ns": (at + took) * MS,
        "attributes": {},
        "events": [{"name": n, "unix_ns": t * MS} for n, t in events],
        "error": error,
    }


STORY = [
    span("apply", "f2", "c", at=60, where="node-3", events=(("applied", 64),)),
    span("apply", "f1", "c", at=61, where="node-2", events=(("applied", 63),)),
    span("apply", "f0", "c", at=59, where="node-1", events=(("applied", 60),)),
    # A tick that began with another trace's change, and carries ours.
    span(
        "tick", "e", "zz", at=50, trace=OTHER, links=((OTHER, "yy"), (TRACE, "c")), where="slicer"
    ),
    span("RegisterEndpoint", "c", "b", at=15, took=30, where="endpoints"),
    span("register", "b", "a", at=12, took=40),
    span("link", "d", "a", at=11),
    span("cni ADD", "a", at=10, took=80),
]


def read() -> list[traces.Span]:
    return traces.read({"ratio": 1.0, "spans": STORY}, TRACE)


def test_stages_stand_below_what_they_are_part_of_in_order_of_time() -> None:
    spans = read()
    start = traces.beginning(spans)
    assert start is not None
    assert [(row.depth, row.stage, row.where, row.at_ms) for row in traces.rows(spans, start)] == [
        (0, "cni ADD", "node-1", 0.0),
        (1, "link", "node-1", 1.0),
        (1, "register", "node-1", 2.0),
        (2, "RegisterEndpoint", "endpoints", 5.0),
        (3, "tick", "slicer", 40.0),
        (3, "apply", "node-1", 49.0),
        (3, "apply", "node-3", 50.0),
        (3, "apply", "node-2", 51.0),
    ]


def test_other_nodes_are_counted_and_the_own_one_is_not() -> None:
    spans = read()
    start = traces.beginning(spans)
    assert start is not None
    arrival = traces.arrival(spans, start)
    assert arrival is not None
    assert list(arrival.at_ms.items()) == [("node-2", 53.0), ("node-3", 54.0)]
    assert (arrival.first, arrival.p50, arrival.last) == (53.0, 53.5, 54.0)


def test_a_span_whose_parent_nobody_has_stands_below_the_add() -> None:
    spans = [item for item in read() if item.name != "RegisterEndpoint"]
    start = traces.beginning(spans)
    assert start is not None
    found = {(row.depth, row.stage, row.where) for row in traces.rows(spans, start)}
    assert (1, "apply", "node-2") in found
    assert len(found) == len(spans)


def test_a_failure_comes_first_in_the_notes() -> None:
    (found,) = traces.read({"spans": [span("cni ADD", "a", error="no address")]}, TRACE)
    (row,) = traces.rows([found], found)
    assert row.note == "failed: no address"


def test_without_the_add_there_is_no_beginning() -> None:
    assert traces.beginning([item for item in read() if item.name != "cni ADD"]) is None


def test_nobody_else_may_have_it() -> None:
    spans = [item for item in read() if item.instance in ("node-1", "endpoints")]
    start = traces.beginning(spans)
    assert start is not None
    assert traces.arrival(spans, start) is None
