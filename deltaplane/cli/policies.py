"""Policies of every kind as the commands name, list and print them."""

from collections.abc import Iterable, Mapping

from deltaplane import policywire, wire
from deltaplane.cli.client import Client
from deltaplane.cli.output import Record
from deltaplane.errors import Invalid, NotFound
from deltaplane.manifest import (
    general_policy_to_object,
    general_policy_to_yaml,
    policy_to_object,
    policy_to_yaml,
)
from deltaplane.model import tiers
from deltaplane.model.identity import NAMESPACE_NAME_LABEL
from deltaplane.model.tiers import Policy, PolicyKind, Selector
from deltaplane.policy.translate import of_network_policy
from deltaplane.v1 import policy_pb2, registry_pb2

Stored = policy_pb2.NetworkPolicy | policy_pb2.Policy

IN_NO_NAMESPACE = tuple(kind for kind in PolicyKind if not kind.is_namespaced)


def title(reference: str) -> str:
    """A policy in a sentence: "networkpolicy shop/web"."""
    kind, _, path = reference.rpartition(":")
    return f"{(kind or PolicyKind.NETWORK_POLICY).lower()} {path}"


def reference(stored: Stored) -> str:
    """Its name in receipts and answers."""
    if isinstance(stored, policy_pb2.NetworkPolicy):
        return tiers.reference(PolicyKind.NETWORK_POLICY, stored.namespace, stored.name)
    path = f"{stored.namespace}/{stored.name}" if stored.namespace else stored.name
    return f"{stored.kind}:{path}"


def listed(answer: registry_pb2.ListPoliciesResponse) -> list[Stored]:
    """All policies of an answer, NetworkPolicies first."""
    return [*answer.policies, *answer.others]


def find(client: Client, text: str, namespace: str) -> Stored:
    """The policy that somebody means.

    Args:
        client: where the registry is.
        text: NAME, KIND/NAME or NAMESPACE/NAME, or a reference as receipts show it. A kind is
            written in any case.
        namespace: of what the text names none of, and does live in one.

    Raises:
        NotFound: there is none.
        Invalid: there are several, or the text names none.
    """
    request = _request(text, namespace)
    found = listed(client.registry.ListPolicies(request))
    if not found:
        shown = f"{request.namespace}/{request.name}" if request.namespace else request.name
        kind = f"{request.kind} " if request.kind else ""
        raise NotFound(f"there is no policy {kind}{shown}; see `deltaplane get policies`")
    if len(found) > 1:
        kinds = ", ".join(f"{_kind(item)}/{item.name}" for item in found)
        raise Invalid("", f"several policies have that name; write one of {kinds}")
    return found[0]


def _request(text: str, namespace: str) -> registry_pb2.ListPoliciesRequest:
    if ":" in text:
        try:
            kind, namespace, name = tiers.parse_reference(text)
        except ValueError as error:
            raise Invalid("", str(error)) from error
        return registry_pb2.ListPoliciesRequest(kind=kind, namespace=namespace, name=name)
    before, slash, after = text.partition("/")
    if not slash:
        return registry_pb2.ListPoliciesRequest(namespace=namespace, name=text)
    for kind in PolicyKind:
        if before.lower() == kind.lower():
            return registry_pb2.ListPoliciesRequest(
                kind=kind, namespace=namespace if kind.is_namespaced else "", name=after
            )
    return registry_pb2.ListPoliciesRequest(namespace=before, name=after)


def row(item: Stored) -> Record:
    """One policy, short."""
    if isinstance(item, policy_pb2.Policy):
        tier, priority = item.tier, item.priority
        ingress = bool(item.ingress) or item.isolates_ingress
        egress = bool(item.egress) or item.isolates_egress
    else:
        tier, priority = policy_pb2.POLICY_TIER_NORMAL, 0
        ingress, egress = item.applies_to_ingress, item.applies_to_egress
    directions = {"Ingress": ingress, "Egress": egress}
    return {
        "kind": _kind(item),
        "namespace": item.namespace,
        "name": item.name,
        "tier": policy_pb2.PolicyTier.Name(tier).removeprefix("POLICY_TIER_").lower(),
        "priority": priority,
        "types": [name for name, applies in directions.items() if applies],
        "audit": item.audit,
        "ingress_rules": len(item.ingress),
        "egress_rules": len(item.egress),
        "generation": item.meta.mod_revision,
    }


