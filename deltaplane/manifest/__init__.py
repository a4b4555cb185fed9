"""Reads Kubernetes YAML strictly and writes it back.

Pure: text in, values or mistakes out. It opens no file, applies nothing, and knows only the kinds
and fields that it names; everything else is a mistake rather than ignored.
"""

from deltaplane.manifest.mistakes import ManifestError, Mistake
from deltaplane.manifest.objects import (
    ContainerPort,
    DeploymentManifest,
    EndpointSliceManifest,
    FamilyPolicy,
    GeneralPolicyManifest,
    Manifest,
    NamespaceManifest,
    PodManifest,
    PodTemplate,
    PolicyManifest,
    ServiceManifest,
    StatefulSetManifest,
)
from deltaplane.manifest.parsing import Observed, observe, parse
from deltaplane.manifest.rendering import (
    general_policy_to_object,
    general_policy_to_yaml,
    policy_to_object,
    policy_to_yaml,
)

__all__ = [
    "ContainerPort",
    "DeploymentManifest",
    "EndpointSliceManifest",
    "FamilyPolicy",
    "GeneralPolicyManifest",
    "Manifest",
    "ManifestError",
    "Mistake",
    "NamespaceManifest",
    "Observed",
    "PodManifest",
    "PodTemplate",
    "PolicyManifest",
    "ServiceManifest",
    "StatefulSetManifest",
    "general_policy_to_object",
    "general_policy_to_yaml",
    "observe",
    "parse",
    "policy_to_object",
    "policy_to_yaml",
]
