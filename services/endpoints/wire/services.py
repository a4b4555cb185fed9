"""Requests about services and endpoint slices, and their records; errors name the field."""

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from deltaplane import servicewire
from deltaplane.errors import Invalid, Refused
from deltaplane.model import names
from deltaplane.model.service import EndpointSlice
from deltaplane.store.port import KeyValue
from deltaplane.v1 import registry_pb2, service_pb2
from services.endpoints.demand import Demand, FamilyPolicy
from services.endpoints.wire.requests import (
    check_count,
    check_distinct,
    check_name,
    check_scope,
    read_page_token,
)

MAX_SERVICES = 500
MAX_SLICES = 100
MAX_DELETES = 1000
MAX_PAGE = 1000
DEFAULT_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """A page of a listing.

    Attributes:
        namespace: "": all.
        name: of the service; "": all.
        size: records at most.
        start_key, revision: where the page before ended, or "" and 0.
    """

    namespace: str
    name: str
    size: int
    start_key: str
    revision: int


def demands_from_proto(message: registry_pb2.ApplyServicesRequest) -> list[Demand]:
    """Checks all services of a call, in order.

    Raises:
        Invalid: a field is missing, misspelt or out of its range, or there are too many.
    """
    check_count(message.services, "services", MAX_SERVICES)
    demands = [
        demand_from_proto(item, f"services[{index}]") for index, item in enumerate(message.services)
    ]
    check_distinct([demand.service.reference for demand in demands], "services")
    return demands


def demand_from_proto(message: service_pb2.Service, path: str) -> Demand:
    """Reads a service as somebody wants it; number, traceparent and meta are ignored.

    Raises:
        Invalid: a field is missing, misspelt or out of its range.
    """
    families = tuple(message.families)
    if any(family not in (4, 6) for family in families) or len(set(families)) < len(families):
        shown = ", ".join(map(str, families[:4]))
        raise Invalid(f"{path}.families", f"{shown}: 4, 6 or both are possible, each once")
    try:
        policy = FamilyPolicy(message.family_policy)
    except ValueError as error:
        known = ", ".join(service_pb2.FamilyPolicy.keys())
        raise Invalid(
            f"{path}.family_policy", f"{message.family_policy} is none of {known}"
        ) from error
    return Demand(
        service=servicewire.service_from_proto(message, path),
        headless=message.headless,
        families=families,
        policy=policy,
    )


def demand_from_record(stored: KeyValue) -> Demand:
    """Reads a stored service.

    Raises:
        Refused: it cannot be read.
    """
    try:
        message = service_pb2.Service.FromString(stored.value)
        service = servicewire.service_from_proto(message)
    except (DecodeError, Invalid) as error:
        raise Refused(
            f"what is stored at {stored.key} cannot be read ({error}); delete that service first"
        ) from error
    return Demand(
        service=service,
        headless=message.headless,
        families=tuple(message.families),
    )


def slices_from_proto(message: registry_pb2.ApplyEndpointSlicesRequest) -> list[EndpointSlice]:
    """Checks all slices of a call, in order.

    Raises:
        Invalid: a field is missing, misspelt or out of its range, or there are too many.
    """
    check_count(message.slices, "slices", MAX_SLICES)
    slices = [
        servicewire.slice_from_proto(item, f"slices[{index}]")
        for index, item in enumerate(message.slices)
    ]
    check_distinct([(item.namespace, item.name) for item in slices], "slices")
    return slices


def services_to_delete(message: registry_pb2.DeleteServicesRequest) -> list[tuple[str, str]]:
    """Namespaces and names, each once.

    Raises:
        Invalid: a name is misspelt, or there are too many.
    """
    return _references(message.services, "services")


def slices_to_delete(message: registry_pb2.DeleteEndpointSlicesRequest) -> list[tuple[str, str]]:
    """Namespaces and names, each once.

    Raises:
        Invalid: a name is misspelt, or there are too many.
    """
    return _references(message.slices, "slices")


def service_page_from_proto(message: registry_pb2.ListServicesRequest) -> PageRequest:
    """Reads a listing request.

    Raises:
        Invalid: a field is out of its range, or the token is none of ours.
    """
    return _page(message, message.name, "name")


def slice_page_from_proto(message: registry_pb2.ListEndpointSlicesRequest) -> PageRequest:
    """Reads a listing request.

    Raises:
        Invalid: a field is out of its range, or the token is none of ours.
    """
    return _page(message, message.service, "service")


def _page(
    message: registry_pb2.ListServicesRequest | registry_pb2.ListEndpointSlicesRequest,
    name: str,
    field: str,
) -> PageRequest:
    if message.page_size > MAX_PAGE:
        raise Invalid("page_size", f"is {message.page_size}; at most {MAX_PAGE}, 0 for the default")
    check_scope(message.namespace, name, field, names.dns_label_mistake)
    revision, start_key = read_page_token(message.page_token) if message.page_token else (0, "")
    return PageRequest(
        namespace=message.namespace,
        name=name,
        size=message.page_size or DEFAULT_PAGE,
        start_key=start_key,
        revision=revision,
    )


def _references(
    messages: Sequence[registry_pb2.ServiceRef | registry_pb2.EndpointSliceRef],
    path: str,
) -> list[tuple[str, str]]:
    check_count(messages, path, MAX_DELETES)
    found = (
        (
            check_name(item.namespace, f"{path}[{index}].namespace", names.dns_label_mistake),
            check_name(item.name, f"{path}[{index}].name", names.dns_subdomain_mistake),
        )
        for index, item in enumerate(messages)
    )
    return list(dict.fromkeys(found))
