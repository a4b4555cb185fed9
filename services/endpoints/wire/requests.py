"""Requests to values. Everything that a client sends is checked here, and errors name the field."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass

from deltaplane import wire
from deltaplane.errors import Invalid
from deltaplane.model import annotations, names
from deltaplane.model.ports import NamedPort
from deltaplane.v1 import registry_pb2
from services.endpoints.records import Node, Owner, Request
from services.endpoints.wishing import Wish

MAX_OBJECTS = 1000
"""Namespaces or pods of one call."""
MAX_BATCH = 500
"""Endpoints or policies of one call."""
MAX_LABELS = 256
MAX_NAMED_PORTS = 256
MAX_RECORD_BYTES = 64 * 1024
"""One stored object. etcd takes 1.5 MiB in one transaction."""
MAX_UID = 128
MAX_INTERFACE = 15
"""IFNAMSIZ - 1 of the kernel."""
MAX_PAGE = 5000
DEFAULT_PAGE = 1000


def check_count(items: Sized, path: str, limit: int) -> None:
    """Bounds a list.

    Raises:
        Invalid: it is longer than the limit.
    """
    if len(items) > limit:
        raise Invalid(path, f"has {len(items)} entries; at most {limit} are taken at once")


def check_name(text: str, path: str, mistake: Callable[[str], str | None]) -> str:
    """A name, checked by one of `deltaplane.model.names`.

    Raises:
        Invalid: it is misspelt.
    """
    if reason := mistake(text):
        raise Invalid(path, f'"{text[: names.MAX_SUBDOMAIN]}" {reason}')
    return text


def check_token(text: str, path: str, *, limit: int = MAX_UID, may_be_empty: bool = False) -> str:
    """A word that clients choose.

    Raises:
        Invalid: not 1..limit (0..limit) visible ASCII characters without '/', which separates keys.
    """
    if may_be_empty and not text:
        return text
    if not 1 <= len(text) <= limit or not all("!" <= c <= "~" and c != "/" for c in text):
        raise Invalid(path, f"must be 1..{limit} visible ASCII characters without '/'")
    return text


def node_from_proto(message: registry_pb2.Node) -> Node:
    """Reads the node of a request; index and meta are ignored.

    Raises:
        Invalid: a field is missing or misspelt.
    """
    return Node(
        name=check_name(message.name, "node.name", names.dns_subdomain_mistake),
        uid=check_token(message.uid, "node.uid"),
        addresses=wire.address_pair_from_proto(message.addresses, "node.addresses"),
        boot_id=check_token(message.boot_id, "node.boot_id", may_be_empty=True),
    )


def namespace_to_record(message: registry_pb2.Namespace, path: str) -> registry_pb2.Namespace:
    """Checks a namespace and keeps what is ours of it.

    Raises:
        Invalid: a field is misspelt or too large.
    """
    name = check_name(message.name, f"{path}.name", names.dns_label_mistake)
    _check_labels(message.labels, f"{path}.labels")
    record = registry_pb2.Namespace(
        name=name,
        labels=message.labels,
        annotations=_ours(message.annotations, f"{path}.annotations", of_namespace=True),
    )
    _check_size(record.ByteSize(), path)
    return record


def pod_to_record(message: registry_pb2.Pod, path: str) -> registry_pb2.Pod:
    """Checks a pod and keeps what is ours of it.

    Raises:
        Invalid: a field is missing, misspelt or too large.
    """
    _check_labels(message.labels, f"{path}.labels")
    record = registry_pb2.Pod(
        namespace=check_name(message.namespace, f"{path}.namespace", names.dns_label_mistake),
        name=check_name(message.name, f"{path}.name", names.dns_subdomain_mistake),
        uid=check_token(message.uid, f"{path}.uid"),
        node=check_name(message.node, f"{path}.node", names.dns_subdomain_mistake),
        labels=message.labels,
        annotations=_ours(message.annotations, f"{path}.annotations"),
        named_ports=[
            wire.named_port_to_proto(port) for port in _named_ports(message, f"{path}.named_ports")
        ],
    )
    _check_size(record.ByteSize(), path)
    return record


def request_from_proto(
    message: registry_pb2.Endpoint, node_uid: str, path: str, traceparent: str
) -> Request:
    """Reads an endpoint that a node wants to register.

    Args:
        message: node_index, identity, state and meta are ignored.
        node_uid: UID of the node that asks, checked by the caller.
        path: where the message lies in the request.
        traceparent: of the call; the one in the message is ignored.

    Raises:
        Invalid: a field is missing or misspelt.
    """
    if not 1 <= message.id < 1 << 32:
        raise Invalid(f"{path}.id", "must be 1 or more")
    return Request(
        node=check_name(message.node, f"{path}.node", names.dns_subdomain_mistake),
        node_uid=node_uid,
        id=message.id,
        namespace=check_name(message.namespace, f"{path}.namespace", names.dns_label_mistake),
        pod=check_name(message.pod, f"{path}.pod", names.dns_subdomain_mistake),
        pod_uid=check_token(message.pod_uid, f"{path}.pod_uid", may_be_empty=True),
        owner=owner_from_proto(message.owner, f"{path}.owner"),
        addresses=wire.address_pair_from_proto(message.addresses, f"{path}.addresses"),
        traceparent=traceparent,
    )


def owner_from_proto(message: registry_pb2.OwnerToken, path: str) -> Owner:
    """Reads an owner token.

    Raises:
        Invalid: a part is missing or misspelt.
    """
    return Owner(
        network=check_token(message.network, f"{path}.network", limit=256),
        container_id=check_token(message.container_id, f"{path}.container_id", limit=256),
        interface=check_token(message.interface, f"{path}.interface", limit=MAX_INTERFACE),
        attempt=check_token(message.attempt, f"{path}.attempt"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What a node no longer has. guard: the owner that registered it, or its incarnation."""

    namespace: str
    pod: str
    node: str
    id: int
    guard: Owner | int


