"""Policies of other kinds than NetworkPolicy: written, listed and removed beside those."""

from collections.abc import Iterable

import pytest

from deltaplane.errors import Invalid
from deltaplane.model.tiers import PolicyKind, parse_reference
from deltaplane.store import keys
from deltaplane.v1 import common_pb2, policy_pb2
from deltaplane.v1 import registry_pb2 as pb
from tests.services.plane import Plane, failure, ok

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TIERS = {
    PolicyKind.CILIUM: policy_pb2.POLICY_TIER_NORMAL,
    PolicyKind.CILIUM_CLUSTERWIDE: policy_pb2.POLICY_TIER_NORMAL,
    PolicyKind.CLUSTER: policy_pb2.POLICY_TIER_ADMIN,
    PolicyKind.ADMIN: policy_pb2.POLICY_TIER_ADMIN,
    PolicyKind.BASELINE_ADMIN: policy_pb2.POLICY_TIER_BASELINE,
}
EVERY = (
    "CiliumNetworkPolicy:shop/a",
    "CiliumClusterwideNetworkPolicy:a",
    "ClusterNetworkPolicy:a",
    "AdminNetworkPolicy:a",
    "BaselineAdminNetworkPolicy:default",
)


def policy(reference: str, port: int = 80, manifest: str = '{"a":1}') -> policy_pb2.Policy:
    kind, namespace, name = parse_reference(reference)
    message = policy_pb2.Policy(
        kind=kind, namespace=namespace, name=name, tier=TIERS[kind], manifest=manifest
    )
    message.subject.namespace = namespace
    rule = message.ingress.add(action=policy_pb2.RULE_ACTION_DENY, all_peers=True)
    rule.ranges.add(protocol=common_pb2.PROTOCOL_TCP, first=port, last=port)
    return message


def networkpolicy(name: str = "a", namespace: str = "shop") -> policy_pb2.NetworkPolicy:
    return policy_pb2.NetworkPolicy(namespace=namespace, name=name, applies_to_ingress=True)


async def apply(
    plane: Plane,
    others: Iterable[policy_pb2.Policy],
    policies: Iterable[policy_pb2.NetworkPolicy] = (),
) -> pb.ApplyPoliciesResponse:
    request = pb.ApplyPoliciesRequest(others=others, policies=policies)
    return await ok(plane.registry.ApplyPolicies(request))


async def listed(plane: Plane, **filters: str) -> list[str]:
    answer = await ok(plane.registry.ListPolicies(pb.ListPoliciesRequest(**filters)))
    found = [f"NetworkPolicy:{item.namespace}/{item.name}" for item in answer.policies]
    return found + [f"{item.kind}:{item.namespace}/{item.name}" for item in answer.others]


async def refusal(plane: Plane, **fields: object) -> str:
    """The field that a request is refused for."""
    request = pb.ApplyPoliciesRequest(**fields)  # type: ignore[arg-type]
    error = await failure(plane.registry.ApplyPolicies(request))
    assert isinstance(error, Invalid)
    return error.field


async def test_policies_of_every_kind_are_stored_side_by_side(any_plane: Plane) -> None:
    answer = await apply(any_plane, map(policy, reversed(EVERY)), [networkpolicy()])
    assert [item.kind for item in answer.others] == [
        parse_reference(reference)[0] for reference in reversed(EVERY)
    ]
    revisions = {item.meta.mod_revision for item in answer.others}
    revisions |= {item.meta.mod_revision for item in answer.policies}
    assert revisions == {answer.revision}
    stored = await ok(any_plane.registry.ListPolicies(pb.ListPoliciesRequest()))
    for item in answer.others:
        item.ClearField("manifest")
    assert list(stored.others) == sorted(answer.others, key=lambda item: item.kind)
    assert list(stored.policies) == list(answer.policies)
    request = pb.ListPoliciesRequest(kind="ClusterNetworkPolicy", name="a")
    (one,) = (await ok(any_plane.registry.ListPolicies(request))).others
    assert one.manifest == '{"a":1}'
    # Where the slicer's one watch sees them.
    assert len(await any_plane.keys(keys.STATE + "policies/")) == 6


async def test_an_unchanged_policy_is_not_written(any_plane: Plane) -> None:
    first = await apply(any_plane, map(policy, EVERY), [networkpolicy()])
    second = await apply(any_plane, map(policy, EVERY), [networkpolicy()])
    assert list(second.others) == list(first.others)
    assert list(second.policies) == list(first.policies)
    third = await apply(any_plane, [policy(EVERY[0]), policy(EVERY[2], port=81)])
    assert third.others[0] == first.others[0]
    assert third.others[1].meta.mod_revision == third.revision > first.revision
    assert third.others[1].meta.create_revision == first.revision


