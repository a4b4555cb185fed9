"""What the compiler says has changed, and that the way there does not matter."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from deltaplane.model.identity import Identity, LabelSet
from deltaplane.model.objects import Kind, PeerSet, SubjectPolicy
from deltaplane.model.policy import NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from deltaplane.model.ports import NamedPort, PortRange, Protocol
from deltaplane.model.selector import LabelSelector
from deltaplane.policy.compiler import Compiled, Compiler
from tests.unit.deltaplane.policy import worlds
from tests.unit.deltaplane.policy.brute_force import AnyPolicy
from tests.unit.deltaplane.policy.test_equivalence import compiled

WEB = LabelSelector.of({"app": "web"})
API = LabelSelector.of({"app": "api"})


def identity(number: int, app: str, *ports: NamedPort, namespace: str = "shop") -> Identity:
    return Identity(number, LabelSet.of(namespace, {}, {"app": app}, ports))


def policy(
    name: str = "p",
    *,
    subject: LabelSelector = API,
    peers: tuple[PolicyPeer, ...] = (),
    ports: tuple[PolicyPort, ...] = (),
    egress: bool = False,
) -> NetworkPolicy:
    rules = (PolicyRule(peers=peers, ports=ports),)
    return NetworkPolicy(
        namespace="shop",
        name=name,
        pod_selector=subject,
        applies_to_ingress=not egress,
        applies_to_egress=egress,
        ingress=() if egress else rules,
        egress=rules if egress else (),
    )


def subject_of(compiler: Compiler, number: int) -> SubjectPolicy:
    found = [value for value in compiler.all() if value.key == number.to_bytes(4)]
    assert len(found) == 1
    assert isinstance(found[0], SubjectPolicy)
    return found[0]


def test_an_identity_that_no_policy_selects_has_an_open_policy() -> None:
    compiler = Compiler()
    compiler.set_identity(identity(256, "web"))
    assert compiler.flush() == Compiled((SubjectPolicy(identity=256),), ())


def test_a_policy_touches_its_subjects_and_names_itself() -> None:
    compiler = Compiler()
    compiler.set_identity(identity(256, "web"))
    compiler.set_identity(identity(257, "api"))
    compiler.flush()
    compiler.set_policy(policy(peers=(PolicyPeer(pod_selector=WEB),)))
    peer_set, subject = compiler.flush().upserts
    assert isinstance(peer_set, PeerSet)
    assert isinstance(subject, SubjectPolicy)
    assert peer_set.identities == (256,)
    assert len(peer_set.key) == 16
    assert subject.identity == 257
    assert subject.ingress.policies == ("shop/p",)
    assert subject.ingress.rules[0].peer_sets == (peer_set.key,)
    assert not subject.egress.isolated


def test_the_same_again_changes_nothing() -> None:
    compiler = Compiler()
    compiler.set_identity(identity(256, "api"))
    compiler.set_policy(policy())
    compiler.flush()
    compiler.set_identity(identity(256, "api"))
    compiler.set_policy(policy())
    assert compiler.flush() == Compiled((), ())


def test_what_came_and_went_between_two_flushes_is_not_mentioned() -> None:
    compiler = Compiler()
    compiler.set_identity(identity(256, "api"))
    compiler.flush()
    compiler.set_policy(policy(peers=(PolicyPeer(pod_selector=WEB),)))
    compiler.all()
    compiler.delete_policy("shop/p")
    assert compiler.flush() == Compiled((), ())


def test_a_new_member_changes_its_peer_sets_and_no_other_subject() -> None:
    compiler = Compiler()
    compiler.set_identity(identity(257, "api"))
    compiler.set_policy(policy(peers=(PolicyPeer(pod_selector=WEB),)))
    compiler.flush()
    compiler.set_identity(identity(258, "web"))
    upserts = compiler.flush().upserts
    assert [(value.kind, getattr(value, "identities", None)) for value in upserts] == [
        (Kind.PEER_SET, (258,)),
        (Kind.SUBJECT_POLICY, None),
    ]


def test_a_peer_set_that_nobody_names_any_more_is_removed() -> None:
    compiler = Compiler()
    compiler.set_identity(identity(256, "web"))
    compiler.set_identity(identity(257, "api"))
    compiler.set_policy(policy(peers=(PolicyPeer(pod_selector=WEB),)))
    key = compiler.flush().upserts[0].key
    compiler.delete_policy("shop/p")
    gone = compiler.flush()
    assert gone.upserts == (SubjectPolicy(identity=257),)
    assert gone.removals == ((Kind.PEER_SET, key),)


def test_a_policy_without_subjects_says_nothing() -> None:
    compiler = Compiler()
    compiler.set_identity(identity(256, "web"))
    compiler.flush()
    compiler.set_policy(policy(peers=(PolicyPeer(pod_selector=WEB),)))
    assert compiler.flush() == Compiled((), ())


def test_policies_with_the_same_peers_share_a_peer_set() -> None:
    compiler = Compiler()
    compiler.set_identity(identity(257, "api"))
    for name in ("p", "q"):
        compiler.set_policy(policy(name, peers=(PolicyPeer(pod_selector=WEB),)))
    compiler.delete_policy("shop/p")
    assert sum(isinstance(value, PeerSet) for value in compiler.all()) == 1


def test_equal_pod_selectors_of_two_namespaces_are_two_peer_sets() -> None:
    compiler = Compiler()
    compiler.set_identity(identity(256, "web", namespace="other"))
    compiler.set_identity(identity(257, "api"))
    compiler.set_policy(policy(peers=(PolicyPeer(pod_selector=WEB),)))
    peer_set = compiler.all()[0]
    assert isinstance(peer_set, PeerSet)
    assert peer_set.identities == ()


def test_a_named_ingress_port_is_the_subjects_own() -> None:
    compiler = compiled(
        (policy(ports=(PolicyPort(port="http"),)),),
        (
            identity(256, "api", NamedPort("http", Protocol.TCP, 80)),
            identity(257, "api", NamedPort("http", Protocol.TCP, 8080)),
            identity(258, "api", NamedPort("http", Protocol.UDP, 80)),
        ),
    )
    assert subject_of(compiler, 256).ingress.rules[0].ports == (PortRange(Protocol.TCP, 80, 80),)
    assert subject_of(compiler, 257).ingress.rules[0].ports == (
        PortRange(Protocol.TCP, 8080, 8080),
    )
    # The name means nothing here: isolated, and nothing allowed.
    assert subject_of(compiler, 258).ingress.isolated
    assert subject_of(compiler, 258).ingress.rules == ()


def test_a_named_egress_port_is_each_destinations_own() -> None:
    compiler = compiled(
        (
            policy(
                peers=(PolicyPeer(pod_selector=WEB),), ports=(PolicyPort(port="http"),), egress=True
            ),
        ),
        (
            identity(256, "web", NamedPort("http", Protocol.TCP, 80)),
            identity(257, "web", NamedPort("http", Protocol.TCP, 8080)),
            identity(258, "api"),
        ),
    )
    sets = {v.key: v.identities for v in compiler.all() if isinstance(v, PeerSet)}
    reached = {
        (sets[key], rule.ports[0].first)
        for rule in subject_of(compiler, 258).egress.rules
        for key in rule.peer_sets
    }
    assert reached == {((256,), 80), ((257,), 8080)}


def test_a_destination_with_a_new_number_opens_it() -> None:
    compiler = compiled(
        (
            policy(
                peers=(PolicyPeer(pod_selector=WEB),), ports=(PolicyPort(port="http"),), egress=True
            ),
        ),
        (identity(258, "api"),),
    )
    assert subject_of(compiler, 258).egress.rules == ()
    compiler.set_identity(identity(256, "web", NamedPort("http", Protocol.TCP, 80)))
    assert len(subject_of(compiler, 258).egress.rules) == 1
    compiler.delete_identity(256)
    assert subject_of(compiler, 258).egress.rules == ()


def test_a_destination_opens_a_number_that_others_have_already() -> None:
    peers = (PolicyPeer(pod_selector=WEB),)
    http = NamedPort("http", Protocol.TCP, 80)
    compiler = compiled(
        (policy(peers=peers, ports=(PolicyPort(port="http"),), egress=True),),
        (identity(258, "api", http),),
    )
    assert subject_of(compiler, 258).egress.rules == ()
    compiler.set_identity(identity(256, "web", http))
    assert len(subject_of(compiler, 258).egress.rules) == 1
    compiler.delete_identity(256)
    assert subject_of(compiler, 258).egress.rules == ()


def test_overlapping_ports_become_one_range() -> None:
    ports = (
        PolicyPort(port=80, end_port=90),
        PolicyPort(port=91),
        PolicyPort(port=85, end_port=100),
    )
    compiler = compiled((policy(ports=ports),), (identity(256, "api"),))
    assert subject_of(compiler, 256).ingress.rules[0].ports == (PortRange(Protocol.TCP, 80, 100),)


@settings(max_examples=100, deadline=None)
@given(worlds.any_policy_lists(), worlds.identities(), st.randoms(use_true_random=False))
def test_the_order_of_learning_does_not_matter(
    policies: tuple[AnyPolicy, ...], identities: tuple[Identity, ...], random: Random
) -> None:
    expected = compiled(policies, identities)
    steps: list[AnyPolicy | Identity] = [*policies, *identities]
    random.shuffle(steps)
    shuffled = Compiler()
    for step in steps:
        if isinstance(step, Identity):
            shuffled.set_identity(step)
        else:
            shuffled.set_policy(step)
    assert shuffled.all() == expected.all()
    assert shuffled.flush() == expected.flush()


class Incremental(RuleBasedStateMachine):
    """One compiler that lives through everything, against a new one each time."""

    def __init__(self) -> None:
        super().__init__()
        self.compiler = Compiler()
        self.policies: dict[str, AnyPolicy] = {}
        self.identities: dict[int, Identity] = {}
        self.view: dict[tuple[Kind, bytes], object] = {}

    @rule(policy=worlds.any_policies)
    def set_policy(self, policy: AnyPolicy) -> None:
        self.policies[policy.reference] = policy
        self.compiler.set_policy(policy)

    @rule(data=st.data())
    def delete_policy(self, data: st.DataObject) -> None:
        reference = data.draw(st.sampled_from(("shop/absent", *sorted(self.policies))))
        self.policies.pop(reference, None)
        self.compiler.delete_policy(reference)

    @rule(number=st.integers(256, 260), label_set=worlds.label_sets())
    def set_identity(self, number: int, label_set: LabelSet) -> None:
        self.identities[number] = Identity(number, label_set)
        self.compiler.set_identity(self.identities[number])

    @rule(number=st.integers(256, 260))
    def delete_identity(self, number: int) -> None:
        self.identities.pop(number, None)
        self.compiler.delete_identity(number)

    @rule()
    def flush(self) -> None:
        changes = self.compiler.flush()
        for value in changes.upserts:
            key = (value.kind, value.key)
            assert self.view.get(key) != value
            self.view[key] = value
        for key in changes.removals:
            del self.view[key]
        assert self.view == {(value.kind, value.key): value for value in self.compiler.all()}

    @invariant()
    def equals_one_from_scratch(self) -> None:
        fresh = compiled(tuple(self.policies.values()), tuple(self.identities.values()))
        assert self.compiler.all() == fresh.all()

    @invariant()
    def every_named_peer_set_is_there_and_no_other(self) -> None:
        everything = self.compiler.all()
        named = {
            key
            for value in everything
            if isinstance(value, SubjectPolicy)
            for direction in (value.ingress, value.egress)
            for found in direction.rules
            for key in found.peer_sets
        }
        assert named == {value.key for value in everything if isinstance(value, PeerSet)}


Incremental.TestCase.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
TestIncremental = Incremental.TestCase
