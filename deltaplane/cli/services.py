"""Services and endpoint slices as the registry has them: all pages of a list, and one by name."""

from typing import TYPE_CHECKING

from deltaplane.errors import Invalid, NotFound
from deltaplane.v1 import registry_pb2

if TYPE_CHECKING:
    from deltaplane.cli.client import Client
    from deltaplane.v1 import service_pb2

PER_PAGE = 500


def list_services(
    client: "Client", *, namespace: str = "", name: str = ""
) -> "list[service_pb2.Service]":
    """All pages of services."""
    found: list[service_pb2.Service] = []
    token = ""
    while True:
        answer = client.registry.ListServices(
            registry_pb2.ListServicesRequest(
                namespace=namespace, name=name, page_size=PER_PAGE, page_token=token
            )
        )
        found += answer.services
        token = answer.next_page_token
        if not token:
            return found


def list_slices(
    client: "Client", *, namespace: str = "", service: str = ""
) -> "list[service_pb2.EndpointSlice]":
    """All pages of endpoint slices."""
    found: list[service_pb2.EndpointSlice] = []
    token = ""
    while True:
        answer = client.registry.ListEndpointSlices(
            registry_pb2.ListEndpointSlicesRequest(
                namespace=namespace, service=service, page_size=PER_PAGE, page_token=token
            )
        )
        found += answer.slices
        token = answer.next_page_token
        if not token:
            return found


def split(reference: str) -> tuple[str, str]:
    """Namespace and name.

    Raises:
        Invalid: it is no "namespace/name".
    """
    namespace, slash, name = reference.partition("/")
    if not (namespace and slash and name):
        raise Invalid("", f"{reference!r}: write it as NAMESPACE/NAME")
    return namespace, name


def find(client: "Client", reference: str) -> "service_pb2.Service":
    """The service "namespace/name".

    Raises:
        Invalid: it is no such reference.
        NotFound: there is no such service.
    """
    namespace, name = split(reference)
    found = list_services(client, namespace=namespace, name=name)
    if not found:
        raise NotFound(f"there is no service {reference}; see `deltaplane get services`")
    return found[0]


def pod(client: "Client", reference: str) -> registry_pb2.Pod:
    """The record of the pod "namespace/name".

    Raises:
        Invalid: it is no such reference.
        NotFound: there is no such pod.
    """
    namespace, name = split(reference)
    known = client.registry.ListPods(registry_pb2.ListPodsRequest(namespace=namespace)).pods
    for item in known:
        if item.name == name:
            return item
    raise NotFound(f"there is no pod {reference}; see `deltaplane get pods`")