async def test_the_order_in_which_ports_are_given_changes_nothing(any_plane: Plane) -> None:
    both = policy(EVERY[2])
    both.ingress[0].ranges.add(protocol=common_pb2.PROTOCOL_TCP, first=81, last=90)
    first = await apply(any_plane, [both])
    one = policy(EVERY[2])
    one.ingress[0].ranges[0].last = 90
    assert (await apply(any_plane, [one])).others[0] == first.others[0]


async def test_a_trace_alone_changes_nothing_and_another_text_does(any_plane: Plane) -> None:
    first = await apply(any_plane, [policy(EVERY[0])])
    request = pb.ApplyPoliciesRequest(others=[policy(EVERY[0])])
    metadata = (("traceparent", TRACE),)
    second = await ok(any_plane.registry.ApplyPolicies(request, metadata=metadata))
    assert second.others[0] == first.others[0]
    request.others[0].manifest = '{"a":2}'
    third = await ok(any_plane.registry.ApplyPolicies(request, metadata=metadata))
    assert (third.others[0].manifest, third.others[0].traceparent) == ('{"a":2}', TRACE)


async def test_one_bad_policy_keeps_all_out(any_plane: Plane) -> None:
    bad = policy(EVERY[2])
    bad.ingress[0].ranges[0].last = 65536
    field = await refusal(
        any_plane, policies=[networkpolicy()], others=[policy(EVERY[0]), bad, policy(EVERY[3])]
    )
    assert field == "others[1].ingress[0].ranges[0]"
    worse = networkpolicy(name="")
    assert (await refusal(any_plane, policies=[worse], others=[bad])) == "policies[0].name"
    assert await listed(any_plane) == []


async def test_policies_are_filtered_by_kind_namespace_and_name(any_plane: Plane) -> None:
    more = ("CiliumNetworkPolicy:shop/b", "CiliumNetworkPolicy:shop-2/a", "ClusterNetworkPolicy:b")
    await apply(any_plane, map(policy, EVERY + more), [networkpolicy(), networkpolicy("b")])

    assert await listed(any_plane) == [
        "NetworkPolicy:shop/a",
        "NetworkPolicy:shop/b",
        "AdminNetworkPolicy:/a",
        "BaselineAdminNetworkPolicy:/default",
        "CiliumClusterwideNetworkPolicy:/a",
        "CiliumNetworkPolicy:shop/a",
        "CiliumNetworkPolicy:shop/b",
        "CiliumNetworkPolicy:shop-2/a",
        "ClusterNetworkPolicy:/a",
        "ClusterNetworkPolicy:/b",
    ]
    shop = await listed(any_plane, namespace="shop")
    assert shop == [
        "NetworkPolicy:shop/a",
        "NetworkPolicy:shop/b",
        "CiliumNetworkPolicy:shop/a",
        "CiliumNetworkPolicy:shop/b",
    ]
    assert await listed(any_plane, namespace="shop", name="a") == [shop[0], shop[2]]
    assert await listed(any_plane, kind="NetworkPolicy") == shop[:2]
    assert await listed(any_plane, kind="CiliumNetworkPolicy") == [
        *shop[2:],
        "CiliumNetworkPolicy:shop-2/a",
    ]
    assert await listed(any_plane, kind="CiliumNetworkPolicy", namespace="shop") == shop[2:]
    assert await listed(any_plane, kind="ClusterNetworkPolicy") == [
        "ClusterNetworkPolicy:/a",
        "ClusterNetworkPolicy:/b",
    ]
    one = await listed(any_plane, kind="ClusterNetworkPolicy", name="b")
    assert one == ["ClusterNetworkPolicy:/b"]
    assert await listed(any_plane, kind="AdminNetworkPolicy", name="b") == []


async def test_a_deletion_names_the_kind(any_plane: Plane) -> None:
    await apply(any_plane, map(policy, EVERY), [networkpolicy()])
    references = [
        pb.PolicyRef(namespace="shop", name="a", kind="CiliumNetworkPolicy"),
        pb.PolicyRef(name="a", kind="ClusterNetworkPolicy"),
        pb.PolicyRef(name="none", kind="ClusterNetworkPolicy"),
        pb.PolicyRef(name="a", kind="ClusterNetworkPolicy"),
    ]
    request = pb.DeletePoliciesRequest(policies=references)
    await ok(any_plane.registry.DeletePolicies(request))
    await ok(any_plane.registry.DeletePolicies(request))
    assert await listed(any_plane) == [
        "NetworkPolicy:shop/a",
        "AdminNetworkPolicy:/a",
        "BaselineAdminNetworkPolicy:/default",
        "CiliumClusterwideNetworkPolicy:/a",
    ]
    await ok(
        any_plane.registry.DeletePolicies(
            pb.DeletePoliciesRequest(policies=[pb.PolicyRef(namespace="shop", name="a")])
        )
    )
    assert (await listed(any_plane))[0] == "AdminNetworkPolicy:/a"


