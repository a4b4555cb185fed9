"""Policies written as YAML read as the same policies."""

import pytest
import yaml
from hypothesis import given

from deltaplane.manifest import PolicyManifest, parse, policy_to_object, policy_to_yaml
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.selector import LabelSelector, Operator, Requirement
from tests.unit.deltaplane.policy import worlds


@given(worlds.policies())
def test_a_policy_survives_the_way_out_and_in(policy: NetworkPolicy) -> None:
    assert parse(policy_to_yaml(policy), "p.yaml") == (PolicyManifest(policy=policy),)


@given(worlds.policies())
def test_other_readers_see_the_same_object(policy: NetworkPolicy) -> None:
    assert yaml.safe_load(policy_to_yaml(policy)) == policy_to_object(policy)


@pytest.mark.parametrize("word", ["y", "no", "1e3", "0x1", "1.5", "2024-01-01", "null", "007"])
def test_words_that_look_like_something_else_stay_words(word: str) -> None:
    policy = NetworkPolicy(
        namespace="a",
        name="p",
        pod_selector=LabelSelector.of({word: word}),
        applies_to_ingress=True,
        applies_to_egress=False,
    )
    assert f'"{word}": "{word}"' in policy_to_yaml(policy)
    assert parse(policy_to_yaml(policy), "p.yaml") == (PolicyManifest(policy=policy),)


def test_a_second_value_for_a_key_is_not_lost() -> None:
    both = (Requirement("a", Operator.IN, ("b",)), Requirement("a", Operator.IN, ("c",)))
    policy = NetworkPolicy(
        namespace="a",
        name="p",
        pod_selector=LabelSelector(both),
        applies_to_ingress=True,
        applies_to_egress=False,
    )
    assert parse(policy_to_yaml(policy), "p.yaml") == (PolicyManifest(policy=policy),)


def test_it_looks_as_people_write_it() -> None:
    policy = NetworkPolicy(
        namespace="shop",
        name="p",
        pod_selector=LabelSelector(
            (
                Requirement("app", Operator.IN, ("web",)),
                Requirement("tier", Operator.NOT_IN, ("db",)),
            )
        ),
        applies_to_ingress=True,
        applies_to_egress=False,
    )
    assert policy_to_yaml(policy) == (
        "apiVersion: networking.k8s.io/v1\n"
        "kind: NetworkPolicy\n"
        "metadata:\n"
        '  name: "p"\n'
        '  namespace: "shop"\n'
        "spec:\n"
        "  podSelector:\n"
        "    matchLabels:\n"
        '      "app": "web"\n'
        "    matchExpressions:\n"
        '    - key: "tier"\n'
        "      operator: NotIn\n"
        "      values:\n"
        '      - "db"\n'
        "  policyTypes:\n"
        "  - Ingress\n"
    )
