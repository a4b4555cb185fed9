import pytest

from deltaplane.model.tiers import PolicyKind, parse_reference, reference


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("shop/web", (PolicyKind.NETWORK_POLICY, "shop", "web")),
        ("CiliumNetworkPolicy:shop/web", (PolicyKind.CILIUM, "shop", "web")),
        ("ClusterNetworkPolicy:web.v1", (PolicyKind.CLUSTER, "", "web.v1")),
    ],
)
def test_references(text: str, named: tuple[PolicyKind, str, str]) -> None:
    assert parse_reference(text) == named
    assert reference(*named) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("web", "NAMESPACE/NAME"),
        ("/web", "NAMESPACE/NAME"),
        ("shop/", "NAMESPACE/NAME"),
        ("", "NAMESPACE/NAME"),
        ("NetworkPolicy:shop/web", "before the colon is one of"),
        ("Policy:web", "before the colon is one of"),
        (":web", "before the colon is one of"),
        ("CiliumNetworkPolicy:web", "CiliumNetworkPolicy:NAMESPACE/NAME"),
        ("ClusterNetworkPolicy:shop/web", "ClusterNetworkPolicy:NAME"),
        ("ClusterNetworkPolicy:/web", "ClusterNetworkPolicy:NAME"),
        ("ClusterNetworkPolicy:", "ClusterNetworkPolicy:NAME"),
    ],
)
def test_what_names_no_policy(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_reference(text)
