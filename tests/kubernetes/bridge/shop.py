"""A little cluster of every kind, and the records that it must become: written down by hand.

Names of what lives in no namespace begin with the test's namespace. What the server chooses (UIDs,
addresses, node ports) is taken from its answers.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any

from deltaplane.v1 import common_pb2, policy_pb2, registry_pb2, service_pb2
from services.kubernetes.api import resource as resources
from services.kubernetes.api.resource import Resource
from tests.kubernetes.bare import Object

Record = (
    registry_pb2.Pod
    | service_pb2.Service
    | service_pb2.EndpointSlice
    | policy_pb2.NetworkPolicy
    | policy_pb2.Policy
)
LABELS = {"app": "web", "tier": "front"}
CONTAINER = {
    "name": "main",
    "image": "web",
    "ports": [
        {"name": "http", "containerPort": 8080},
        {"name": "dns", "containerPort": 53, "protocol": "UDP"},
        {"containerPort": 9},
    ],
}
TCP, UDP = common_pb2.PROTOCOL_TCP, common_pb2.PROTOCOL_UDP
CORE, APIS = "/api/v1", "/apis"
SLICES = [("web-4", "IPv4", ("10.9.8.7", "10.9.8.8")), ("web-6", "IPv6", ("fd09::7", "fd09::8"))]


def node_name(namespace: str) -> str:
    return f"{namespace}-node"


def _pod(name: str, node: str, **more: Any) -> Object:
    spec = {
        "automountServiceAccountToken": False,
        "containers": [CONTAINER],
        "tolerations": [{"operator": "Exists"}],
        **({"nodeName": node} if node else {}),
        **more.pop("spec", {}),
    }
    return {"metadata": {"name": name, "labels": LABELS} | more, "spec": spec}


GATE = "deltaplane.dev/network-ready"


def _pods(node: str) -> Iterator[Object]:
    notes = {"deltaplane.dev/ipv4-pool": "blue", "kubectl.kubernetes.io/note": "x"}
    yield _pod("web", node, annotations=notes)
    yield _pod("gated", node, spec={"readinessGates": [{"conditionType": GATE}]})
    # It asks for an address that is none: it gets no record, and an Event.
    yield _pod("wrong", node, annotations={"deltaplane.dev/ip-addresses": "nowhere"})
    # These have no address of ours: on the node's own network, not bound yet, ended.
    without_ports = [{"name": "main", "image": "web"}]
    yield _pod("host", node, spec={"hostNetwork": True, "containers": without_ports})
    yield _pod("waiting", "")
    yield _pod("ended", node)


def _services() -> Iterator[Object]:
    ports = [
        {"name": "http", "port": 80, "targetPort": "http"},
        {"name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP"},
    ]
    both = {"ipFamilyPolicy": "PreferDualStack", "selector": {"app": "web"}, "ports": ports}
    yield {"metadata": {"name": "web"}, "spec": both}
    outside = {
        "type": "NodePort",
        "externalTrafficPolicy": "Local",
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 90}},
        "selector": {"app": "web"},
        "ports": [{"port": 443, "targetPort": 8443}],
    }
    yield {"metadata": {"name": "outside"}, "spec": outside}
    headless = {"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 5432}]}
    yield {"metadata": {"name": "headless"}, "spec": headless}


def _slice(name: str, family: str, addresses: tuple[str, ...], node: str) -> Object:
    ready, going = addresses
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": family,
        "endpoints": [
            {"addresses": [ready], "conditions": {"ready": True}, "nodeName": node},
            {
                "addresses": [going],
                "conditions": {"ready": False, "serving": True, "terminating": True},
            },
        ],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }


def _network_policy() -> Object:
    peers = [
        {"podSelector": {"matchLabels": {"app": "api"}}},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
    ]
    spec = {
        "podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": peers, "ports": [{"port": "http"}, {"port": 80, "endPort": 90}]}],
    }
    return {"metadata": {"name": "web"}, "spec": spec}


def _own(namespace: str) -> Object:
    """Selects the test's namespace alone."""
    return {"matchLabels": {"kubernetes.io/metadata.name": namespace}}


def _cilium(name: str, **rules: Any) -> Object:
    return {"metadata": {"name": name}, "spec": {"endpointSelector": {}} | rules}


def _cluster_policy(namespace: str) -> Object:
    subject = {"namespaces": _own(namespace)}
    rule = {"name": "none", "action": "Deny", "to": [{"namespaces": _own(namespace)}]}
    spec = {"tier": "Admin", "priority": 7, "subject": subject, "egress": [rule]}
    return {"metadata": {"name": namespace}, "spec": spec}


def _admin_policy(namespace: str) -> Object:
    subject = {"namespaces": _own(namespace)}
    rule = {"name": "own", "action": "Allow", "from": [{"namespaces": _own(namespace)}]}
    spec = {"priority": 9, "subject": subject, "ingress": [rule]}
    return {"metadata": {"name": namespace}, "spec": spec}


