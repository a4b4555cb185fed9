"""What the registry refuses, in the words of manifests."""

import pytest

from deltaplane import manifest
from deltaplane.errors import Invalid
from deltaplane.manifest import ServiceManifest
from lab import refusals

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: shop}
spec: {ports: [{port: 80}]}
---
"""


def asked() -> list[ServiceManifest]:
    parsed = manifest.parse(SERVICE % "a" + SERVICE % "b", source="two")
    return [item for item in parsed if isinstance(item, ServiceManifest)]


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("cluster_ips[1]", "spec.clusterIPs[1]"),
        ("ports[2].node_port", "spec.ports[2].nodePort"),
        ("ports", "spec.ports"),
        ("health_check_node_port", "spec.healthCheckNodePort"),
        ("affinity_seconds", "spec.sessionAffinityConfig.clientIP.timeoutSeconds"),
    ],
)
def test_the_service_and_its_field_are_named(field: str, path: str) -> None:
    said = refusals.of_service(Invalid(f"services[1].{field}", "30080 is taken"), asked())
    assert (said.field, said.reason) == (path, "Service shop/b: 30080 is taken")


@pytest.mark.parametrize("field", ["", "services", "services[2].ports", "slices[0].ports"])
def test_what_is_of_no_service_is_left_alone(field: str) -> None:
    error = Invalid(field, "is wrong")
    assert refusals.of_service(error, asked()) is error
