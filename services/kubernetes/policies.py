"""Services and policies of all kinds → their records, by `deltaplane.manifest`. Pure.

A policy that cannot be programmed as it is written is replaced by one that closes, unless the
registry holds an earlier version of it: the API server has accepted it, so somebody believes that
it protects something, and left out it would open what it was to close.

NetworkPolicy          isolates its pods, and allows nothing
Cilium's kinds         the same; a direction in which something is denied is denied altogether
the cluster's kinds    deny, in a direction that they have rules for, everything to everybody

Its pods are those of its selector; where not even that can be read, all that it could have meant.
"""

from collections.abc import Iterator
from dataclasses import replace

from deltaplane.manifest import (
    GeneralPolicyManifest,
    ManifestError,
    PolicyManifest,
    ServiceManifest,
    observe,
)
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.tiers import Action, Rule, Tier
from services.kubernetes import kinds
from services.kubernetes.kinds import JsonObject, Kind
from services.kubernetes.translating import Translation, failed

_DENY = (Rule(action=Action.DENY, all_peers=True, any_port=True),)
_SECTIONS = ("ingress", "egress", "ingressDeny", "egressDeny")
_SHOWN = 3
"""Mistakes of one object that are told; there may be hundreds."""


def translate_service(item: kinds.Service) -> Translation:
    """A service, with the addresses that the API server or its owner chose."""
    value = _value(Kind.SERVICE, item.metadata, spec=item.spec, status=item.status)
    try:
        manifest = observe(value, source="").manifest
    except ManifestError as error:
        return failed(_problem(error))
    assert isinstance(manifest, ServiceManifest)
    return Translation(record=manifest)


def translate_policy(kind: Kind, item: kinds.Policy) -> Translation:
    """A policy of a kind, or what stands for it."""
    try:
        return Translation(record=_read(kind, item.metadata, spec=item.spec, specs=item.specs))
    except ManifestError as error:
        return failed(_problem(error), _standin(kind, item))
    except RecursionError:
        return failed("is nested too deep", _standin(kind, item))


def _read(
    kind: Kind, metadata: kinds.Metadata, **fields: object
) -> NetworkPolicy | GeneralPolicyManifest:
    manifest = observe(_value(kind, metadata, **fields), source="").manifest
    if isinstance(manifest, PolicyManifest):
        return manifest.policy
    assert isinstance(manifest, GeneralPolicyManifest)
    return manifest


def _value(kind: Kind, metadata: kinds.Metadata, **fields: object) -> JsonObject:
    """The object as a file would have it, without what is the API server's."""
    given: JsonObject = {"name": metadata.name}
    if kind.resource.namespaced:
        given["namespace"] = metadata.namespace
    if metadata.labels:
        given["labels"] = metadata.labels
    if metadata.annotations:
        given["annotations"] = metadata.annotations
    known = {name: value for name, value in fields.items() if value is not None}
    return {"apiVersion": kind.resource.api_version, "kind": kind.word, "metadata": given, **known}


def _problem(error: ManifestError) -> str:
    told = [f"{it.path}: {it.reason}" if it.path else it.reason for it in error.mistakes[:_SHOWN]]
    more = len(error.mistakes) - len(told)
    return "; ".join([*told, *([f"and {more} more"] if more else [])])


# --- what closes ---------------------------------------------------------------------------------


def _standin(kind: Kind, item: kinds.Policy) -> NetworkPolicy | GeneralPolicyManifest | None:
    """None: not even its name is one."""
    # Without annotations: one of them may be what is wrong, and an audit would undo it all.
    metadata = kinds.Metadata(name=item.metadata.name, namespace=item.metadata.namespace)
    for spec in _closing_specs(kind, item):
        try:
            found = _read(kind, metadata, spec=spec)
        except ManifestError:
            continue
        return found if isinstance(found, NetworkPolicy) else _closed(found, item)
    return None


def _closing_specs(kind: Kind, item: kinds.Policy) -> Iterator[JsonObject]:
    """Specs without the rules: with the subject that is written, then with everybody."""
    given = _specs(item)[0]
    match kind:
        case Kind.NETWORK_POLICY:
            both = ["Ingress", "Egress"]
            selectors: tuple[object, ...] = (given.get("podSelector"), {})
            for pods in selectors:
                for types in (given.get("policyTypes") or both, both):
                    yield {"podSelector": pods, "policyTypes": types}
        case Kind.CILIUM | Kind.CILIUM_CLUSTERWIDE:
            # Several specs have one subject, or nobody can say whom they mean.
            subjects = [spec.get("endpointSelector") for spec in _specs(item)]
            if all(subject == subjects[0] for subject in subjects):
                yield {"endpointSelector": subjects[0], "ingress": [{}]}
            yield {"endpointSelector": {}, "ingress": [{}]}
        case _:
            everybody: JsonObject = {"namespaces": {}}
            for subject in (given.get("subject"), everybody):
                for order in (_order(given), {"tier": "Admin", "priority": 0}):
                    yield {"subject": subject, **_of_kind(kind, order)}


def _specs(item: kinds.Policy) -> list[JsonObject]:
    found = [*([item.spec] if item.spec else []), *(item.specs or [])]
    return found or [{}]


def _order(given: JsonObject) -> JsonObject:
    return {name: given.get(name) for name in ("tier", "priority")}


def _of_kind(kind: Kind, order: JsonObject) -> JsonObject:
    wanted = {Kind.CLUSTER: ("tier", "priority"), Kind.ADMIN: ("priority",)}.get(kind, ())
    return {name: order[name] for name in wanted}


def _closed(found: GeneralPolicyManifest, item: kinds.Policy) -> GeneralPolicyManifest:
    """A policy that denies, in each direction that the object is about, all that it can."""
    has = {name: any(spec.get(name) for spec in _specs(item)) for name in _SECTIONS}
    # What is about neither direction in words that we know may be about both.
    is_unclear = not any(has.values())
    is_normal = found.policy.tier is Tier.NORMAL
    ingress = is_unclear or has["ingress"] or has["ingressDeny"]
    egress = is_unclear or has["egress"] or has["egressDeny"]
    policy = replace(
        found.policy,
        isolates_ingress=is_normal and ingress,
        isolates_egress=is_normal and egress,
        ingress=_DENY if has["ingressDeny"] or (ingress and not is_normal) else (),
        egress=_DENY if has["egressDeny"] or (egress and not is_normal) else (),
    )
    return replace(found, policy=policy)