async def test_a_namespace_takes_its_policies_of_every_kind_along(any_plane: Plane) -> None:
    more = ["CiliumNetworkPolicy:shop-2/a"]
    await apply(any_plane, map(policy, [*EVERY, *more]), [networkpolicy()])
    await ok(any_plane.registry.DeleteNamespaces(pb.DeleteNamespacesRequest(names=["shop"])))
    assert await listed(any_plane) == [
        "AdminNetworkPolicy:/a",
        "BaselineAdminNetworkPolicy:/default",
        "CiliumClusterwideNetworkPolicy:/a",
        "CiliumNetworkPolicy:shop-2/a",
        "ClusterNetworkPolicy:/a",
    ]


async def test_500_policies_of_both_sorts_are_one_call(any_plane: Plane) -> None:
    names = [f"ClusterNetworkPolicy:p{number}" for number in range(250)]
    plain = [networkpolicy(f"p{number}") for number in range(250)]
    answer = await apply(any_plane, map(policy, names), plain)
    assert (len(answer.policies), len(answer.others)) == (250, 250)
    assert len(await listed(any_plane)) == 500


async def test_500_is_the_limit_of_both_together(memory_plane: Plane) -> None:
    names = [f"ClusterNetworkPolicy:p{number}" for number in range(251)]
    plain = [networkpolicy(f"p{number}") for number in range(250)]
    field = await refusal(memory_plane, policies=plain, others=list(map(policy, names)))
    assert field == "others"


@pytest.mark.parametrize(
    ("manifest", "rules", "field"),
    [
        # Together as much as a policy may be: two of them are more than etcd takes at once.
        ('"' + "a" * (256 * 1024 - 2) + '"', 900, ""),
        ('"' + "a" * (256 * 1024 - 1) + '"', 1, "others[0].manifest"),
        ("{", 1, "others[0].manifest"),
        ("", 1000, "others[0]"),
    ],
)
async def test_the_size_of_a_policy_is_bounded(
    any_plane: Plane, manifest: str, rules: int, field: str
) -> None:
    many = [policy(f"ClusterNetworkPolicy:{name}", manifest=manifest) for name in "abc"]
    for item in many:
        item.ingress[0].name = "n" * 256
        item.ingress.extend([item.ingress[0]] * (rules - 1))
    if field:
        assert await refusal(any_plane, others=many) == field
        assert await listed(any_plane) == []
    else:
        answer = await apply(any_plane, many)
        assert answer.others[2].meta.mod_revision == answer.revision
        assert answer.others[0].meta.mod_revision < answer.revision


@pytest.mark.parametrize(
    ("others", "field"),
    [
        (["ClusterNetworkPolicy:a", "ClusterNetworkPolicy:a"], "others[1]"),
        (["CiliumNetworkPolicy:shop/a", "CiliumNetworkPolicy:shop/a"], "others[1]"),
    ],
)
async def test_a_call_says_one_thing_about_one_policy(
    memory_plane: Plane, others: list[str], field: str
) -> None:
    assert await refusal(memory_plane, others=list(map(policy, others))) == field


@pytest.mark.parametrize(
    ("filters", "field"),
    [
        ({"kind": "Policy"}, "kind"),
        ({"kind": "ClusterNetworkPolicy", "namespace": "shop"}, "namespace"),
        ({"namespace": "Shop"}, "namespace"),
        ({"name": "a"}, "name"),
        ({"kind": "CiliumNetworkPolicy", "name": "a"}, "name"),
        ({"kind": "ClusterNetworkPolicy", "name": "A"}, "name"),
    ],
)
async def test_filters_are_checked(
    memory_plane: Plane, filters: dict[str, str], field: str
) -> None:
    request = pb.ListPoliciesRequest(**filters)
    error = await failure(memory_plane.registry.ListPolicies(request))
    assert isinstance(error, Invalid)
    assert error.field == field


@pytest.mark.parametrize(
    ("reference", "field"),
    [
        (pb.PolicyRef(name="a", kind="Policy"), "policies[0].kind"),
        (pb.PolicyRef(name="a"), "policies[0].namespace"),
        (pb.PolicyRef(name="a", kind="CiliumNetworkPolicy"), "policies[0].namespace"),
        (
            pb.PolicyRef(namespace="shop", name="a", kind="AdminNetworkPolicy"),
            "policies[0].namespace",
        ),
        (pb.PolicyRef(name="A", kind="AdminNetworkPolicy"), "policies[0].name"),
    ],
)
async def test_references_are_checked(
    memory_plane: Plane, reference: pb.PolicyRef, field: str
) -> None:
    request = pb.DeletePoliciesRequest(policies=[reference])
    error = await failure(memory_plane.registry.DeletePolicies(request))
    assert isinstance(error, Invalid)
    assert error.field == field
