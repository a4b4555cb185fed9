from deltaplane.delta.changes import Upsert
from deltaplane.delta.view import View
from deltaplane.model.objects import (
    DirectionPolicy,
    DirectionRule,
    IdentityObject,
    Kind,
    SubjectPolicy,
)
from services.slicer.receipts import (
    ENDPOINT_KINDS,
    MISSING_AT_MOST,
    POLICY_KINDS,
    Concern,
    Effective,
    Missing,
    Refused,
    Report,
    Subject,
    describe,
    newest,
    receipt,
)
from services.slicer.timings import Spread

NODES = {1: "node-1", 2: "node-2", 3: "node-3"}
POLICY = Concern(Subject(revision=50, kinds=POLICY_KINDS), View())


def known(*others: Effective, **revisions: int) -> list[Report]:
    entries = (
        Effective(node_index=int(name.removeprefix("n")), revision=revision)
        for name, revision in revisions.items()
    )
    return [Report(nodes=(*entries, *others))]


def test_complete_when_every_node_is_there() -> None:
    made = receipt(POLICY, nodes=NODES, reports=known(n1=50, n2=51, n3=90), head=90)
    assert (made.nodes_enforced, made.nodes_total, made.complete) == (3, 3, True)
    assert made.missing == ()


def test_missing_nodes_say_why() -> None:
    made = receipt(POLICY, nodes=NODES, reports=known(n1=50, n3=49), head=90)
    assert (made.nodes_enforced, made.complete) == (1, False)
    assert made.missing == (
        Missing(node="node-2", effective_revision=0, reason="not connected"),
        Missing(node="node-3", effective_revision=49, reason="lagging"),
    )


def test_a_refusal_counts_where_it_matters() -> None:
    refused = describe(Kind.ENDPOINT, b"\x01\x02", "no room")
    reports = known(Effective(node_index=3, revision=60, refused=(refused,)), n1=50, n2=50)
    made = receipt(POLICY, nodes=NODES, reports=reports, head=60)
    assert made.complete
    endpoint = Concern(Subject(revision=50, kinds=ENDPOINT_KINDS), View())
    made = receipt(endpoint, nodes=NODES, reports=reports, head=60)
    assert [(m.node, m.reason) for m in made.missing] == [
        ("node-3", "refused: ENDPOINT 0102: no room")
    ]


def test_a_replica_that_is_behind_completes_nothing() -> None:
    assert not receipt(POLICY, nodes={}, reports=[], head=49).complete
    assert receipt(POLICY, nodes={}, reports=[], head=50).complete


def test_nodes_that_are_not_registered_do_not_count() -> None:
    made = receipt(POLICY, nodes={1: "node-1"}, reports=known(n1=50, n9=1), head=50)
    assert (made.nodes_total, made.complete) == (1, True)


def test_the_newest_report_about_a_node_holds() -> None:
    old, new = Effective(node_index=1, revision=5), Effective(node_index=1, revision=7)
    assert newest([[old], [new]]) == newest([[new], [old]]) == {1: new}
    assert newest([]) == {}


def test_names_are_cut_off_but_counted() -> None:
    nodes = {index: f"node-{index:03}" for index in range(1, 300)}
    made = receipt(POLICY, nodes=nodes, reports=[], head=50)
    assert (made.nodes_total, made.nodes_enforced) == (299, 0)
    assert [m.node for m in made.missing] == [f"node-{i:03}" for i in range(1, MISSING_AT_MOST + 1)]


def shop() -> View:
    """Policy shop/web applies to identity 300, whose rules name a peer set; shop/db to 301."""
    view = View()
    rule = DirectionRule(peer_sets=(b"p" * 16,))
    for number, app in ((300, "web"), (301, "db")):
        direction = DirectionPolicy(isolated=True, rules=(rule,), policies=(f"shop/{app}",))
        labels = (f"app={app}",)
        view.apply(Upsert(IdentityObject(id=number, namespace="shop", labels=labels), 40))
        view.apply(Upsert(SubjectPolicy(identity=number, ingress=direction), 40))
        rule = DirectionRule()
    return view


def test_a_refusal_counts_for_the_policies_that_it_is_part_of() -> None:
    too_many = "needs 70,000 entries, the map holds 65,536"
    for kind, key, web, db in (
        (Kind.SUBJECT_POLICY, (300).to_bytes(4), False, True),
        (Kind.PEER_SET, b"p" * 16, False, True),
        (Kind.PEER_SET, b"q" * 16, True, True),
        (Kind.IDENTITY, (999).to_bytes(4), False, False),
    ):
        refused = describe(kind, key, too_many)
        reports = known(Effective(node_index=1, revision=60, refused=(refused,)))
        for policy, complete in (("shop/web", web), ("shop/db", db)):
            subject = Subject(revision=50, kinds=POLICY_KINDS, policy=policy)
            concern = Concern.of(subject, shop())
            made = receipt(concern, nodes={1: "node-1"}, reports=reports, head=60)
            assert made.complete is complete, (kind, policy)


def test_what_is_refused_is_named_for_people() -> None:
    concern = Concern.of(Subject(revision=50, kinds=POLICY_KINDS, policy="shop/web"), shop())
    refused = (
        describe(Kind.SUBJECT_POLICY, (300).to_bytes(4), "needs 70,000 entries: too many"),
        "NEW_KIND 01: of a newer replica",
    )
    reports = known(Effective(node_index=1, revision=60, refused=refused))
    (missing,) = receipt(concern, nodes={1: "node-1"}, reports=reports, head=60).missing
    assert missing.refused == (
        Refused("policies of identity 300 (shop app=web)", "needs 70,000 entries: too many"),
        Refused("NEW_KIND 01: of a newer replica", ""),
    )
    assert missing.reason == "refused: SUBJECT_POLICY 0000012c: needs 70,000 entries: too many"


def test_a_receipt_adds_up_the_times_of_all_replicas_but_does_not_change_with_them() -> None:
    reports = [Report(times=Spread({3: 1})), Report(times=Spread({3: 2, 9: 1}))]
    made = receipt(POLICY, nodes={}, reports=reports, head=50)
    assert made.times == Spread({3: 3, 9: 1})
    assert made == receipt(POLICY, nodes={}, reports=[], head=50)


def test_a_lagging_node_says_how_long() -> None:
    reports = known(Effective(node_index=1, revision=49, lagging_seconds=3.2))
    (missing,) = receipt(POLICY, nodes={1: "node-1"}, reports=reports, head=50).missing
    assert (missing.reason, missing.lagging_seconds) == ("lagging", 3.2)
