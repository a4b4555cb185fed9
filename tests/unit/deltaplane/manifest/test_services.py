"""Services as manifests: the defaults and refusals of the Kubernetes API server."""

import contextlib
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.manifest import ManifestError, ServiceManifest, observe, parse
from deltaplane.manifest.fields import SERVICE_PORT, SERVICE_SPEC
from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.model.ports import Protocol
from deltaplane.model.service import Distribution, Service, ServicePort, ServiceType

PORT = {"port": 80}


def made(spec: dict[str, Any], **others: Any) -> dict[str, Any]:
    metadata = {"name": "web", "namespace": "shop", **others.pop("metadata", {})}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec, **others}


def read(spec: dict[str, Any], **others: Any) -> ServiceManifest:
    (found,) = parse(yaml.safe_dump(made({"ports": [PORT], **spec}, **others)), "file")
    assert isinstance(found, ServiceManifest)
    return found


def mistakes(spec: dict[str, Any], **others: Any) -> dict[str, str]:
    with pytest.raises(ManifestError) as caught:
        parse(yaml.safe_dump(made({"ports": [PORT], **spec}, **others)), "file")
    return {item.path: item.reason for item in caught.value.mistakes}


def test_defaults_are_those_of_kubernetes() -> None:
    assert read({"selector": {"app": "web"}}) == ServiceManifest(
        service=Service(
            namespace="shop",
            name="web",
            type=ServiceType.CLUSTER_IP,
            ports=(ServicePort(name="", protocol=Protocol.TCP, port=80, target=""),),
            selector=(("app", "web"),),
        )
    )


def test_everything_at_once() -> None:
    found = read(
        {
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.7",
            "clusterIPs": ["10.96.0.7", "fd00:10:96::7"],
            "ipFamilies": ["IPv4", "IPv6"],
            "ipFamilyPolicy": "RequireDualStack",
            "ports": [
                {"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080},
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 5353},
                {"name": "dns-tcp", "port": 53, "targetPort": 5353, "appProtocol": "x/y"},
            ],
            "selector": {"app": "web"},
            "externalIPs": ["198.51.100.4"],
            "loadBalancerSourceRanges": ["192.0.2.0/24", "2001:db8::/32"],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 30}},
            "internalTrafficPolicy": "Local",
            "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 31000,
            "publishNotReadyAddresses": True,
            "trafficDistribution": "PreferSameNode",
        },
        status={"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}, {"hostname": "lb.example"}]}},
    )
    assert found.service == Service(
        namespace="shop",
        name="web",
        type=ServiceType.LOAD_BALANCER,
        cluster_ips=(parse_address("10.96.0.7"), parse_address("fd00:10:96::7")),
        ports=(
            ServicePort(name="http", port=80, node_port=30080, target="web"),
            ServicePort(name="dns", protocol=Protocol.UDP, port=53, target="5353"),
            ServicePort(name="dns-tcp", port=53, target="5353"),
        ),
        selector=(("app", "web"),),
        external_ips=(parse_address("198.51.100.4"),),
        load_balancer_ips=(parse_address("203.0.113.9"),),
        source_ranges=(Prefix.parse("192.0.2.0/24"), Prefix.parse("2001:db8::/32")),
        affinity_seconds=30,
        internal_local=True,
        external_local=True,
        health_check_node_port=31000,
        publish_not_ready=True,
        distribution=Distribution.SAME_NODE,
    )
    assert found.families == (4, 6)


def test_affinity_without_a_time_lasts_three_hours() -> None:
    assert read({"sessionAffinity": "ClientIP"}).service.affinity_seconds == 10800
    assert read({"sessionAffinity": "None"}).service.affinity_seconds == 0


@pytest.mark.parametrize("word", ["PreferClose", "PreferSameZone"])
def test_close_means_the_same_zone(word: str) -> None:
    assert read({"trafficDistribution": word}).service.distribution is Distribution.SAME_ZONE


def test_the_topology_annotation_wins() -> None:
    known = {"annotations": {"service.kubernetes.io/topology-mode": "Auto"}}
    found = read({"trafficDistribution": "PreferSameNode"}, metadata=known)
    assert found.service.distribution is Distribution.SAME_ZONE


