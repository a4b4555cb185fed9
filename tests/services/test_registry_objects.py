import pytest

from deltaplane.errors import Invalid
from deltaplane.store import keys
from deltaplane.v1 import common_pb2, policy_pb2
from deltaplane.v1 import registry_pb2 as pb
from tests.services.plane import Plane, failure, ok, pod, prefix


def policy(name: str = "deny", namespace: str = "shop", port: int = 80) -> policy_pb2.NetworkPolicy:
    return policy_pb2.NetworkPolicy(
        namespace=namespace,
        name=name,
        pod_selector=common_pb2.LabelSelector(match_labels={"app": "web"}),
        applies_to_ingress=True,
        ingress=[
            policy_pb2.PolicyRule(
                ports=[policy_pb2.PolicyPort(protocol=common_pb2.PROTOCOL_TCP, number=port)]
            )
        ],
    )


async def apply(plane: Plane, *policies: policy_pb2.NetworkPolicy) -> pb.ApplyPoliciesResponse:
    request = pb.ApplyPoliciesRequest(policies=policies)
    return await ok(plane.registry.ApplyPolicies(request))


async def list_policies(plane: Plane, **filters: str) -> list[str]:
    answer = await ok(plane.registry.ListPolicies(pb.ListPoliciesRequest(**filters)))
    return [f"{policy.namespace}/{policy.name}" for policy in answer.policies]


async def test_a_policy_is_stored_and_refers_to_what_it_likes(any_plane: Plane) -> None:
    answer = await apply(any_plane, policy("b"), policy("a"))
    assert [item.name for item in answer.policies] == ["b", "a"]
    assert {item.meta.mod_revision for item in answer.policies} == {answer.revision}
    listed = await ok(any_plane.registry.ListPolicies(pb.ListPoliciesRequest()))
    assert list(listed.policies) == sorted(answer.policies, key=lambda item: item.name)


async def test_an_unchanged_policy_keeps_its_generation(any_plane: Plane) -> None:
    first = await apply(any_plane, policy("a"), policy("b"))
    second = await apply(any_plane, policy("a"), policy("b", port=81))
    assert second.policies[0] == first.policies[0]
    assert second.policies[1].meta.mod_revision == second.revision > first.revision
    assert second.policies[1].meta.create_revision == first.revision


async def test_a_trace_alone_changes_nothing(any_plane: Plane) -> None:
    first = await apply(any_plane, policy())
    request = pb.ApplyPoliciesRequest(policies=[policy()])
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    call = any_plane.registry.ApplyPolicies
    second = await ok(call(request, metadata=(("traceparent", trace),)))
    assert second.policies[0] == first.policies[0]
    request.policies[0].ingress[0].ports[0].number = 81
    third = await ok(call(request, metadata=(("traceparent", trace),)))
    assert third.policies[0].traceparent == trace


async def test_one_bad_policy_keeps_all_out(any_plane: Plane) -> None:
    bad = policy("bad")
    bad.ingress[0].peers.add().ip_block.cidr.CopyFrom(prefix("10.0.0.0/8"))
    bad.ingress[0].peers[0].pod_selector.SetInParent()
    request = pb.ApplyPoliciesRequest(policies=[policy("good"), bad])
    error = await failure(any_plane.registry.ApplyPolicies(request))
    assert isinstance(error, Invalid)
    assert error.field == "policies[1].ingress[0].peers[0]"
    assert await list_policies(any_plane) == []


async def test_250_policies_at_once(any_plane: Plane) -> None:
    answer = await apply(any_plane, *(policy(f"policy-{number}") for number in range(250)))
    assert len(answer.policies) == 250
    assert max(item.meta.mod_revision for item in answer.policies) == answer.revision
    assert len(await list_policies(any_plane)) == 250


async def test_policies_are_filtered_and_deleted(any_plane: Plane) -> None:
    await apply(any_plane, policy("a"), policy("b"), policy("a", "shop-2"))
    assert await list_policies(any_plane) == ["shop/a", "shop/b", "shop-2/a"]
    assert await list_policies(any_plane, namespace="shop") == ["shop/a", "shop/b"]
    assert await list_policies(any_plane, namespace="shop", name="b") == ["shop/b"]
    request = pb.DeletePoliciesRequest(
        policies=[
            pb.PolicyRef(namespace="shop", name="a"),
            pb.PolicyRef(namespace="shop", name="none"),
        ]
    )
    await ok(any_plane.registry.DeletePolicies(request))
    await ok(any_plane.registry.DeletePolicies(request))
    assert await list_policies(any_plane) == ["shop/b", "shop-2/a"]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ([policy("a"), policy("a")], "policies[1]"),
        ([policy("a" * 254)], "policies[0].name"),
        ([policy(port=0)], "policies[0].ingress[0].ports[0].number"),
        ([policy(f"p{n}") for n in range(501)], "policies"),
    ],
)
async def test_policies_are_checked(
    memory_plane: Plane, request_: list[policy_pb2.NetworkPolicy], field: str
) -> None:
    error = await failure(
        memory_plane.registry.ApplyPolicies(pb.ApplyPoliciesRequest(policies=request_))
    )
    assert isinstance(error, Invalid)
    assert error.field == field


