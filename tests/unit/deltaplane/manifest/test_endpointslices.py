"""Endpoint slices and stateful sets as manifests."""

import contextlib
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.manifest import (
    EndpointSliceManifest,
    ManifestError,
    PodManifest,
    StatefulSetManifest,
    observe,
    parse,
)
from deltaplane.model.addresses import parse_address
from deltaplane.model.ports import Protocol
from deltaplane.model.service import EndpointSlice, SliceEndpoint, SlicePort

LABELS = {"kubernetes.io/service-name": "web"}


def made(**fields: Any) -> dict[str, Any]:
    metadata = {"name": "web-1", "namespace": "shop", "labels": fields.pop("labels", LABELS)}
    known = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata}
    return {**known, "addressType": "IPv4", **fields}


def read(**fields: Any) -> EndpointSlice:
    (found,) = parse(yaml.safe_dump(made(**fields)), "file")
    assert isinstance(found, EndpointSliceManifest)
    return found.slice


def mistakes(**fields: Any) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        parse(yaml.safe_dump(made(**fields)), "file")
    return [item.path for item in caught.value.mistakes]


def test_an_endpoint_that_says_nothing_is_ready() -> None:
    assert read(endpoints=[{"addresses": ["10.0.0.1"]}], ports=[{"port": 80}]) == EndpointSlice(
        namespace="shop",
        name="web-1",
        service="web",
        ports=(SlicePort(name="", protocol=Protocol.TCP, number=80),),
        endpoints=(SliceEndpoint(address=parse_address("10.0.0.1")),),
    )


def test_everything_at_once() -> None:
    endpoint = {
        "addresses": ["fd00::1", "fd00::2"],
        "conditions": {"ready": False, "serving": True, "terminating": True},
        "hostname": "web-0",
        "nodeName": "node-1",
        "zone": "west",
        "hints": {"forZones": [{"name": "west"}, {"name": "east"}], "forNodes": [{"name": "n"}]},
        "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-0", "uid": "u"},
    }
    ports = [{"name": "dns", "port": 53, "protocol": "UDP", "appProtocol": "dns"}]
    assert read(addressType="IPv6", endpoints=[endpoint], ports=ports) == EndpointSlice(
        namespace="shop",
        name="web-1",
        service="web",
        ports=(SlicePort(name="dns", protocol=Protocol.UDP, number=53),),
        endpoints=(
            SliceEndpoint(
                address=parse_address("fd00::1"),
                ready=False,
                serving=True,
                terminating=True,
                node="node-1",
                zones=("east", "west"),
                nodes=("n",),
                hostname="web-0",
                target="shop/web-0",
            ),
        ),
    )


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, (True, True, False)),
        ({"ready": False}, (False, False, False)),
        ({"ready": False, "serving": True}, (False, True, False)),
        ({"serving": False}, (True, False, False)),
        ({"terminating": True}, (True, True, True)),
    ],
)
def test_conditions(conditions: dict[str, bool], expected: tuple[bool, bool, bool]) -> None:
    (found,) = read(endpoints=[{"addresses": ["10.0.0.1"], "conditions": conditions}]).endpoints
    assert (found.ready, found.serving, found.terminating) == expected


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"colour": "red"}, "colour"),
        ({"labels": {}}, "metadata.labels"),
        ({"labels": {"kubernetes.io/service-name": "1"}}, "metadata.labels"),
        ({"addressType": None}, "addressType"),
        ({"addressType": "FQDN"}, "addressType"),
        ({"endpoints": [{"addresses": []}]}, "endpoints[0].addresses"),
        ({"endpoints": [{"nodeName": "a"}]}, "endpoints[0].addresses"),
        ({"endpoints": [{"addresses": ["fd00::1"]}]}, "endpoints[0].addresses[0]"),
        ({"endpoints": [{"addresses": ["127.0.0.1"]}]}, "endpoints[0].addresses[0]"),
        ({"endpoints": [{"addresses": ["10.0.0.1"], "load": 1}]}, "endpoints[0].load"),
        ({"endpoints": [{"addresses": ["10.0.0.1"], "hostname": "A"}]}, "endpoints[0].hostname"),
        (
            {"endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": "yes please"}}]},
            "endpoints[0].conditions.ready",
        ),
        (
            {
                "endpoints": [
                    {"addresses": ["10.0.0.1"], "hints": {"forZones": [{"name": "a"}] * 2}}
                ]
            },
            "endpoints[0].hints.forZones[1].name",
        ),
        (
            {
                "endpoints": [
                    {
                        "addresses": ["10.0.0.1"],
                        "hints": {"forZones": [{"name": f"z{i}"} for i in range(9)]},
                    }
                ]
            },
            "endpoints[0].hints.forZones",
        ),
        ({"endpoints": [{"addresses": ["10.0.0.1"]}] * 1001}, "endpoints"),
        ({"ports": [{"name": "a"}]}, "ports[0].port"),
        ({"ports": [{"port": 1}, {"port": 2}]}, "ports[1].name"),
        ({"ports": [{"name": "Web", "port": 1}]}, "ports[0].name"),
    ],
)
def test_refusals_name_the_field(fields: dict[str, Any], path: str) -> None:
    assert mistakes(**fields) == [path]