def test_a_load_balancer_gets_the_address_that_it_asks_for() -> None:
    found = read({"type": "LoadBalancer", "loadBalancerIP": "203.0.113.9"})
    assert found.service.load_balancer_ips == (parse_address("203.0.113.9"),)


def test_a_balancer_that_is_a_proxy_keeps_its_address_to_itself() -> None:
    ingress = [{"ip": "203.0.113.9", "ipMode": "Proxy"}]
    found = read({"type": "LoadBalancer"}, status={"loadBalancer": {"ingress": ingress}})
    assert found.service.load_balancer_ips == ()


@pytest.mark.parametrize(
    ("spec", "headless", "families", "policy"),
    [
        ({}, False, (), ""),
        ({"ipFamilies": ["IPv6"]}, False, (6,), ""),
        ({"ipFamilyPolicy": "PreferDualStack"}, False, (), "PreferDualStack"),
        (
            {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]},
            False,
            (6,),
            "RequireDualStack",
        ),
        ({"clusterIP": "None", "selector": {"app": "web"}}, True, (), ""),
        ({"clusterIP": "None"}, True, (), "PreferDualStack"),
        ({"clusterIPs": ["None"], "ipFamilyPolicy": "SingleStack"}, True, (), "SingleStack"),
    ],
)
def test_families(
    spec: dict[str, Any], headless: bool, families: tuple[int, ...], policy: str
) -> None:
    found = read(spec)
    assert (found.headless, found.families, found.family_policy) == (headless, families, policy)


def test_a_headless_service_needs_no_port() -> None:
    assert read({"clusterIP": "None", "ports": []}).service.ports == ()


def test_an_external_name_is_for_dns_alone() -> None:
    found = read({"type": "ExternalName", "externalName": "shop.example.com.", "ports": []})
    assert found.service.type is ServiceType.EXTERNAL_NAME
    assert found.service.external_name == "shop.example.com"


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"clusterip": "10.0.0.1"}, "spec.clusterip"),
        ({"ports": [{"port": 80, "hostPort": 80}]}, "spec.ports[0].hostPort"),
        ({"ports": []}, "spec.ports"),
        ({"ports": [{"port": 0}]}, "spec.ports[0].port"),
        ({"ports": [{"port": 65536}]}, "spec.ports[0].port"),
        ({"ports": [{"name": "web"}]}, "spec.ports[0].port"),
        ({"ports": [{"port": 80}, {"port": 81, "name": "b"}]}, "spec.ports[0].name"),
        ({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]}, "spec.ports[1].name"),
        ({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}, "spec.ports[1].port"),
        ({"ports": [{"port": 80, "protocol": "ICMP"}]}, "spec.ports[0].protocol"),
        ({"ports": [{"port": 80, "name": "Web"}]}, "spec.ports[0].name"),
        ({"ports": [{"port": 80, "targetPort": "a name"}]}, "spec.ports[0].targetPort"),
        ({"ports": [{"port": 80, "targetPort": 65536}]}, "spec.ports[0].targetPort"),
        ({"ports": [{"port": 80, "nodePort": 30000}]}, "spec.ports[0].nodePort"),
        (
            {
                "type": "NodePort",
                "ports": [
                    {"port": 80, "name": "a", "nodePort": 30000},
                    {"port": 81, "name": "b", "nodePort": 30000},
                ],
            },
            "spec.ports[1].nodePort",
        ),
        ({"type": "Cluster"}, "spec.type"),
        ({"clusterIP": "10.96.0"}, "spec.clusterIP"),
        ({"clusterIP": "127.0.0.1"}, "spec.clusterIP"),
        ({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.2"]}, "spec.clusterIPs[0]"),
        (
            {"clusterIPs": ["10.96.0.1", "10.96.0.2"], "ipFamilyPolicy": "RequireDualStack"},
            "spec.clusterIPs[1]",
        ),
        ({"clusterIPs": ["10.96.0.1", "fd00::1"]}, "spec.ipFamilyPolicy"),
        ({"clusterIP": "10.96.0.1", "ipFamilies": ["IPv6"]}, "spec.clusterIPs"),
        ({"clusterIPs": ["None", "10.96.0.1"]}, "spec.clusterIPs[1]"),
        ({"clusterIP": "None", "type": "NodePort"}, "spec.clusterIP"),
        ({"ipFamilies": ["IPv5"]}, "spec.ipFamilies[0]"),
        ({"ipFamilies": ["IPv4", "IPv4"]}, "spec.ipFamilies"),
        ({"ipFamilies": ["IPv4", "IPv6"]}, "spec.ipFamilyPolicy"),
        ({"externalIPs": ["169.254.169.254"]}, "spec.externalIPs[0]"),
        ({"externalIPs": ["::ffff:10.0.0.1"]}, "spec.externalIPs[0]"),
        ({"loadBalancerSourceRanges": ["10.0.0.0/8"]}, "spec.loadBalancerSourceRanges"),
        (
            {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.1"]},
            "spec.loadBalancerSourceRanges[0]",
        ),
        ({"sessionAffinity": "Cookie"}, "spec.sessionAffinity"),
        ({"sessionAffinityConfig": {"clientIP": {}}}, "spec.sessionAffinityConfig"),
        (
            {
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}},
            },
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
        ),
        ({"internalTrafficPolicy": "Node"}, "spec.internalTrafficPolicy"),
        ({"externalTrafficPolicy": "Local"}, "spec.externalTrafficPolicy"),
        (
            {
                "type": "ExternalName",
                "externalName": "a",
                "externalIPs": ["198.51.100.4"],
                "externalTrafficPolicy": "Local",
            },
            "spec.externalTrafficPolicy",
        ),
        ({"healthCheckNodePort": 31000}, "spec.healthCheckNodePort"),
        ({"trafficDistribution": "PreferFar"}, "spec.trafficDistribution"),
        ({"type": "ExternalName"}, "spec.externalName"),
        (
            {"type": "ExternalName", "externalName": "a", "clusterIP": "10.96.0.1"},
            "spec.clusterIP",
        ),
        (
            {"type": "ExternalName", "externalName": "a", "ipFamilies": ["IPv4"]},
            "spec.ipFamilies",
        ),
        ({"type": "ExternalName", "externalName": "a_b"}, "spec.externalName"),
        (
            {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False},
            "spec.allocateLoadBalancerNodePorts",
        ),
        ({"selector": {"-a": "b"}}, "spec.selector[-a]"),
    ],
)
def test_refusals_name_the_field(spec: dict[str, Any], path: str) -> None:
    assert list(mistakes(spec)) == [path]


