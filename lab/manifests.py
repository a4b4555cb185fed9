"""Manifest files as the lab uses them. Reads files, nothing else."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deltaplane import manifest
from deltaplane.errors import Invalid
from deltaplane.manifest.mistakes import ManifestError, Mistake
from deltaplane.manifest.objects import (
    DeploymentManifest,
    EndpointSliceManifest,
    GeneralPolicyManifest,
    Manifest,
    NamespaceManifest,
    PodManifest,
    PodTemplate,
    PolicyManifest,
    ServiceManifest,
    StatefulSetManifest,
)
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.service import EndpointSlice
from lab.pods import Port
from lab.workloads import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifests:
    """What some files hold, by kind.

    Attributes:
        policies: NetworkPolicies.
        others: policies of other kinds.
        slices: endpoint slices; the lab makes those of services with a selector by itself.
    """

    namespaces: tuple[NamespaceManifest, ...] = ()
    workloads: tuple[Workload, ...] = ()
    policies: tuple[NetworkPolicy, ...] = ()
    others: tuple[GeneralPolicyManifest, ...] = ()
    services: tuple[ServiceManifest, ...] = ()
    slices: tuple[EndpointSlice, ...] = ()

    @property
    def all_policies(self) -> tuple[NetworkPolicy | GeneralPolicyManifest, ...]:
        """Policies of every kind."""
        return (*self.policies, *self.others)

    def without_policies(self) -> "Manifests":
        """Everything but the policies."""
        return replace(self, policies=(), others=())

    def only_policies(self) -> "Manifests":
        """The policies."""
        return Manifests(policies=self.policies, others=self.others)


def read(files: Iterable[Path]) -> Manifests:
    """Reads files; "-" is standard input.

    Raises:
        ManifestError: the mistakes of all files together.
        Invalid: a file cannot be read, or holds what a lab cannot run.
    """
    mistakes: list[Mistake] = []
    objects: list[Manifest] = []
    for file in files:
        try:
            objects += manifest.parse(_text(file), source=str(file))
        except ManifestError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ManifestError(mistakes)
    return sort(objects)


def _text(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid("", f"{file}: {getattr(error, 'strerror', None) or error}") from error


def sort(objects: Sequence[Manifest]) -> Manifests:
    """Sorts objects by kind.

    Raises:
        Invalid: a pod uses its node's network: a lab has no containers that could.
    """
    workloads = []
    for item in objects:
        match item:
            case PodManifest():
                workloads.append(_workload("Pod", item.namespace, item.name, 1, item))
            case DeploymentManifest():
                workloads.append(
                    _workload("Deployment", item.namespace, item.name, item.replicas, item.template)
                )
            case StatefulSetManifest():
                workloads.append(_stateful(item))
            case (
                NamespaceManifest()
                | PolicyManifest()
                | GeneralPolicyManifest()
                | ServiceManifest()
                | EndpointSliceManifest()
            ):
                pass
    return Manifests(
        namespaces=tuple(item for item in objects if isinstance(item, NamespaceManifest)),
        workloads=tuple(workloads),
        policies=tuple(item.policy for item in objects if isinstance(item, PolicyManifest)),
        others=tuple(item for item in objects if isinstance(item, GeneralPolicyManifest)),
        services=tuple(item for item in objects if isinstance(item, ServiceManifest)),
        slices=tuple(item.slice for item in objects if isinstance(item, EndpointSliceManifest)),
    )


def _stateful(item: StatefulSetManifest) -> Workload:
    known = _workload("StatefulSet", item.namespace, item.name, item.replicas, item.template)
    return replace(known, first=item.first)


def _workload(
    kind: str, namespace: str, name: str, replicas: int, template: PodTemplate
) -> Workload:
    if template.host_network:
        raise Invalid(
            "spec.hostNetwork",
            f"{kind} {namespace}/{name}: the lab runs only pods with a network of their own",
        )
    return Workload(
        kind=kind,
        namespace=namespace,
        name=name,
        replicas=replicas,
        labels=dict(template.labels),
        annotations=dict(template.annotations),
        ports=tuple(
            Port(port.protocol.name, port.number, port.name or "") for port in template.ports
        ),
        node=template.node_name or "",
        hostname=template.hostname,
        subdomain=template.subdomain,
    )
