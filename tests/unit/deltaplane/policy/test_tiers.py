"""What becomes of policies of several kinds on the stream, and how an explanation names them."""

from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.model.identity import NAMESPACE_NAME_LABEL, Identity, LabelSet, Reserved
from deltaplane.model.objects import DirectionPolicy, PeerSet, SubjectPolicy
from deltaplane.model.policy import IPBlock, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from deltaplane.model.ports import NamedPort, PortRange, Protocol
from deltaplane.model.selector import LabelSelector, Operator, Requirement
from deltaplane.model.tiers import Action, Policy, PolicyKind, Rule, Selector, Tier
from deltaplane.policy.compiler import Compiler
from deltaplane.policy.explain import Party, explain
from deltaplane.policy.translate import of_network_policy
from tests.unit.deltaplane.policy.test_equivalence import compiled

TCP = Protocol.TCP
API = LabelSelector.of({"app": "api"})
WEB = LabelSelector.of({"app": "web"})
ANYTHING = Rule(all_peers=True, any_port=True)
DENY = Rule(action=Action.DENY, all_peers=True, any_port=True)
PASS = Rule(action=Action.PASS, all_peers=True, any_port=True)


def identity(number: int, app: str, *ports: NamedPort) -> Identity:
    return Identity(number, LabelSet.of("shop", {}, {"app": app}, ports))


def network(
    name: str, *rules: PolicyRule, audit: bool = False, egress: bool = False
) -> NetworkPolicy:
    return NetworkPolicy(
        namespace="shop",
        name=name,
        pod_selector=API,
        applies_to_ingress=not egress,
        applies_to_egress=egress,
        ingress=() if egress else rules,
        egress=rules if egress else (),
        audit=audit,
    )


def cilium(
    name: str, *rules: Rule, isolates: bool = False, audit: bool = False, egress: bool = False
) -> Policy:
    return Policy(
        kind=PolicyKind.CILIUM,
        namespace="shop",
        name=name,
        subject=Selector(namespace="shop", pods=API),
        isolates_ingress=isolates and not egress,
        isolates_egress=isolates and egress,
        audit=audit,
        ingress=() if egress else rules,
        egress=rules if egress else (),
    )


def tiered(name: str, *rules: Rule, tier: Tier = Tier.ADMIN, priority: int = 0) -> Policy:
    return Policy(
        kind=PolicyKind.CLUSTER,
        namespace="",
        name=name,
        subject=Selector(),
        tier=tier,
        priority=priority,
        ingress=rules,
    )


def ingress(*policies: NetworkPolicy | Policy) -> DirectionPolicy:
    return subject(compiled(policies, (identity(300, "api"),))).ingress


def subject(compiler: Compiler) -> SubjectPolicy:
    (found,) = [value for value in compiler.all() if value.key == (300).to_bytes(4)]
    assert isinstance(found, SubjectPolicy)
    return found


def party(app: str) -> Party:
    label_set = identity(300, app).label_set
    return Party(address=parse_address("10.0.0.1"), identity=300, label_set=label_set)


# --- order, merging, sources ----------------------------------------------------------------------


def test_rules_stand_in_the_order_in_which_they_are_asked() -> None:
    found = ingress(
        tiered("base", DENY, tier=Tier.BASELINE),
        network("n", PolicyRule()),
        tiered("a", ANYTHING, priority=7),
        tiered("c", DENY, priority=5),
        tiered("b", PASS, DENY, priority=5),
    )
    assert found.policies == (
        "ClusterNetworkPolicy:a",
        "ClusterNetworkPolicy:b",
        "ClusterNetworkPolicy:base",
        "ClusterNetworkPolicy:c",
        "shop/n",
    )
    assert [(rule.tier, rule.action, rule.sources) for rule in found.rules] == [
        (Tier.ADMIN, Action.PASS, ((1, 0),)),
        (Tier.ADMIN, Action.DENY, ((1, 1),)),
        (Tier.ADMIN, Action.DENY, ((3, 0),)),
        (Tier.ADMIN, Action.ALLOW, ((0, 0),)),
        (Tier.NORMAL, Action.ALLOW, ((4, 0),)),
        (Tier.BASELINE, Action.DENY, ((2, 0),)),
    ]


