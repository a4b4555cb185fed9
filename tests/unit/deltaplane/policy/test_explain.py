"""Who denied a connection, in the words that people see."""

import pytest

from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.model.identity import LabelSet
from deltaplane.model.policy import IPBlock, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from deltaplane.model.ports import NamedPort, Protocol
from deltaplane.model.selector import LabelSelector
from deltaplane.policy.explain import Party, Side, explain, isolating

WEB = Party(address=parse_address("10.0.0.1"), label_set=LabelSet.of("shop", {}, {"app": "web"}))
API = Party(
    address=parse_address("10.0.0.2"),
    label_set=LabelSet.of("shop", {}, {"app": "api"}, (NamedPort("http", Protocol.TCP, 80),)),
)
OUTSIDE = Party(address=parse_address("192.0.2.1"))


def policy(
    name: str, app: str, rule: PolicyRule | None = None, *, egress: bool = False
) -> NetworkPolicy:
    rules = () if rule is None else (rule,)
    return NetworkPolicy(
        namespace="shop",
        name=name,
        pod_selector=LabelSelector.of({"app": app}),
        applies_to_ingress=not egress,
        applies_to_egress=egress,
        ingress=() if egress else rules,
        egress=rules if egress else (),
    )


def test_without_policies_everything_is_allowed() -> None:
    found = explain((), WEB, API, protocol=6, port=80)
    assert found.allowed
    assert str(found) == "allowed"


def test_each_side_names_the_policies_that_isolate_it() -> None:
    policies = (policy("b", "api"), policy("a", "api"), policy("out", "web", egress=True))
    found = explain(policies, WEB, API, protocol=6, port=80)
    assert found.egress == Side(isolating=("shop/out",), allowing=())
    assert found.ingress == Side(isolating=("shop/a", "shop/b"), allowing=())
    assert str(found) == "egress denied by shop/out; ingress denied by shop/a, shop/b"


def test_one_policy_that_allows_is_enough_and_is_named() -> None:
    rule = PolicyRule(peers=(PolicyPeer(pod_selector=LabelSelector.of({"app": "web"})),))
    policies = (policy("deny", "api"), policy("allow", "api", rule))
    found = explain(policies, WEB, API, protocol=6, port=80)
    assert found.allowed
    assert found.ingress.allowing == ("shop/allow",)
    assert not explain(policies, OUTSIDE, API, protocol=6, port=80).allowed


def test_what_is_outside_is_no_subject() -> None:
    found = explain((policy("a", "api"),), WEB, OUTSIDE, protocol=6, port=80)
    assert found.ingress == Side(isolating=(), allowing=())


@pytest.mark.parametrize(("egress", "allowed"), [(False, True), (True, False)])
def test_the_name_of_a_port_means_nothing_for_an_address_on_egress(
    egress: bool, allowed: bool
) -> None:
    block = IPBlock(Prefix.parse("10.0.0.0/8"))
    rule = PolicyRule(peers=(PolicyPeer(ip_block=block),), ports=(PolicyPort(port="http"),))
    policies = (policy("p", "web" if egress else "api", rule, egress=egress),)
    assert explain(policies, WEB, API, protocol=6, port=80).allowed == allowed


def test_the_policies_behind_a_denial_of_a_subject() -> None:
    policies = (policy("b", "api"), policy("a", "api"), policy("out", "api", egress=True))
    assert API.label_set is not None
    assert isolating(policies, API.label_set, outgoing=False) == ("shop/a", "shop/b")
    assert isolating(policies, API.label_set, outgoing=True) == ("shop/out",)
