from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from deltaplane.delta.changes import Change, Removal, Upsert
from deltaplane.delta.view import View
from deltaplane.model.addresses import AddressPair, Prefix
from deltaplane.model.identity import Identity, LabelSet
from deltaplane.model.objects import (
    DERIVED_KINDS,
    BackendObject,
    BlockObject,
    EndpointObject,
    IdentityObject,
    Kind,
    NodeObject,
    ServiceObject,
    SubjectPolicy,
)
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.selector import LabelSelector
from deltaplane.model.service import (
    EndpointSlice,
    Service,
    ServicePort,
    SliceEndpoint,
    SlicePort,
)
from deltaplane.model.tiers import Policy, PolicyKind, Selector
from deltaplane.policy.compiler import Compiler
from services.slicer.facts import Content, EndpointRecord, Facts, NodeRecord, Record


def node(index: int) -> NodeRecord:
    addresses = AddressPair(ipv4=bytes((198, 19, 0, index)))
    return NodeRecord(NodeObject(index=index, name="node-a", addresses=addresses), f"uid-{index}")


def endpoint(number: int, identity: int, incarnation: int, node_index: int = 1) -> EndpointRecord:
    return EndpointRecord(
        EndpointObject(
            node_index=node_index,
            id=number,
            identity=identity,
            addresses=AddressPair(ipv4=bytes((10, 0, 0, number))),
            incarnation=incarnation,
        )
    )


def identity(number: int) -> Identity:
    return Identity(number, LabelSet.of("shop", {}, {"app": f"a{number}"}))


def policy(name: str, app: str) -> NetworkPolicy:
    return NetworkPolicy(
        namespace="shop",
        name=name,
        pod_selector=LabelSelector.of({"app": app}),
        applies_to_ingress=True,
        applies_to_egress=False,
    )


def service(number: int, name: str = "web", *, headless: bool = False) -> Service:
    return Service(
        namespace="shop",
        name=name,
        number=number,
        ports=(ServicePort(port=80, target="http"),),
        cluster_ips=() if headless else (bytes((10, 96, 0, number)),),
    )


def endpoints(
    *numbers: int, name: str = "s", of: str = "web", node: str = "", ready: bool = True
) -> EndpointSlice:
    return EndpointSlice(
        namespace="shop",
        name=name,
        service=of,
        ports=(SlicePort(number=8080),),
        endpoints=tuple(
            SliceEndpoint(address=bytes((10, 1, 0, number)), node=node, ready=ready)
            for number in numbers
        ),
    )


CONTENTS: dict[str, list[Content]] = {
    "nodes/node-a": [node(1), node(2)],
    "blocks/b": [
        BlockObject(prefix=Prefix.parse("10.0.0.0/26"), node_index=1),
        BlockObject(prefix=Prefix.parse("10.0.0.0/26"), node_index=2),
    ],
    "identities/300": [identity(300)],
    "identities/301": [identity(301)],
    "endpoints/1": [endpoint(1, 300, 5), endpoint(1, 301, 5), endpoint(1, 300, 6)],
    "endpoints/2": [endpoint(2, 300, 7), endpoint(2, 300, 7, node_index=2)],
    "policies/shop/p": [policy("p", "a300"), policy("p", "a301")],
    "policies/shop/q": [policy("q", "a300")],
    "services/shop/web": [service(1), service(1, headless=True), service(3)],
    "services/shop/db": [service(2, "db")],
    "endpoint-slices/shop/s": [endpoints(1, 2), endpoints(1, ready=False), endpoints(3, of="db")],
    "endpoint-slices/shop/t": [endpoints(2, name="t", node="node-a")],
}

STEPS = st.lists(
    st.sampled_from([(key, n) for key, c in CONTENTS.items() for n in (-1, *range(len(c)))]),
    max_size=30,
)


def records(steps: list[tuple[str, int]]) -> list[Record]:
    return [
        Record(key=key, generation=revision, content=None if n < 0 else CONTENTS[key][n])
        for revision, (key, n) in enumerate(steps, start=10)
    ]


def last_of_each(history: list[Record]) -> list[Record]:
    last = {record.key: record for record in history}
    found = [record for record in last.values() if record.content is not None]
    return sorted(found, key=lambda record: record.generation)


def stored(view: View) -> dict[tuple[Kind, bytes], object]:
    """All that is held; of derived objects the value, of stored ones the generation, too."""
    return {
        (held.value.kind, held.value.key): (
            held.value if held.value.kind in DERIVED_KINDS else held
        )
        for held in view
    }


def apply_all(view: View, changes: tuple[Change, ...]) -> None:
    for change in changes:
        view.apply(change)


def scratch(history: list[Record]) -> Facts:
    facts = Facts(Compiler())
    for record in last_of_each(history):
        facts.apply(record)
    return facts