def release_from_proto(message: registry_pb2.EndpointRelease, path: str) -> Release:
    """Reads one release.

    Raises:
        Invalid: a field is missing or misspelt.
    """
    guard: Owner | int
    match message.WhichOneof("guard"):
        case "owner":
            guard = owner_from_proto(message.owner, f"{path}.owner")
        case "incarnation":
            guard = message.incarnation
        case None:
            raise Invalid(f"{path}.owner", "an owner token or an incarnation is required")
    return Release(
        namespace=check_name(message.namespace, f"{path}.namespace", names.dns_label_mistake),
        pod=check_name(message.pod, f"{path}.pod", names.dns_subdomain_mistake),
        node=check_name(message.node, f"{path}.node", names.dns_subdomain_mistake),
        id=message.id,
        guard=guard,
    )


def wish_to_proto(wish: Wish) -> registry_pb2.AddressWish:
    """What a node is told to ask for instead."""
    return registry_pb2.AddressWish(
        ipv4_pool=wish.ipv4_pool, ipv6_pool=wish.ipv6_pool, addresses=wish.addresses
    )


def check_distinct(items: Sequence[object], path: str) -> None:
    """One call says one thing about one object.

    Raises:
        Invalid: an object is given twice.
    """
    seen: set[object] = set()
    for index, item in enumerate(items):
        if item in seen:
            raise Invalid(f"{path}[{index}]", "is given twice in this call")
        seen.add(item)


def reference(message: registry_pb2.PodRef, path: str) -> tuple[str, str]:
    """Reads (namespace, name).

    Raises:
        Invalid: one of them is misspelt.
    """
    return (
        check_name(message.namespace, f"{path}.namespace", names.dns_label_mistake),
        check_name(message.name, f"{path}.name", names.dns_subdomain_mistake),
    )