def test_external_ips_make_a_service_reachable() -> None:
    found = read({"externalIPs": ["198.51.100.4"], "externalTrafficPolicy": "Local"})
    assert found.service.external_local


def test_names_begin_with_a_letter() -> None:
    assert list(mistakes({}, metadata={"name": "1web"})) == ["metadata.name"]


def test_a_cluster_may_know_more_than_we_do() -> None:
    spec = {"ports": [{"port": 80, "colour": "red"}], "colour": "blue"}
    known = observe(made(spec, colour="green"), "cluster")
    assert isinstance(known.manifest, ServiceManifest)
    assert known.manifest.service.ports == (ServicePort(port=80),)
    assert {item.path for item in known.warnings} == {
        "colour",
        "spec.colour",
        "spec.ports[0].colour",
    }


def test_what_breaks_a_rule_is_refused_from_a_cluster_too() -> None:
    with pytest.raises(ManifestError, match=r"spec.ports\[0\].port"):
        observe(made({"ports": [{"port": 0}]}), "cluster")


def test_other_kinds_are_not_observed() -> None:
    with pytest.raises(ManifestError, match="kind"):
        observe({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}, "cluster")


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-1, 70000)
    | st.sampled_from(
        ["", "None", "10.96.0.1", "fd00::1", "ClientIP", "Local", "LoadBalancer", "IPv4", "a"]
    )
)
FIELDS = st.sampled_from(
    [*sorted(SERVICE_SPEC | SERVICE_PORT), "clientIP", "loadBalancer", "ingress"]
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=6),
    max_leaves=25,
)


@given(spec=ANYTHING, status=ANYTHING)
def test_whatever_comes_is_read_or_refused(spec: Any, status: Any) -> None:
    with contextlib.suppress(ManifestError):
        assert len(parse(yaml.safe_dump(made(spec, status=status)), "file")) == 1