@given(STEPS, st.integers(1, 7))
def test_any_history_in_any_ticks_is_what_a_fresh_listing_is(
    steps: list[tuple[str, int]], tick: int
) -> None:
    history = records(steps)
    facts, view = Facts(Compiler()), View()
    for number, record in enumerate(history, start=1):
        facts.apply(record)
        if number % tick == 0:
            apply_all(view, facts.flush(record.generation))
    apply_all(view, facts.flush(1000))

    fresh, expected = scratch(history), View()
    apply_all(expected, fresh.flush(1000))
    assert stored(view) == stored(expected)
    assert view.digest.root == expected.digest.root
    assert facts.nodes == fresh.nodes


@given(STEPS, STEPS)
def test_a_listing_replaces_lost_history(
    known: list[tuple[str, int]], lost: list[tuple[str, int]]
) -> None:
    history = records([*known, *lost])
    facts, view = Facts(Compiler()), View()
    for record in history[: len(known)]:
        facts.apply(record)
    apply_all(view, facts.flush(500))
    facts.relist(last_of_each(history), 1000)
    apply_all(view, facts.flush(1000))

    expected = View()
    apply_all(expected, scratch(history).flush(1000))
    assert stored(view) == stored(expected)


def test_a_removal_names_incarnation_and_revision() -> None:
    facts = Facts(Compiler())
    facts.apply(Record(key="e", generation=5, content=endpoint(1, 300, 4)))
    facts.flush(5)
    facts.apply(Record(key="e", generation=9, content=None))
    assert facts.urgent
    assert facts.flush(9) == (
        Removal(
            kind=Kind.ENDPOINT, key=endpoint(1, 300, 4).object.key, generation=9, incarnation=4
        ),
    )
    assert not facts.urgent


def test_of_two_claims_on_one_object_the_newer_one_holds() -> None:
    facts, view = Facts(Compiler()), View()
    facts.apply(Record(key="old", generation=5, content=endpoint(1, 300, 4)))
    facts.apply(Record(key="new", generation=6, content=endpoint(1, 301, 6)))
    facts.apply(Record(key="old", generation=7, content=None))
    apply_all(view, facts.flush(7))
    assert [held.value.identity for held in view.endpoints.values()] == [301]
    facts.apply(Record(key="new", generation=8, content=None))
    apply_all(view, facts.flush(8))
    assert view.endpoints == {}


class Told(Compiler):
    """A compiler that notes which policies it is given and loses."""

    def __init__(self) -> None:
        super().__init__()
        self.set: list[NetworkPolicy | Policy] = []
        self.deleted: list[str] = []

    def set_policy(self, policy: NetworkPolicy | Policy) -> None:
        """Notes it."""
        self.set.append(policy)

    def delete_policy(self, reference: str) -> None:
        """Notes it."""
        self.deleted.append(reference)


def test_policies_of_every_kind_go_to_the_compiler() -> None:
    compiler = Told()
    facts = Facts(compiler)
    general = Policy(
        kind=PolicyKind.CILIUM, namespace="shop", name="p", subject=Selector(namespace="shop")
    )
    plain = policy("p", "a300")
    facts.apply(Record(key="g", generation=5, content=general))
    facts.apply(Record(key="n", generation=6, content=plain))
    assert compiler.set == [general, plain]
    assert facts.urgent
    assert facts.structural == 5
    assert facts.flush(6) == ()
    facts.apply(Record(key="g", generation=7, content=None))
    assert facts.urgent
    facts.apply(Record(key="n", generation=8, content=None))
    assert compiler.deleted == ["CiliumNetworkPolicy:shop/p", "shop/p"]


def test_derived_objects_carry_the_revision_of_the_tick() -> None:
    facts = Facts(Compiler())
    facts.apply(Record(key="i", generation=5, content=identity(300)))
    facts.apply(Record(key="p", generation=6, content=policy("p", "a300")))
    facts.flush(8)
    facts.apply(Record(key="p", generation=9, content=None))
    (change,) = facts.flush(12)
    assert change == Upsert(SubjectPolicy(identity=300), 12)


def test_identities_are_told_with_labels_for_people() -> None:
    facts = Facts(Compiler())
    facts.apply(Record(key="i", generation=5, content=identity(300)))
    told = [c for c in facts.flush(5) if isinstance(c, Upsert)]
    assert told[0] == Upsert(IdentityObject(id=300, namespace="shop", labels=("app=a300",)), 5)


def test_a_traceparent_goes_with_the_change() -> None:
    facts = Facts(Compiler())
    traced = replace(endpoint(1, 300, 4), traceparent="00-aa-bb-01")
    facts.apply(Record(key="e", generation=5, content=traced))
    assert facts.flush(5) == (Upsert(traced.object, 5, "00-aa-bb-01"),)


