"""What the API server refuses, the manifest parser refuses, too, and it defaults the same."""

import json
from typing import Any

import pytest

from deltaplane.manifest import ManifestError, PolicyManifest, parse
from deltaplane.model.policy import NetworkPolicy
from tests.conformance.cases import oracles


def read(spec: dict[str, Any]) -> NetworkPolicy:
    document = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p"},
        "spec": spec,
    }
    (manifest,) = parse(json.dumps(document), "p.yaml")
    assert isinstance(manifest, PolicyManifest)
    return manifest.policy


def table(name: str) -> list[dict[str, Any]]:
    content = json.loads((oracles() / "api_validation.json").read_text())
    rows: list[dict[str, Any]] = content[name]
    assert rows
    return rows


def check(spec: dict[str, Any], *, valid: bool, path: str) -> None:
    if valid:
        read(spec)
        return
    with pytest.raises(ManifestError) as caught:
        read(spec)
    assert all(mistake.path.startswith(path) for mistake in caught.value.mistakes)


def test_port_ranges() -> None:
    for row in table("endPort"):
        spec = {"podSelector": {}, "egress": [{"ports": row["egress_ports"]}]}
        check(spec, valid=row["valid"], path="spec.egress[0].ports[0]")


@pytest.mark.parametrize(("rules", "peers"), [("ingress", "from"), ("egress", "to")])
def test_peers(rules: str, peers: str) -> None:
    for row in table("peers"):
        spec = {"podSelector": {}, rules: [{peers: [row["peer"]]}]}
        check(spec, valid=row["valid"], path=f"spec.{rules}[0].{peers}[0]")


def test_policy_types() -> None:
    for row in table("policyTypes_default"):
        policy = read(row["spec"])
        types = {"Ingress": policy.applies_to_ingress, "Egress": policy.applies_to_egress}
        assert [name for name, applies in types.items() if applies] == row["want"]