def check_one_node(nodes: Sequence[str], path: str) -> None:
    """A batch is of one node.

    Raises:
        Invalid: it names several.
    """
    for index, node in enumerate(nodes):
        if node != nodes[0]:
            raise Invalid(
                f"{path}[{index}].node", f"is {node}, but the batch began with {nodes[0]}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """A page of endpoints. start_key and revision: where the page before ended, or "" and 0."""

    namespace: str
    pod: str
    node: str
    size: int
    start_key: str
    revision: int


def page_from_proto(message: registry_pb2.ListEndpointsRequest) -> PageRequest:
    """Reads a listing request.

    Raises:
        Invalid: a field is out of its range, or the token is none of ours.
    """
    if message.page_size > MAX_PAGE:
        raise Invalid("page_size", f"is {message.page_size}; at most {MAX_PAGE}, 0 for the default")
    check_scope(message.namespace, message.pod, "pod", names.dns_subdomain_mistake)
    if message.node:
        check_name(message.node, "node", names.dns_subdomain_mistake)
    revision, start_key = read_page_token(message.page_token) if message.page_token else (0, "")
    return PageRequest(
        namespace=message.namespace,
        pod=message.pod,
        node=message.node,
        size=message.page_size or DEFAULT_PAGE,
        start_key=start_key,
        revision=revision,
    )


def check_scope(
    namespace: str, name: str, field: str, mistake: Callable[[str], str | None]
) -> None:
    """The filter of a listing: nothing, a namespace, or one object of a namespace.

    Raises:
        Invalid: a name is misspelt, or there is one without a namespace.
    """
    if namespace:
        check_name(namespace, "namespace", names.dns_label_mistake)
    if name:
        if not namespace:
            raise Invalid(field, "needs a namespace")
        check_name(name, field, mistake)


def page_token(revision: int, key: str) -> str:
    """Where the next page begins."""
    return base64.urlsafe_b64encode(f"{revision} {key}".encode()).decode()


def read_page_token(token: str) -> tuple[int, str]:
    """Revision and first key of the next page. Raises Invalid: the token is none of ours."""
    try:
        revision, _, key = (
            base64.b64decode(token, altchars=b"-_", validate=True).decode().partition(" ")
        )
        number = int(revision)
    except (binascii.Error, ValueError) as error:
        raise Invalid("page_token", "is not the next_page_token of a listing") from error
    if number < 1 or not key:
        raise Invalid("page_token", "is not the next_page_token of a listing")
    return number, key


def _named_ports(message: registry_pb2.Pod, path: str) -> list[NamedPort]:
    check_count(message.named_ports, path, MAX_NAMED_PORTS)
    seen: dict[tuple[str, int], NamedPort] = {}
    for index, item in enumerate(message.named_ports):
        port = wire.named_port_from_proto(item, f"{path}[{index}]")
        same = seen.setdefault((port.name, port.protocol), port)
        if same != port:
            raise Invalid(
                f"{path}[{index}].name",
                f"{port.name}/{port.protocol.name} is port {same.number} already",
            )
    return sorted(seen.values())


def _check_labels(labels: Mapping[str, str], path: str) -> None:
    check_count(labels, path, MAX_LABELS)
    wire.check_labels(labels, path)


def _ours(given: Mapping[str, str], path: str, *, of_namespace: bool = False) -> dict[str, str]:
    ours = {key: text for key, text in given.items() if key.startswith(annotations.PREFIX)}
    for key, text in ours.items():
        if reason := annotations.mistake(key, text, of_namespace=of_namespace):
            raise Invalid(f"{path}[{key}]", f'"{text[: names.MAX_SUBDOMAIN]}" {reason}')
    return ours


def _check_size(size: int, path: str) -> None:
    if size > MAX_RECORD_BYTES:
        raise Invalid(path, f"has {size} bytes; at most {MAX_RECORD_BYTES} are kept")