def test_of_a_cluster_what_cannot_be_used_is_a_warning() -> None:
    known = observe(
        made(labels={}, ports=[{"name": "all"}, {"name": "one", "port": 1}], colour="red"), "c"
    )
    assert isinstance(known.manifest, EndpointSliceManifest)
    assert known.manifest.slice.service == ""
    assert known.manifest.slice.ports == (SlicePort(name="one", number=1),)
    paths = sorted(item.path for item in known.warnings)
    assert paths == ["colour", "metadata.labels", "ports[0].port"]


def test_names_instead_of_addresses_leave_an_empty_slice() -> None:
    value = made(addressType="FQDN", endpoints=[{"addresses": ["example.com"]}])
    known = observe(value, "cluster")
    assert isinstance(known.manifest, EndpointSliceManifest)
    assert known.manifest.slice.endpoints == ()


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "10.0.0.1", "a", "IPv6"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["addresses", "conditions", "hints", "forZones", "name", "port", "ready"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(endpoints=ANYTHING, ports=ANYTHING, kind=ANYTHING)
def test_whatever_comes_is_read_or_refused(endpoints: Any, ports: Any, kind: Any) -> None:
    with contextlib.suppress(ManifestError):
        read(endpoints=endpoints, ports=ports, addressType=kind)


# --- stateful sets -------------------------------------------------------------------------------


def stateful(spec: dict[str, Any]) -> str:
    template = {
        "metadata": {"labels": {"app": "db"}},
        "spec": {"containers": [{"name": "db", "ports": [{"containerPort": 5432}]}]},
    }
    known = {"selector": {"matchLabels": {"app": "db"}}, "template": template, **spec}
    metadata = {"name": "db", "namespace": "shop"}
    return yaml.safe_dump(
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": known}
    )


def test_a_stateful_set() -> None:
    text = stateful({"serviceName": "peers", "replicas": 3, "ordinals": {"start": 5}})
    (found,) = parse(text, "file")
    assert isinstance(found, StatefulSetManifest)
    assert (found.replicas, found.first, found.template.subdomain) == (3, 5, "peers")
    assert [port.number for port in found.template.ports] == [5432]


def test_a_stateful_set_has_one_replica_and_no_service_by_default() -> None:
    (found,) = parse(stateful({}), "file")
    assert isinstance(found, StatefulSetManifest)
    assert (found.replicas, found.first, found.template.subdomain) == (1, 0, "")


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"serviceNames": "a"}, "spec.serviceNames"),
        ({"serviceName": "1a"}, "spec.serviceName"),
        ({"replicas": -1}, "spec.replicas"),
        ({"ordinals": {"start": -1}}, "spec.ordinals.start"),
        ({"selector": {"matchLabels": {"app": "other"}}}, "spec.selector"),
    ],
)
def test_mistakes_of_a_stateful_set(spec: dict[str, Any], path: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse(stateful(spec), "file")
    assert [item.path for item in caught.value.mistakes] == [path]


def test_a_pod_may_have_a_name_below_a_service() -> None:
    text = """
apiVersion: v1
kind: Pod
metadata: {name: a}
spec: {hostname: one, subdomain: peers, containers: [{name: a}]}
"""
    (found,) = parse(text, "file")
    assert isinstance(found, PodManifest)
    assert (found.hostname, found.subdomain) == ("one", "peers")
