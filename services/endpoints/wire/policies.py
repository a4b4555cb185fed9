"""Requests about policies of every kind; errors name the field."""

from collections.abc import Sequence
from dataclasses import dataclass

from deltaplane import policywire, wire
from deltaplane.errors import Invalid
from deltaplane.model import names
from deltaplane.model.tiers import PolicyKind
from deltaplane.v1 import policy_pb2, registry_pb2
from services.endpoints.wire.requests import (
    MAX_BATCH,
    MAX_RECORD_BYTES,
    check_count,
    check_distinct,
    check_name,
)

MAX_POLICY_BYTES = 256 * 1024
"""A policy of another kind than NetworkPolicy, its manifest not counted."""

Record = policy_pb2.NetworkPolicy | policy_pb2.Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Names one policy. namespace: empty for kinds that live in none."""

    kind: PolicyKind
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which policies are listed; None and "" leave the choice open."""

    kind: PolicyKind | None
    namespace: str
    name: str


def records_from_proto(message: registry_pb2.ApplyPoliciesRequest) -> list[Record]:
    """Checks all policies of a call; NetworkPolicies come first, each list in its order.

    Raises:
        Invalid: a field is missing, misspelt or too large, or there are too many.
    """
    check_count(message.policies, "policies", MAX_BATCH)
    check_count(message.others, "others", MAX_BATCH - len(message.policies))
    networkpolicies = [
        networkpolicy_to_record(item, f"policies[{index}]")
        for index, item in enumerate(message.policies)
    ]
    others = [
        policy_to_record(item, f"others[{index}]") for index, item in enumerate(message.others)
    ]
    check_distinct([(item.namespace, item.name) for item in networkpolicies], "policies")
    check_distinct([(item.kind, item.namespace, item.name) for item in others], "others")
    return [*networkpolicies, *others]


def networkpolicy_to_record(
    message: policy_pb2.NetworkPolicy, path: str
) -> policy_pb2.NetworkPolicy:
    """Checks a policy and writes it in its one canonical form, without traceparent and meta.

    Raises:
        Invalid: a field is missing, misspelt or too large.
    """
    _check_size(message.ByteSize(), path, MAX_RECORD_BYTES)
    return wire.network_policy_to_proto(wire.network_policy_from_proto(message, path))


def policy_to_record(message: policy_pb2.Policy, path: str) -> policy_pb2.Policy:
    """The same for a policy of another kind.

    Raises:
        Invalid: a field is missing, misspelt or too large.
    """
    policywire.check_manifest(message.manifest, f"{path}.manifest")
    size = message.ByteSize() - len(message.manifest.encode())
    _check_size(size, path, MAX_POLICY_BYTES)
    policy = policywire.policy_from_proto(message, path)
    return policywire.policy_to_proto(policy, message.manifest)


def references_from_proto(messages: Sequence[registry_pb2.PolicyRef]) -> list[Reference]:
    """Reads which policies are meant, each once.

    Raises:
        Invalid: a name is misspelt, a kind is unknown, or there are too many.
    """
    check_count(messages, "policies", MAX_BATCH)
    found = (_reference(item, f"policies[{index}]") for index, item in enumerate(messages))
    return list(dict.fromkeys(found))


def filter_from_proto(message: registry_pb2.ListPoliciesRequest) -> Filter:
    """Reads a listing request.

    Raises:
        Invalid: a name is misspelt, the kind is unknown or lives in no namespace, or a name is
            given without what makes it unique.
    """
    kind = _kind(message.kind, "kind") if message.kind else None
    if message.namespace:
        if kind is not None and not kind.is_namespaced:
            raise Invalid("namespace", f"must be empty: a {kind} lives in none")
        check_name(message.namespace, "namespace", names.dns_label_mistake)
    if message.name:
        if not message.namespace and (kind is None or kind.is_namespaced):
            raise Invalid("name", "needs a namespace, or a kind that lives in none")
        check_name(message.name, "name", names.dns_subdomain_mistake)
    return Filter(kind=kind, namespace=message.namespace, name=message.name)


def _reference(message: registry_pb2.PolicyRef, path: str) -> Reference:
    kind = _kind(message.kind, f"{path}.kind") if message.kind else PolicyKind.NETWORK_POLICY
    if kind.is_namespaced:
        check_name(message.namespace, f"{path}.namespace", names.dns_label_mistake)
    elif message.namespace:
        raise Invalid(f"{path}.namespace", f"must be empty: a {kind} lives in none")
    check_name(message.name, f"{path}.name", names.dns_subdomain_mistake)
    return Reference(kind=kind, namespace=message.namespace, name=message.name)


def _kind(text: str, path: str) -> PolicyKind:
    kind = next((kind for kind in PolicyKind if kind == text), None)
    if kind is None:
        shown = text[: names.MAX_LABEL]
        raise Invalid(path, f'"{shown}" is none of {", ".join(PolicyKind)}')
    return kind


def _check_size(size: int, path: str, limit: int) -> None:
    if size > limit:
        raise Invalid(path, f"has {size} bytes; at most {limit} are kept")
