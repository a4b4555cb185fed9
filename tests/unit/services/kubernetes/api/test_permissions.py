import pytest

from deltaplane.errors import Internal, Invalid
from services.kubernetes.api import resource as resources
from services.kubernetes.api.permissions import NODE_PERMISSIONS, PERMISSIONS, Verb, require
from services.kubernetes.api.resource import Resource


def test_everything_mirrored_is_listed_and_watched() -> None:
    for resource in resources.WATCHED:
        require(resource, Verb.LIST)
        require(resource, Verb.WATCH)


def test_each_resource_has_one_rule() -> None:
    names = [(it.resource.group, it.rbac_resource) for it in PERMISSIONS]
    assert len(set(names)) == len(names)
    assert ("", "pods/status") in names


def test_nothing_is_deleted_or_written_but_status_events_leases_and_certificates() -> None:
    writing = {
        it.rbac_resource for it in PERMISSIONS if it.verbs - {Verb.GET, Verb.LIST, Verb.WATCH}
    }
    requests = {"certificatesigningrequests/approval", "certificatesigningrequests/status"}
    assert writing == {"pods/status", "nodes/status", "events", "leases", "signers"} | requests
    [signing] = [it for it in PERMISSIONS if it.resource == resources.SIGNERS]
    assert signing.names == ("deltaplane.dev/node",)


def test_an_agent_asks_for_certificates_and_nothing_else() -> None:
    [permission] = NODE_PERMISSIONS
    assert permission.rbac_resource == "certificatesigningrequests"
    assert permission.verbs == {Verb.CREATE, Verb.GET}
    with pytest.raises(Internal, match="permission to list nodes"):
        require(resources.NODES, Verb.LIST, permissions=NODE_PERMISSIONS)


@pytest.mark.parametrize(
    ("resource", "verb", "subresource"),
    [
        (resources.PODS, Verb.PATCH, ""),
        (resources.PODS, Verb.GET, "status"),
        (resources.LEASES, Verb.WATCH, ""),
    ],
)
def test_the_rest_is_refused(resource: Resource, verb: Verb, subresource: str) -> None:
    with pytest.raises(Internal, match="permission"):
        require(resource, verb, subresource=subresource)


def test_paths() -> None:
    assert resources.PODS.collection() == "/api/v1/pods"
    assert (
        resources.PODS.item("p", "a", subresource="status") == "/api/v1/namespaces/a/pods/p/status"
    )
    assert resources.NODES.item("n") == "/api/v1/nodes/n"
    policies = "/apis/networking.k8s.io/v1/namespaces/a/networkpolicies"
    assert resources.NETWORK_POLICIES.collection("a") == policies
    assert resources.NODES.item("a/../b") == "/api/v1/nodes/a%2F..%2Fb"
    assert str(resources.NETWORK_POLICIES) == "networkpolicies.networking.k8s.io"
    for resource, namespace in ((resources.PODS, ""), (resources.NODES, "a")):
        with pytest.raises(Invalid):
            resource.item("x", namespace)
