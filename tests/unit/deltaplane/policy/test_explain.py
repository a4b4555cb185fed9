"""Who denied a connection, in the words that people see."""

from collections.abc import Iterable

import pytest

from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.model.identity import LabelSet
from deltaplane.model.policy import IPBlock, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from deltaplane.model.ports import NamedPort, Protocol
from deltaplane.model.selector import LabelSelector
from deltaplane.policy.explain import Explanation, Party, applying
from deltaplane.policy.explain import explain as explain_policies
from deltaplane.policy.translate import of_network_policy

WEB = Party(address=parse_address("10.0.0.1"), label_set=LabelSet.of("shop", {}, {"app": "web"}))
API = Party(
    address=parse_address("10.0.0.2"),
    label_set=LabelSet.of("shop", {}, {"app": "api"}, (NamedPort("http", Protocol.TCP, 80),)),
)
OUTSIDE = Party(address=parse_address("192.0.2.1"))


def explain(
    policies: Iterable[NetworkPolicy], source: Party, destination: Party, port: int = 80
) -> Explanation:
    translated = map(of_network_policy, policies)
    return explain_policies(translated, source, destination, protocol=6, port=port)


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
    found = explain((), WEB, API)
    assert found.allowed
    assert str(found) == "allowed"


def test_each_side_names_the_policies_that_isolate_it() -> None:
    policies = (policy("b", "api"), policy("a", "api"), policy("out", "web", egress=True))
    found = explain(policies, WEB, API)
    assert found.egress.isolating == ("shop/out",)
    assert found.ingress.isolating == ("shop/a", "shop/b")
    assert str(found) == (
        "egress denied: no rule of shop/out allows it; "
        "ingress denied: no rule of shop/a, shop/b allows it"
    )


def test_one_policy_that_allows_is_enough_and_is_named() -> None:
    rule = PolicyRule(peers=(PolicyPeer(pod_selector=LabelSelector.of({"app": "web"})),))
    policies = (policy("deny", "api"), policy("allow", "api", rule))
    found = explain(policies, WEB, API)
    assert found.allowed
    assert [match.policy for match in found.ingress.decision.by] == ["shop/allow"]
    assert found.ingress.reason == "allowed by rule 0 of shop/allow"
    assert not explain(policies, OUTSIDE, API).allowed


def test_what_is_outside_is_no_subject() -> None:
    found = explain((policy("a", "api"),), WEB, OUTSIDE)
    assert found.ingress.policies == ()
    assert found.ingress.reason == "allowed: no pod, so no policy applies"


@pytest.mark.parametrize(("egress", "allowed"), [(False, True), (True, False)])
def test_the_name_of_a_port_means_nothing_for_an_address_on_egress(
    egress: bool, allowed: bool
) -> None:
    block = IPBlock(Prefix.parse("10.0.0.0/8"))
    rule = PolicyRule(peers=(PolicyPeer(ip_block=block),), ports=(PolicyPort(port="http"),))
    policies = (policy("p", "web" if egress else "api", rule, egress=egress),)
    assert explain(policies, WEB, API).allowed == allowed


def test_the_policies_that_apply_to_a_subject() -> None:
    policies = tuple(
        map(
            of_network_policy,
            (policy("b", "api"), policy("a", "api"), policy("out", "api", egress=True)),
        )
    )
    assert API.label_set is not None
    assert applying(policies, API.label_set, outgoing=False) == ("shop/a", "shop/b")
    assert applying(policies, API.label_set, outgoing=True) == ("shop/out",)
