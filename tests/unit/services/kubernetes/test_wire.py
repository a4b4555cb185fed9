"""Records in bytes: equal, whether they come from an object or from the registry."""

from typing import Any

import pytest

from deltaplane.errors import Internal
from deltaplane.v1 import common_pb2, policy_pb2, registry_pb2, service_pb2
from services.kubernetes import wire
from services.kubernetes.kinds import Kind
from services.kubernetes.pods import translate_pod
from services.kubernetes.policies import translate_policy, translate_service
from services.kubernetes.slices import translate_slice
from tests.unit.services.kubernetes.objects import decoded, endpoint_slice, metadata, pod, policy
from tests.unit.services.kubernetes.test_policies import SPECS

META = common_pb2.ObjectMeta(create_revision=7, mod_revision=9)


def encoded(kind: Kind, value: dict[str, Any]) -> bytes:
    item = decoded(kind, value)
    match kind:
        case Kind.POD:
            found = translate_pod(item)
        case Kind.ENDPOINT_SLICE:
            found = translate_slice(item)
        case Kind.SERVICE:
            found = translate_service(item)
        case _:
            found = translate_policy(kind, item)
    assert found.record is not None
    return wire.encode(found.record)


def test_a_pod_comes_back_as_it_was_written() -> None:
    value = encoded(Kind.POD, pod(labels={f"l{number}": "x" for number in range(9)}))
    message = registry_pb2.Pod.FromString(value)
    message.meta.CopyFrom(META)
    assert wire.stored(message) == ("shop/web", value)


def test_the_order_of_labels_does_not_count() -> None:
    labels = {f"l{number}": "x" for number in range(9)}
    turned = dict(reversed(labels.items()))
    assert encoded(Kind.POD, pod(labels=labels)) == encoded(Kind.POD, pod(labels=turned))


def test_what_only_the_registry_knows_does_not_count() -> None:
    value = encoded(Kind.ENDPOINT_SLICE, endpoint_slice({"addresses": ["10.0.0.1"]}))
    message = service_pb2.EndpointSlice.FromString(value)
    message.meta.CopyFrom(META)
    message.traceparent = "00-1-2-01"
    assert wire.stored(message) == ("shop/web-abc", value)


def test_a_service_whose_families_are_given_comes_back_as_it_was_written() -> None:
    spec = {
        "clusterIP": "10.96.0.9",
        "clusterIPs": ["10.96.0.9"],
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "ports": [{"port": 80}],
    }
    value = encoded(Kind.SERVICE, {"metadata": metadata("web"), "spec": spec})
    message = service_pb2.Service.FromString(value)
    assert message.family_policy == service_pb2.FAMILY_POLICY_UNSPECIFIED
    message.number = 12
    message.meta.CopyFrom(META)
    assert wire.stored(message) == ("shop/web", value)


def test_a_policy_is_the_same_without_how_it_was_written() -> None:
    value = encoded(Kind.CILIUM, policy(Kind.CILIUM, SPECS[Kind.CILIUM]))
    message = policy_pb2.Policy.FromString(value)
    message.ClearField("manifest")
    key, listed = wire.stored(message)
    assert key == "shop/guard"
    assert listed != value
    assert wire.same_policy(value, listed)
    message.audit = True
    assert not wire.same_policy(value, wire.stored(message)[1])


def test_keys_become_references() -> None:
    assert wire.references(["shop/web", "a/b.c"]) == [("shop", "web"), ("a", "b.c")]
    with pytest.raises(Internal):
        wire.references(["node-1"])
    (cluster,) = wire.policy_references(Kind.ADMIN, ["guard"])
    assert (cluster.kind, cluster.namespace, cluster.name) == ("AdminNetworkPolicy", "", "guard")
