"""What stands for policies that cannot be read: never less than what they closed."""

from collections.abc import Callable

import pytest

from deltaplane import policywire
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.selector import LabelSelector
from deltaplane.model.tiers import Action, Policy, PolicyKind, Rule, Selector, Tier
from deltaplane.store import keys
from deltaplane.store.port import KeyValue
from deltaplane.v1 import policy_pb2
from services.slicer.standins import DENY_EVERYTHING, standin
from services.slicer.wire import record_from_store

RED = Selector(namespaces=LabelSelector.of({"team": "red"}))
WEB = Selector(pods=LabelSelector.of({"app": "web"}))
ALLOW = Rule(action=Action.ALLOW, selectors=(WEB,), any_port=True)
DENY = Rule(action=Action.DENY, selectors=(WEB,), any_port=True)
PASS = Rule(action=Action.PASS, all_peers=True, any_port=True)
POLICY = Policy(
    kind=PolicyKind.CLUSTER,
    namespace="",
    name="p",
    subject=RED,
    tier=Tier.BASELINE,
    priority=7,
    ingress=(ALLOW, DENY, PASS),
    egress=(DENY,),
)
KEY = keys.policy("", "p", PolicyKind.CLUSTER)
CILIUM_KEY = keys.policy("shop", "p", PolicyKind.CILIUM)


def stored(message: policy_pb2.Policy, key: str = KEY) -> Policy:
    """What the slicer takes for a record that it cannot read."""
    entry = KeyValue(key=key, value=message.SerializeToString(), create_revision=1, mod_revision=2)
    record = record_from_store(entry)
    assert record.mistake
    assert isinstance(record.content, Policy)
    return record.content


def spoilt(spoil: Callable[[policy_pb2.Policy], object]) -> Policy:
    message = policywire.policy_to_proto(POLICY)
    spoil(message)
    return stored(message)


def test_a_policy_that_can_be_read_needs_none() -> None:
    value = policywire.policy_to_proto(POLICY).SerializeToString()
    record = record_from_store(KeyValue(key=KEY, value=value, create_revision=1, mod_revision=2))
    assert (record.content, record.mistake) == (POLICY, "")


@pytest.mark.parametrize(
    ("index", "left"),
    [
        (0, (DENY, PASS)),
        (1, (ALLOW, DENY_EVERYTHING, PASS)),
        (2, (ALLOW, DENY, DENY_EVERYTHING)),
    ],
)
def test_a_rule_that_cannot_be_read_allows_nobody(index: int, left: tuple[Rule, ...]) -> None:
    found = spoilt(lambda message: message.ingress[index].entities.append(99))
    assert found.ingress == left
    assert (found.subject, found.tier, found.priority) == (RED, Tier.BASELINE, 7)
    assert found.egress == (DENY,)


def test_an_action_of_a_later_version_denies() -> None:
    found = spoilt(lambda message: setattr(message.ingress[0], "action", 9))
    assert found.ingress == (DENY_EVERYTHING, DENY, PASS)


def test_a_priority_out_of_range_spoils_nothing_else() -> None:
    found = spoilt(lambda message: setattr(message, "priority", 5000))
    assert found == spoilt(lambda message: setattr(message, "priority", 1001))
    assert (found.priority, found.ingress) == (1000, POLICY.ingress)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda message: message.ClearField("subject"),
        lambda message: message.subject.pods.match_labels.update({"-": ""}),
        lambda message: setattr(message, "tier", 9),
        lambda message: setattr(message, "name", "other"),
        lambda message: setattr(message, "kind", "AdminNetworkPolicy"),
    ],
)
def test_whom_it_concerns_being_unknown_everybody_is_closed(
    spoil: Callable[[policy_pb2.Policy], object],
) -> None:
    found = spoilt(spoil)
    assert (found.kind, found.reference) == (PolicyKind.CLUSTER, "ClusterNetworkPolicy:p")
    assert (found.subject, found.tier, found.priority) == (Selector(), Tier.ADMIN, 0)
    assert found.ingress == found.egress == (DENY_EVERYTHING,)
    assert not found.audit


def test_garbage_closes_the_namespace_that_it_lies_in() -> None:
    found = standin(CILIUM_KEY, b"\xff")
    assert isinstance(found, Policy)
    assert (found.reference, found.subject) == (
        "CiliumNetworkPolicy:shop/p",
        Selector(namespace="shop"),
    )
    assert found.ingress == found.egress == (DENY_EVERYTHING,)


def test_a_baseline_closes_only_what_nobody_else_decides() -> None:
    found = standin(keys.policy("", "default", PolicyKind.BASELINE_ADMIN), b"\xff")
    assert isinstance(found, Policy)
    assert found.tier is Tier.BASELINE


def test_a_namespaced_policy_reaches_no_other_namespace() -> None:
    message = policy_pb2.Policy(
        kind="CiliumNetworkPolicy", namespace="shop", name="p", tier=policy_pb2.POLICY_TIER_NORMAL
    )
    message.subject.namespace = "other"
    assert stored(message, CILIUM_KEY).subject == Selector(namespace="shop")


def test_a_kind_of_a_later_version_isolates_its_namespace() -> None:
    found = standin(keys.policy("shop", "p", "LaterPolicy"), b"")
    assert isinstance(found, NetworkPolicy)
    assert (found.reference, found.pod_selector) == ("shop/LaterPolicy:p", LabelSelector())


@pytest.mark.parametrize(
    "key",
    [
        keys.POLICIES + "p",
        keys.policy("", "p", "LaterPolicy"),
        keys.policy("", "p", "CiliumNetworkPolicy"),
        keys.policy("", "p"),
    ],
)
def test_where_nobody_knows_whom_it_concerns_nothing_stands(key: str) -> None:
    assert standin(key, b"\xff") is None
