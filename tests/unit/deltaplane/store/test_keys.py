import pytest

from deltaplane.store import keys


@pytest.mark.parametrize(
    ("key", "named"),
    [
        (keys.policy("shop", "web"), ("NetworkPolicy", "shop", "web")),
        (
            keys.policy("shop", "web", "CiliumNetworkPolicy"),
            ("CiliumNetworkPolicy", "shop", "web"),
        ),
        (keys.policy("", "a.b", "AdminNetworkPolicy"), ("AdminNetworkPolicy", "", "a.b")),
    ],
)
def test_a_policy_key_names_one_policy(key: str, named: tuple[str, str, str]) -> None:
    assert key.startswith(keys.STATE)
    assert key.startswith(keys.policies_of(named[1]))
    assert keys.parse_policy(key) == named


def test_a_key_without_a_namespace_names_none() -> None:
    assert keys.parse_policy(keys.POLICIES + "web") is None