def objects(namespace: str) -> Iterator[tuple[str, Object]]:
    """What there is, in an order in which it can be made: the path of its kind, and itself."""
    node, inside = node_name(namespace), f"namespaces/{namespace}"
    taints = [{"key": "deltaplane.dev/test", "effect": "NoSchedule"}]
    yield f"{CORE}/nodes", {"metadata": {"name": node}, "spec": {"taints": taints}}
    for pod in _pods(node):
        yield f"{CORE}/{inside}/pods", pod
    for service in _services():
        yield f"{CORE}/{inside}/services", service
    for name, family, addresses in SLICES:
        given = _slice(name, family, addresses, node)
        yield f"{APIS}/discovery.k8s.io/v1/{inside}/endpointslices", given
    yield f"{APIS}/networking.k8s.io/v1/{inside}/networkpolicies", _network_policy()
    cilium = _cilium("team", ingress=[{"fromEndpoints": [{"matchLabels": {"app": "api"}}]}])
    yield _custom(resources.CILIUM_NETWORK_POLICIES, cilium, namespace)
    # About requests of HTTP, which we do not read: something that closes stands for it.
    http = {"toPorts": [{"ports": [{"port": "80"}], "rules": {"http": [{"method": "GET"}]}}]}
    wide = _cilium(namespace, endpointSelector=_in(namespace), ingress=[http])
    yield _custom(resources.CILIUM_CLUSTERWIDE_NETWORK_POLICIES, wide)
    yield _custom(resources.CLUSTER_NETWORK_POLICIES, _cluster_policy(namespace))
    yield _custom(resources.ADMIN_NETWORK_POLICIES, _admin_policy(namespace))


def _custom(resource: Resource, item: Object, namespace: str = "") -> tuple[str, Object]:
    """Of a kind that is defined in the cluster: only then must an object say what it is."""
    kind = {"apiVersion": resource.api_version, "kind": resource.kind}
    return resource.collection(namespace), kind | item


def _in(namespace: str) -> Object:
    return {"matchLabels": {"k8s:io.kubernetes.pod.namespace": namespace}}


# --- what it becomes -----------------------------------------------------------------------------


def records(namespace: str, made: dict[tuple[str, str], Object]) -> list[Record]:
    """All that the registry must hold in a namespace and under its name.

    Args:
        namespace: the test's.
        made: what the server made of the objects, by plural and name.
    """
    node = node_name(namespace)
    return [
        *_pod_records(namespace, node, made),
        *_service_records(namespace, made),
        *_slice_records(namespace, node),
        _network_policy_record(namespace),
        *_policy_records(namespace),
    ]


def without(found: list[Record], *gone: tuple[str, str]) -> list[Record]:
    """Records but those of some objects. gone: plurals and names."""
    words = {
        "pods": "Pod",
        "services": "Service",
        "endpointslices": "EndpointSlice",
        "networkpolicies": "NetworkPolicy",
        "ciliumnetworkpolicies": "Policy",
    }
    left_out = {(words[plural], name) for plural, name in gone}
    return [it for it in found if (type(it).__name__, it.name) not in left_out]


def _pod_records(
    namespace: str, node: str, made: dict[tuple[str, str], Object]
) -> Iterator[registry_pb2.Pod]:
    ports = [
        common_pb2.NamedPort(name="dns", protocol=UDP, number=53),
        common_pb2.NamedPort(name="http", protocol=TCP, number=8080),
    ]
    for name, annotations in (("web", {"deltaplane.dev/ipv4-pool": "blue"}), ("gated", {})):
        yield registry_pb2.Pod(
            namespace=namespace,
            name=name,
            uid=made["pods", name]["metadata"]["uid"],
            node=node,
            labels=LABELS,
            annotations=annotations,
            named_ports=ports,
        )


def _packed(texts: Iterable[str]) -> list[bytes]:
    return [ipaddress.ip_address(text).packed for text in texts]


def _families(spec: Object) -> list[int]:
    return [{"IPv4": 4, "IPv6": 6}[name] for name in spec["ipFamilies"]]