def test_what_cannot_be_read_is_absent_until_it_can() -> None:
    facts = Facts(Compiler())
    facts.apply(Record(key="e", generation=5, content=endpoint(1, 300, 4)))
    facts.apply(Record(key="e", generation=6, content=None, mistake="torn"))
    assert facts.unreadable == {"e": "torn"}
    assert isinstance(facts.flush(6)[-1], Removal)
    facts.relist([], 7)
    assert facts.unreadable == {}


def structural_after(*records: Record) -> int | None:
    facts = Facts(Compiler())
    facts.apply(Record(key="identities/301", generation=5, content=identity(301)))
    facts.flush(5)
    for record in records:
        facts.apply(record)
    return facts.structural


def test_an_identity_that_stays_is_not_structural() -> None:
    comes = Record(key="identities/302", generation=10, content=identity(302))
    assert structural_after(comes) is None


def test_an_identity_that_goes_is_structural_from_where_it_came() -> None:
    comes = Record(key="identities/302", generation=10, content=identity(302))
    other = Record(key="policies/shop/p", generation=12, content=policy("p", "a1"))
    goes = Record(key="identities/302", generation=13, content=None)
    assert structural_after(comes, goes) == 10
    assert structural_after(comes, other, goes) == 10
    old = Record(key="identities/301", generation=13, content=None)
    assert structural_after(comes, old) == 13


def test_a_policy_is_structural_from_where_an_identity_came_before_it() -> None:
    comes = Record(key="identities/302", generation=10, content=identity(302))
    changes = Record(key="policies/shop/p", generation=12, content=policy("p", "a1"))
    goes = Record(key="policies/shop/p", generation=13, content=None)
    assert structural_after(changes) == 12
    assert structural_after(comes, changes) == 10
    assert structural_after(comes, changes, goes) == 10
    later = Record(key="identities/302", generation=14, content=identity(302))
    assert structural_after(changes, later) == 12
    facts = Facts(Compiler())
    facts.apply(comes)
    facts.flush(10)  # whoever was told of it then is known
    facts.apply(changes)
    assert facts.structural == 12


def test_a_service_is_an_object_only_while_it_has_an_address() -> None:
    facts = Facts(Compiler())
    facts.apply(Record(key="services/shop/web", generation=7, content=service(1)))
    (upsert,) = facts.flush(9)
    assert isinstance(upsert, Upsert)
    assert (upsert.generation, upsert.value) == (
        7,
        ServiceObject(
            number=1,
            namespace="shop",
            name="web",
            ports=(ServicePort(port=80),),
            cluster_ips=(bytes((10, 96, 0, 1)),),
        ),
    )
    facts.apply(Record(key="services/shop/web", generation=10, content=service(1, headless=True)))
    assert facts.flush(11) == (Removal(kind=Kind.SERVICE, key=(1).to_bytes(4), generation=10),)


def test_a_backend_that_is_no_longer_ready_closes_the_tick_early() -> None:
    facts = Facts(Compiler())
    facts.apply(Record(key="services/shop/web", generation=7, content=service(1)))

    def is_urgent_after(generation: int, content: Content | None) -> bool:
        record = Record(key="endpoint-slices/shop/s", generation=generation, content=content)
        facts.apply(record)
        return facts.urgent

    assert not is_urgent_after(8, endpoints(1, 2))
    upserts = facts.flush(8)
    assert (
        sum(isinstance(it, Upsert) and isinstance(it.value, BackendObject) for it in upserts) == 2
    )
    assert not is_urgent_after(9, endpoints(1, 2, 3))
    assert facts.structural == 9
    facts.flush(9)
    assert is_urgent_after(10, endpoints(2, 3))
    (removal,) = facts.flush(10)
    assert isinstance(removal, Removal)
    assert (removal.kind, removal.generation) == (Kind.BACKEND, 10)
    assert is_urgent_after(11, None)


def test_a_node_that_is_deleted_is_a_backends_node_no_more() -> None:
    facts = Facts(Compiler())
    facts.apply(Record(key="nodes/node-a", generation=5, content=node(2)))
    facts.apply(Record(key="services/shop/web", generation=6, content=service(1)))
    slices = endpoints(2, node="node-a")
    facts.apply(Record(key="endpoint-slices/shop/s", generation=7, content=slices))
    view = View()
    apply_all(view, facts.flush(7))
    assert [held.value.node_index for held in view.backends.values()] == [2]
    facts.apply(Record(key="nodes/node-a", generation=8, content=None))
    apply_all(view, facts.flush(8))
    assert [held.value.node_index for held in view.backends.values()] == [0]
