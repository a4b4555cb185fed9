"""Manifest files as the lab uses them. Reads files, nothing else."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deltaplane import manifest
from deltaplane.errors import Invalid
from deltaplane.manifest.mistakes import ManifestError, Mistake
from deltaplane.manifest.objects import (
    DeploymentManifest,
    GeneralPolicyManifest,
    Manifest,
    NamespaceManifest,
    PodManifest,
    PodTemplate,
    PolicyManifest,
)
from deltaplane.model.policy import NetworkPolicy
from lab.pods import Port
from lab.workloads import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifests:
    """What some files hold, by kind. policies: NetworkPolicies; others: policies of other kinds."""

    namespaces: tuple[NamespaceManifest, ...] = ()
    workloads: tuple[Workload, ...] = ()
    policies: tuple[NetworkPolicy, ...] = ()
    others: tuple[GeneralPolicyManifest, ...] = ()

    @property
    def all_policies(self) -> tuple[NetworkPolicy | GeneralPolicyManifest, ...]:
        """Policies of every kind."""
        return (*self.policies, *self.others)

    def without_policies(self) -> "Manifests":
        """Everything but the policies."""
        return Manifests(namespaces=self.namespaces, workloads=self.workloads)

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
            case NamespaceManifest() | PolicyManifest() | GeneralPolicyManifest():
                pass
    return Manifests(
        namespaces=tuple(item for item in objects if isinstance(item, NamespaceManifest)),
        workloads=tuple(workloads),
        policies=tuple(item.policy for item in objects if isinstance(item, PolicyManifest)),
        others=tuple(item for item in objects if isinstance(item, GeneralPolicyManifest)),
    )


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
    )