async def test_namespaces_take_their_pods_and_policies_along(any_plane: Plane) -> None:
    await any_plane.apply_namespace({"team": "red"}, "shop")
    await any_plane.apply_namespace({}, "shop-2")
    await any_plane.apply_pods(pod("web"), pod("web", namespace="shop-2"))
    await apply(any_plane, policy("a"), policy("a", "shop-2"))

    request = pb.DeleteNamespacesRequest(names=["shop", "unknown", "shop"])
    revision = (await ok(any_plane.registry.DeleteNamespaces(request))).revision
    await ok(any_plane.registry.DeleteNamespaces(request))

    left = await ok(any_plane.registry.ListNamespaces(pb.ListNamespacesRequest()))
    assert [item.name for item in left.namespaces] == ["shop-2"]
    assert left.revision >= revision
    pods = await ok(any_plane.registry.ListPods(pb.ListPodsRequest()))
    assert [item.namespace for item in pods.pods] == ["shop-2"]
    assert await list_policies(any_plane) == ["shop-2/a"]


async def test_pods_are_listed_as_they_were_given(any_plane: Plane) -> None:
    record = pod("web", {"app": "web", "pod-template-hash": "in-the-record"})
    record.annotations.update({"deltaplane.dev/x": "ours", "example.com/y": "not ours"})
    port = common_pb2.NamedPort(name="http", protocol=common_pb2.PROTOCOL_TCP, number=80)
    record.named_ports.extend([port, port])
    await any_plane.apply_pods(record, pod("a", namespace="shop-2"), pod("b", namespace="shop"))

    listed = await ok(any_plane.registry.ListPods(pb.ListPodsRequest()))

    names = [(item.namespace, item.name) for item in listed.pods]
    assert names == [("shop", "b"), ("shop", "web"), ("shop-2", "a")]
    kept = listed.pods[1]
    assert kept.labels == record.labels
    assert kept.annotations == {"deltaplane.dev/x": "ours"}
    assert list(kept.named_ports) == [port]
    only = await ok(any_plane.registry.ListPods(pb.ListPodsRequest(namespace="shop-2")))
    assert [item.name for item in only.pods] == ["a"]


def _pod(**fields: object) -> pb.Pod:
    record = pod("web")
    for name in fields:
        record.ClearField(name)  # type: ignore[arg-type]
    record.MergeFrom(pb.Pod(**fields))  # type: ignore[arg-type]
    return record


TCP = common_pb2.PROTOCOL_TCP


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (_pod(namespace="A"), "pods[0].namespace"),
        (_pod(name="a/b"), "pods[0].name"),
        (_pod(uid=""), "pods[0].uid"),
        (_pod(node=""), "pods[0].node"),
        (_pod(labels={"a b": "x"}), "pods[0].labels"),
        (_pod(labels={"app": "x y"}), "pods[0].labels[app]"),
        (_pod(labels={f"k{n}": "" for n in range(257)}), "pods[0].labels"),
        (_pod(annotations={"deltaplane.dev/x": "x" * 70_000}), "pods[0]"),
        (
            _pod(named_ports=[common_pb2.NamedPort(name="http", number=1)]),
            "pods[0].named_ports[0].protocol",
        ),
        (
            _pod(
                named_ports=[
                    common_pb2.NamedPort(name="http", protocol=TCP, number=number)
                    for number in (80, 81)
                ]
            ),
            "pods[0].named_ports[1].name",
        ),
    ],
)
async def test_pods_are_checked(memory_plane: Plane, record: pb.Pod, field: str) -> None:
    request = pb.ApplyPodsRequest(pods=[record])
    error = await failure(memory_plane.registry.ApplyPods(request))
    assert isinstance(error, Invalid)
    assert error.field == field
    assert await memory_plane.keys(keys.PODS) == {}


async def test_namespaces_are_checked(memory_plane: Plane) -> None:
    for namespace, field in [
        (pb.Namespace(name="a.b"), "namespaces[0].name"),
        (pb.Namespace(name="a", labels={"x": "?"}), "namespaces[0].labels[x]"),
    ]:
        request = pb.ApplyNamespacesRequest(namespaces=[namespace])
        error = await failure(memory_plane.registry.ApplyNamespaces(request))
        assert isinstance(error, Invalid)
        assert error.field == field


async def test_large_objects_are_cut_into_transactions(any_plane: Plane) -> None:
    # 40 records of 60 kB are above what etcd takes at once.
    records = [pod(f"pod-{number}") for number in range(40)]
    for record in records:
        record.annotations["deltaplane.dev/x"] = "x" * 60_000
    await any_plane.apply_pods(*records)
    assert len(await any_plane.keys(keys.PODS)) == 40
