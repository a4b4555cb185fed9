"""Cilium's policies for tests: read one, or all mistakes in it."""

import pytest

from deltaplane.manifest import GeneralPolicyManifest, ManifestError, parse
from deltaplane.model.tiers import Policy

CNP = "CiliumNetworkPolicy"
CCNP = "CiliumClusterwideNetworkPolicy"


def text(body: str, kind: str = CNP, annotations: str = "{}") -> str:
    """An object named "p", a CNP in namespace "shop". body: its fields, spec or specs."""
    namespace = ", namespace: shop" if kind == CNP else ""
    metadata = f"{{name: p{namespace}, annotations: {annotations}}}"
    return f"apiVersion: cilium.io/v2\nkind: {kind}\nmetadata: {metadata}\n{body}\n"


def read(body: str, kind: str = CNP, annotations: str = "{}") -> GeneralPolicyManifest:
    """The manifest."""
    (manifest,) = parse(text(body, kind, annotations), "p.yaml")
    assert isinstance(manifest, GeneralPolicyManifest)
    return manifest


def policy(spec: str, kind: str = CNP) -> Policy:
    """The policy of a spec."""
    return read(f"spec: {spec}", kind).policy


def mistakes(body: str, kind: str = CNP, annotations: str = "{}") -> dict[str, str]:
    """Path → reason of every mistake; no two may share a path."""
    with pytest.raises(ManifestError) as caught:
        parse(text(body, kind, annotations), "p.yaml")
    found = caught.value.mistakes
    assert len({mistake.path for mistake in found}) == len(found), found
    return {mistake.path: mistake.reason for mistake in found}