def test_equal_rules_of_the_normal_tier_are_one_with_all_sources() -> None:
    http = PolicyRule(ports=(PolicyPort(port=80),))
    found = ingress(
        network("n", PolicyRule(), http),
        network("m", http),
        cilium("c", Rule(action=Action.DENY, all_peers=True, ranges=(PortRange(TCP, 80, 80),))),
    )
    assert found.policies == ("CiliumNetworkPolicy:shop/c", "shop/m", "shop/n")
    assert [(rule.action, bool(rule.ports), rule.sources) for rule in found.rules] == [
        (Action.DENY, True, ((0, 0),)),
        (Action.ALLOW, True, ((1, 0), (2, 1))),
        (Action.ALLOW, False, ((2, 0),)),
    ]


def test_rules_that_match_nothing_are_left_out() -> None:
    nobody = Rule(any_port=True)
    nothing = Rule(all_peers=True, port_names=(("http", TCP),))
    found = ingress(cilium("c", nobody, nothing, ANYTHING))
    assert [rule.sources for rule in found.rules] == [((0, 2),)]
    assert ingress(cilium("c")) == DirectionPolicy()


def test_a_policy_that_does_not_isolate_leaves_its_subject_open() -> None:
    assert not ingress(cilium("c", ANYTHING)).isolated
    assert ingress(cilium("c", isolates=True)).isolated
    assert not ingress(cilium("c", isolates=True, egress=True)).policies


# --- the wildcard ---------------------------------------------------------------------------------


def test_every_pod_is_an_entity_and_no_peer_set() -> None:
    exists = LabelSelector((Requirement(NAMESPACE_NAME_LABEL, Operator.EXISTS),))
    for namespaces in (LabelSelector(), exists):
        peers = (
            PolicyPeer(namespace_selector=namespaces),
            PolicyPeer(pod_selector=WEB),
            PolicyPeer(ip_block=IPBlock(Prefix.parse("10.0.0.0/8"))),
        )
        compiler = compiled((network("n", PolicyRule(peers=peers)),), (identity(300, "api"),))
        (rule,) = subject(compiler).ingress.rules
        assert rule.entities == (Reserved.OTHER_POD,)
        assert rule.peer_sets == ()
        assert len(rule.blocks) == 1
        assert not any(isinstance(value, PeerSet) for value in compiler.all())


def test_what_matches_every_pod_of_today_is_a_peer_set() -> None:
    team = LabelSelector((Requirement("team", Operator.EXISTS),))
    for peer in (
        PolicyPeer(namespace_selector=LabelSelector(), pod_selector=API),
        PolicyPeer(namespace_selector=team),
        PolicyPeer(pod_selector=LabelSelector()),
    ):
        (rule,) = ingress(network("n", PolicyRule(peers=(peer,)))).rules
        assert rule.entities == ()
        assert len(rule.peer_sets) == 1


def test_a_named_port_of_every_pod_is_a_peer_set_of_those_that_have_it() -> None:
    rule = PolicyRule(
        peers=(PolicyPeer(namespace_selector=LabelSelector()),),
        ports=(PolicyPort(port="http"), PolicyPort(port=53)),
    )
    compiler = compiled(
        (network("n", rule, egress=True),),
        (identity(300, "api"), identity(301, "web", NamedPort("http", TCP, 8080))),
    )
    numbered, named = subject(compiler).egress.rules
    assert numbered.entities == (Reserved.OTHER_POD,)
    assert numbered.ports == (PortRange(TCP, 53, 53),)
    (peer_set,) = [value for value in compiler.all() if isinstance(value, PeerSet)]
    assert named.peer_sets == (peer_set.key,)
    assert peer_set.identities == (301,)
    assert named.sources == numbered.sources == ((0, 0),)


