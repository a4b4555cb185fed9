from deltaplane.model.objects import Kind
from services.slicer.receipts import (
    ENDPOINT_KINDS,
    MISSING_AT_MOST,
    POLICY_KINDS,
    Effective,
    Missing,
    Subject,
    describe,
    newest,
    receipt,
)

NODES = {1: "node-1", 2: "node-2", 3: "node-3"}
POLICY = Subject(revision=50, kinds=POLICY_KINDS)


def known(**revisions: int) -> dict[int, Effective]:
    entries = (
        Effective(node_index=int(name.removeprefix("n")), revision=revision)
        for name, revision in revisions.items()
    )
    return {entry.node_index: entry for entry in entries}


def test_complete_when_every_node_is_there() -> None:
    made = receipt(POLICY, nodes=NODES, effective=known(n1=50, n2=51, n3=90), head=90)
    assert (made.nodes_enforced, made.nodes_total, made.complete) == (3, 3, True)
    assert made.missing == ()


def test_missing_nodes_say_why() -> None:
    made = receipt(POLICY, nodes=NODES, effective=known(n1=50, n3=49), head=90)
    assert (made.nodes_enforced, made.complete) == (1, False)
    assert made.missing == (
        Missing(node="node-2", effective_revision=0, reason="not connected"),
        Missing(node="node-3", effective_revision=49, reason="lagging"),
    )


def test_a_refusal_counts_where_it_matters() -> None:
    refused = describe(Kind.ENDPOINT, b"\x01\x02", "no room")
    effective = known(n1=50, n2=50)
    effective[3] = Effective(node_index=3, revision=60, refused=(refused,))
    made = receipt(POLICY, nodes=NODES, effective=effective, head=60)
    assert made.complete
    endpoint = Subject(revision=50, kinds=ENDPOINT_KINDS)
    made = receipt(endpoint, nodes=NODES, effective=effective, head=60)
    assert [(m.node, m.reason) for m in made.missing] == [
        ("node-3", "refused: ENDPOINT 0102: no room")
    ]


def test_a_replica_that_is_behind_completes_nothing() -> None:
    assert not receipt(POLICY, nodes={}, effective={}, head=49).complete
    assert receipt(POLICY, nodes={}, effective={}, head=50).complete


def test_nodes_that_are_not_registered_do_not_count() -> None:
    made = receipt(POLICY, nodes={1: "node-1"}, effective=known(n1=50, n9=1), head=50)
    assert (made.nodes_total, made.complete) == (1, True)


def test_the_newest_report_about_a_node_holds() -> None:
    old, new = Effective(node_index=1, revision=5), Effective(node_index=1, revision=7)
    assert newest([[old], [new]]) == newest([[new], [old]]) == {1: new}
    assert newest([]) == {}


def test_names_are_cut_off_but_counted() -> None:
    nodes = {index: f"node-{index:03}" for index in range(1, 300)}
    made = receipt(POLICY, nodes=nodes, effective={}, head=50)
    assert (made.nodes_total, made.nodes_enforced) == (299, 0)
    assert [m.node for m in made.missing] == [f"node-{i:03}" for i in range(1, MISSING_AT_MOST + 1)]