def as_object(item: Stored) -> Mapping[str, object]:
    """The policy as a Kubernetes object of plain values, as it was given."""
    if isinstance(item, policy_pb2.NetworkPolicy):
        return policy_to_object(wire.network_policy_from_proto(item))
    return general_policy_to_object(policywire.policy_from_proto(item), _manifest(item))


def as_yaml(item: Stored) -> str:
    """The policy as Kubernetes YAML that can be applied again."""
    if isinstance(item, policy_pb2.NetworkPolicy):
        return policy_to_yaml(wire.network_policy_from_proto(item))
    return general_policy_to_yaml(policywire.policy_from_proto(item), _manifest(item))


def _manifest(item: policy_pb2.Policy) -> str:
    if not item.manifest:
        raise NotFound(f"{reference(item)} was written without its spec; who wrote it may have it")
    return item.manifest


def about(client: Client, namespace: str) -> list[Stored]:
    """Policies that may apply to pods of a namespace."""
    request = registry_pb2.ListPoliciesRequest(namespace=namespace)
    found = listed(client.registry.ListPolicies(request))
    for kind in IN_NO_NAMESPACE:
        found += client.registry.ListPolicies(registry_pb2.ListPoliciesRequest(kind=kind)).others
    return found


def is_under_audit(client: Client, reference: str) -> bool:
    """Whether a policy drops nothing, and what it would deny is counted; absent: no.

    Raises:
        ValueError: the reference names none.
        Unavailable: the registry does not answer.
    """
    kind, namespace, name = tiers.parse_reference(reference)
    request = registry_pb2.ListPoliciesRequest(kind=kind, namespace=namespace, name=name)
    return any(item.audit for item in listed(client.registry.ListPolicies(request)))


def read(items: Iterable[Stored]) -> tuple[list[Policy], list[str]]:
    """Policies in the form that all kinds have in common.

    Returns:
        The policies, and "reference: what is wrong" of those that cannot be read.
    """
    found, unreadable = [], []
    for item in items:
        try:
            found.append(_common(item))
        except Invalid as error:
            unreadable.append(f"{reference(item)}: {error}")
    return found, unreadable


def _common(item: Stored) -> Policy:
    if isinstance(item, policy_pb2.NetworkPolicy):
        return of_network_policy(wire.network_policy_from_proto(item))
    return policywire.policy_from_proto(item)


def applying(
    policies: Iterable[Policy],
    pod: registry_pb2.Pod,
    namespace_labels: Mapping[str, str],
    *,
    isolating: str = "",
) -> list[str]:
    """References of the policies whose subject a pod is.

    Args:
        policies: those of `about` its namespace.
        pod: its record.
        namespace_labels: of its namespace.
        isolating: "ingress" or "egress": only those that isolate it so, none that is under audit;
            "": all.
    """
    found = []
    for policy in policies:
        isolates = {
            "": True,
            "ingress": policy.isolates_ingress and not policy.audit,
            "egress": policy.isolates_egress and not policy.audit,
        }
        if isolates[isolating] and _selects(policy.subject, pod, namespace_labels):
            found.append(policy.reference)
    return found


def _selects(
    selector: Selector, pod: registry_pb2.Pod, namespace_labels: Mapping[str, str]
) -> bool:
    labels = {**namespace_labels, NAMESPACE_NAME_LABEL: pod.namespace}
    return (
        selector.namespace in (None, pod.namespace)
        and selector.namespaces.matches(labels)
        and selector.pods.matches(pod.labels)
    )


def _kind(item: Stored) -> str:
    return item.kind if isinstance(item, policy_pb2.Policy) else PolicyKind.NETWORK_POLICY