def _service_records(
    namespace: str, made: dict[tuple[str, str], Object]
) -> Iterator[service_pb2.Service]:
    web, outside = (made["services", name]["spec"] for name in ("web", "outside"))
    yield service_pb2.Service(
        namespace=namespace,
        name="web",
        type=service_pb2.SERVICE_TYPE_CLUSTER_IP,
        cluster_ips=_packed(web["clusterIPs"]),
        families=_families(web),
        selector={"app": "web"},
        ports=[
            service_pb2.ServicePort(name="http", protocol=TCP, port=80, target="http"),
            service_pb2.ServicePort(name="dns", protocol=UDP, port=53, target="5353"),
        ],
    )
    (port,) = outside["ports"]
    yield service_pb2.Service(
        namespace=namespace,
        name="outside",
        type=service_pb2.SERVICE_TYPE_NODE_PORT,
        cluster_ips=_packed(outside["clusterIPs"]),
        families=_families(outside),
        selector={"app": "web"},
        affinity_seconds=90,
        external_local=True,
        ports=[
            service_pb2.ServicePort(
                protocol=TCP, port=443, node_port=port["nodePort"], target="8443"
            )
        ],
    )
    yield service_pb2.Service(
        namespace=namespace,
        name="headless",
        type=service_pb2.SERVICE_TYPE_CLUSTER_IP,
        headless=True,
        families=_families(made["services", "headless"]["spec"]),
        selector={"app": "web"},
        ports=[service_pb2.ServicePort(protocol=TCP, port=5432, target="5432")],
    )


def _slice_records(namespace: str, node: str) -> Iterator[service_pb2.EndpointSlice]:
    for name, _, texts in SLICES:
        ready, going = _packed(texts)
        yield service_pb2.EndpointSlice(
            namespace=namespace,
            name=name,
            service="web",
            ports=[service_pb2.SlicePort(name="http", protocol=TCP, number=8080)],
            endpoints=[
                service_pb2.SliceEndpoint(address=ready, node=node),
                service_pb2.SliceEndpoint(address=going, not_ready=True, terminating=True),
            ],
        )


def _prefix(text: str) -> common_pb2.Prefix:
    network = ipaddress.ip_network(text)
    return common_pb2.Prefix(address=network.network_address.packed, length=network.prefixlen)


def _labels(**labels: str) -> common_pb2.LabelSelector:
    return common_pb2.LabelSelector(match_labels=labels)


def _network_policy_record(namespace: str) -> policy_pb2.NetworkPolicy:
    block = policy_pb2.IPBlock(cidr=_prefix("10.0.0.0/8"), **{"except": [_prefix("10.1.0.0/16")]})
    peers = [
        policy_pb2.PolicyPeer(pod_selector=_labels(app="api")),
        policy_pb2.PolicyPeer(ip_block=block),
    ]
    ports = [
        policy_pb2.PolicyPort(protocol=TCP, name="http"),
        policy_pb2.PolicyPort(protocol=TCP, number=80, end_number=90),
    ]
    return policy_pb2.NetworkPolicy(
        namespace=namespace,
        name="web",
        pod_selector=_labels(app="web"),
        applies_to_ingress=True,
        applies_to_egress=True,
        ingress=[policy_pb2.PolicyRule(peers=peers, ports=ports)],
    )


def _policy_records(namespace: str) -> Iterator[policy_pb2.Policy]:
    everyone = policy_pb2.PolicySelector(
        namespaces=common_pb2.LabelSelector(
            match_labels={"kubernetes.io/metadata.name": namespace}
        ),
        pods=common_pb2.LabelSelector(),
    )
    yield policy_pb2.Policy(
        kind="AdminNetworkPolicy",
        name=namespace,
        subject=everyone,
        tier=policy_pb2.POLICY_TIER_ADMIN,
        priority=9,
        ingress=[_rule(policy_pb2.RULE_ACTION_ALLOW, everyone, "own")],
    )
    yield policy_pb2.Policy(
        kind="ClusterNetworkPolicy",
        name=namespace,
        subject=everyone,
        tier=policy_pb2.POLICY_TIER_ADMIN,
        priority=7,
        egress=[_rule(policy_pb2.RULE_ACTION_DENY, everyone, "none")],
    )
    inside = policy_pb2.PolicySelector(
        namespace=namespace, namespaces=common_pb2.LabelSelector(), pods=common_pb2.LabelSelector()
    )
    callers = policy_pb2.PolicySelector(
        namespace=namespace, namespaces=common_pb2.LabelSelector(), pods=_labels(app="api")
    )
    yield policy_pb2.Policy(
        kind="CiliumNetworkPolicy",
        namespace=namespace,
        name="team",
        subject=inside,
        tier=policy_pb2.POLICY_TIER_NORMAL,
        isolates_ingress=True,
        ingress=[_rule(policy_pb2.RULE_ACTION_ALLOW, callers, "ingress[0]")],
    )
    # Its rule cannot be read: nothing may come in.
    yield policy_pb2.Policy(
        kind="CiliumClusterwideNetworkPolicy",
        name=namespace,
        subject=inside,
        tier=policy_pb2.POLICY_TIER_NORMAL,
        isolates_ingress=True,
    )


def _rule(
    action: policy_pb2.RuleAction.ValueType, peers: policy_pb2.PolicySelector, name: str
) -> policy_pb2.TierRule:
    return policy_pb2.TierRule(action=action, selectors=[peers], any_port=True, name=name)
