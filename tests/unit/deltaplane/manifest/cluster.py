"""Cluster-wide policies for tests: read one, or all mistakes in it."""

import pytest

from deltaplane.manifest import GeneralPolicyManifest, ManifestError, parse

GROUP = "policy.networking.k8s.io"


def one(text: str) -> GeneralPolicyManifest:
    (manifest,) = parse(text, "p.yaml")
    assert isinstance(manifest, GeneralPolicyManifest)
    return manifest


def admin(spec: str, kind: str = "AdminNetworkPolicy", name: str = "default") -> str:
    return f"apiVersion: {GROUP}/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def cluster(spec: str, metadata: str = "{name: p}") -> str:
    return (
        f"apiVersion: {GROUP}/v1alpha2\nkind: ClusterNetworkPolicy\n"
        f"metadata: {metadata}\nspec: {spec}\n"
    )


def mistakes(text: str) -> dict[str, str]:
    """Path → reason of every mistake; no two may share a path."""
    with pytest.raises(ManifestError) as caught:
        parse(text, "p.yaml")
    found = caught.value.mistakes
    assert len({mistake.path for mistake in found}) == len(found), found
    return {mistake.path: mistake.reason for mistake in found}