def test_blocks_for_the_outside_alone_say_so_and_nothing_else_does() -> None:
    block = IPBlock(Prefix.parse("10.0.0.0/8"))
    (rule,) = ingress(cilium("c", Rule(blocks=(block,), outside_only=True, any_port=True))).rules
    assert rule.outside_only
    world = Rule(entities=(Reserved.WORLD,), outside_only=True, any_port=True)
    (rule,) = ingress(cilium("c", world)).rules
    assert not rule.outside_only


# --- audit ----------------------------------------------------------------------------------------


def test_audit_marks_rules_and_isolates_apart() -> None:
    found = ingress(network("n", PolicyRule(), audit=True))
    assert (found.isolated, found.audit_isolated) == (False, True)
    assert [rule.audit for rule in found.rules] == [True]
    found = ingress(network("n", PolicyRule(), audit=True), network("m", PolicyRule()))
    assert (found.isolated, found.audit_isolated) == (True, True)
    # What is enforced and what is not are never one rule.
    assert [(rule.audit, rule.sources) for rule in found.rules] == [
        (False, ((0, 0),)),
        (True, ((1, 0),)),
    ]


def test_an_explanation_says_what_audit_would_have_said() -> None:
    policies = (of_network_policy(network("n", audit=True)),)
    found = explain(policies, party("web"), party("api"), protocol=6, port=80)
    assert found.allowed
    assert not found.allowed_under_audit
    assert found.ingress.audit.tier is Tier.NORMAL
    assert found.ingress.policies == ("shop/n",)
    assert found.ingress.isolating == ()


# --- explanations ---------------------------------------------------------------------------------


def test_an_explanation_names_rule_policy_and_tier() -> None:
    policies = (
        tiered("a", PASS),
        tiered("b", Rule(action=Action.DENY, all_peers=True, any_port=True, name="no")),
        of_network_policy(network("n", PolicyRule())),
    )
    found = explain(policies, party("web"), party("api"), protocol=6, port=80)
    assert found.ingress.decision.tier is Tier.NORMAL
    assert str(found.ingress) == "ingress allowed by rule 0 of shop/n"
    assert [str(match) for match in found.ingress.matching] == [
        "rule 0 of ClusterNetworkPolicy:a",
        'rule 0 "no" of ClusterNetworkPolicy:b',
        "rule 0 of shop/n",
    ]
    found = explain(policies[1:], party("web"), party("api"), protocol=6, port=80)
    assert str(found) == 'ingress denied by rule 0 "no" of ClusterNetworkPolicy:b'


def test_a_denial_beats_a_permission_and_both_are_shown() -> None:
    policies = (cilium("deny", DENY), cilium("allow", ANYTHING))
    found = explain(policies, party("web"), party("api"), protocol=6, port=80)
    assert str(found.ingress) == "ingress denied by rule 0 of CiliumNetworkPolicy:shop/deny"
    assert len(found.ingress.matching) == 2


def test_nodes_and_the_world_are_parties() -> None:
    world = Rule(entities=(Reserved.WORLD,), any_port=True)
    nodes = Rule(entities=(Reserved.REMOTE_NODE,), any_port=True)
    outside = Rule(
        blocks=(IPBlock(Prefix.parse("10.0.0.0/8")),), outside_only=True, ranges=(PortRange(TCP),)
    )
    address = parse_address("10.9.9.9")

    def reaches(rule: Rule, reserved: Reserved) -> bool:
        remote = Party(address=address, identity=reserved)
        policies = (cilium("c", rule, isolates=True),)
        return explain(policies, remote, party("api"), protocol=6, port=80).allowed

    assert [reaches(world, end) for end in (Reserved.WORLD, Reserved.REMOTE_NODE)] == [True, False]
    assert [reaches(nodes, end) for end in (Reserved.WORLD, Reserved.REMOTE_NODE)] == [False, True]
    assert [reaches(outside, end) for end in (Reserved.WORLD, Reserved.REMOTE_NODE)] == [
        True,
        False,
    ]
    # A node reaches its own pods whatever policies say.
    assert reaches(nodes, Reserved.HOST)
