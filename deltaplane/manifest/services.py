"""Service v1: the rules of the Kubernetes API server, field by field.

What only a cluster can judge is left to it: whether an address or a port of the nodes is in its
range and free.
"""

from dataclasses import replace

from deltaplane.manifest.document import Value
from deltaplane.manifest.families import read_address, read_cluster_addresses, read_families
from deltaplane.manifest.fields import INGRESS, SERVICE_PORT, SERVICE_SPEC, SERVICE_STATUS
from deltaplane.manifest.networkpolicy import read_prefix, read_protocol
from deltaplane.manifest.objects import Pairs, ServiceManifest
from deltaplane.manifest.reading import Reader
from deltaplane.manifest.workloads import read_labels
from deltaplane.model import names
from deltaplane.model.addresses import Prefix
from deltaplane.model.ports import MAX_PORT
from deltaplane.model.service import Distribution, Service, ServicePort, ServiceType

TYPES = {
    "ClusterIP": ServiceType.CLUSTER_IP,
    "NodePort": ServiceType.NODE_PORT,
    "LoadBalancer": ServiceType.LOAD_BALANCER,
    "ExternalName": ServiceType.EXTERNAL_NAME,
}
DISTRIBUTIONS = {
    "PreferClose": Distribution.SAME_ZONE,
    "PreferSameZone": Distribution.SAME_ZONE,
    "PreferSameNode": Distribution.SAME_NODE,
}
TRAFFIC_POLICIES = ("Cluster", "Local")
TOPOLOGY_MODE = "service.kubernetes.io/topology-mode"
"""Annotation; "Auto" asks for hints of zones and wins over trafficDistribution."""

DEFAULT_AFFINITY_SECONDS = 10800
MAX_AFFINITY_SECONDS = 86400
ON_NODES = (ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER)
"""Types whose ports are on every node, too."""


def read_service(reader: Reader, namespace: str, name: str) -> ServiceManifest:
    """Reads a Service; what is wrong in it is reported and left out."""
    _, annotations = read_labels(reader.get("metadata"))
    spec = reader.require("spec")
    balancer = _balancer(reader.get("status"))
    if spec is None or not spec.has_fields(SERVICE_SPEC):
        return ServiceManifest(service=Service(namespace=namespace, name=name))
    given = spec.get("type")
    word = given.choice(tuple(TYPES)) if given else "ClusterIP"
    kind = TYPES[word or "ClusterIP"]
    headless, cluster_ips = read_cluster_addresses(spec, kind)
    selector = _selector(spec)
    internal, distribution = spec.get("internalTrafficPolicy"), _distribution(spec, annotations)
    publish = spec.get("publishNotReadyAddresses")
    external_ips = _external_ips(spec)
    external_local = _external_local(spec, kind, reachable=bool(external_ips))
    service = Service(
        namespace=namespace,
        name=name,
        type=kind,
        cluster_ips=cluster_ips,
        ports=_ports(spec, kind, needed=not headless),
        selector=selector,
        external_ips=external_ips,
        load_balancer_ips=_balancer_ips(spec, kind, balancer),
        source_ranges=_source_ranges(spec, kind),
        affinity_seconds=_affinity_seconds(spec),
        internal_local=internal is not None and internal.choice(TRAFFIC_POLICIES) == "Local",
        external_local=external_local,
        health_check_node_port=_health_check_port(spec, kind, local=external_local),
        publish_not_ready=publish is not None and publish.boolean() is True,
        distribution=distribution,
        external_name=_external_name(spec, kind),
    )
    families, policy = read_families(spec, service, headless=headless)
    return ServiceManifest(
        service=service, headless=headless, families=families, family_policy=policy
    )


def _selector(spec: Reader) -> Pairs | None:
    """None: somebody else makes the slices; so it is for an empty one."""
    given = spec.get("selector")
    return (given.labels() or None) if given else None


def _ports(spec: Reader, kind: ServiceType, *, needed: bool) -> tuple[ServicePort, ...]:
    listed = spec.get("ports")
    items = listed.items() if listed else []
    if not items:
        if needed and kind is not ServiceType.EXTERNAL_NAME:
            spec.mistake("is required: at least one port", field="ports")
        return ()
    found: list[ServicePort] = []
    for item in items:
        port = _port(item, kind, named=len(items) > 1)
        if port is not None:
            _check_port(item, port, found)
            found.append(port)
    return tuple(found)


def _port(reader: Reader, kind: ServiceType, *, named: bool) -> ServicePort | None:
    if not reader.has_fields(SERVICE_PORT):
        return None
    name = reader.require("name") if named else reader.get("name")
    # The empty name is an absent one, also to the API.
    if named and name is not None and name.value == "":
        name.mistake("is required where there are several ports")
        name = None
    number, target, on_nodes = (reader.get(word) for word in ("port", "targetPort", "nodePort"))
    if number is None:
        reader.mistake("is required", field="port")
    value = number.integer(1, MAX_PORT) if number else None
    node_port = (on_nodes.integer(0, MAX_PORT) or 0) if on_nodes else 0
    if on_nodes and node_port and kind not in ON_NODES:
        on_nodes.mistake("needs the type NodePort or LoadBalancer")
        node_port = 0
    text = name.text(names.dns_label_mistake) if name and name.value != "" else None
    protocol, wanted = read_protocol(reader.get("protocol")), _target(target)
    if value is None:
        return None
    return ServicePort(
        name=text or "", protocol=protocol, port=value, node_port=node_port, target=wanted
    )


def _target(given: Reader | None) -> str:
    """A number as text or a name; "": as the port of the service."""
    if given is None or given.value in (0, ""):
        return ""
    if isinstance(given.value, str):
        return given.text(names.port_name_mistake) or ""
    number = given.integer(1, MAX_PORT)
    return str(number) if number else ""


def _check_port(reader: Reader, port: ServicePort, others: list[ServicePort]) -> None:
    for other in others:
        if port.name and port.name == other.name:
            reader.mistake(f'another port is called "{port.name}"', field="name")
        if port.protocol is not other.protocol:
            continue
        if port.port == other.port:
            reader.mistake(f"{port.port}/{port.protocol.name} is there already", field="port")
        if port.node_port and port.node_port == other.node_port:
            reader.mistake(
                f"{port.node_port}/{port.protocol.name} is there already", field="nodePort"
            )


def _affinity_seconds(spec: Reader) -> int:
    given, settings = spec.get("sessionAffinity"), spec.get("sessionAffinityConfig")
    by_client = given is not None and given.choice(("None", "ClientIP")) == "ClientIP"
    if settings is None or not settings.has_fields(("clientIP",)):
        return DEFAULT_AFFINITY_SECONDS if by_client else 0
    if not by_client:
        settings.mistake("must be absent unless sessionAffinity is ClientIP")
        return 0
    client = settings.get("clientIP")
    if client is None or not client.has_fields(("timeoutSeconds",)):
        return DEFAULT_AFFINITY_SECONDS
    seconds = client.get("timeoutSeconds")
    value = seconds.integer(1, MAX_AFFINITY_SECONDS) if seconds else None
    return value or DEFAULT_AFFINITY_SECONDS


def _external_ips(spec: Reader) -> tuple[bytes, ...]:
    listed = spec.get("externalIPs")
    found = [read_address(item) for item in listed.items()] if listed else []
    return tuple(dict.fromkeys(address for address in found if address is not None))


def _external_local(spec: Reader, kind: ServiceType, *, reachable: bool) -> bool:
    given = spec.get("externalTrafficPolicy")
    # The API takes the empty text for an absent policy.
    if given is None or given.value == "":
        return False
    word = given.choice(TRAFFIC_POLICIES)
    if kind not in ON_NODES and not (reachable and kind is ServiceType.CLUSTER_IP):
        given.mistake("is only for services that the outside reaches: NodePort, LoadBalancer, ...")
        return False
    return word == "Local"


def _health_check_port(spec: Reader, kind: ServiceType, *, local: bool) -> int:
    given = spec.get("healthCheckNodePort")
    number = given.integer(0, MAX_PORT) if given else None
    if given is None or not number:
        return 0
    if kind is not ServiceType.LOAD_BALANCER or not local:
        given.mistake("needs the type LoadBalancer and externalTrafficPolicy Local")
        return 0
    return number


def _source_ranges(spec: Reader, kind: ServiceType) -> tuple[Prefix, ...]:
    listed = spec.get("loadBalancerSourceRanges")
    items = listed.items() if listed else []
    if listed is not None and items and kind is not ServiceType.LOAD_BALANCER:
        listed.mistake("needs the type LoadBalancer")
        return ()
    # Spaces around a range are old custom.
    found = [read_prefix(replace(item, value=_stripped(item.value))) for item in items]
    return tuple(prefix for prefix in found if prefix is not None)


def _stripped(value: Value) -> Value:
    return value.strip() if isinstance(value, str) else value


def _balancer(status: Reader | None) -> tuple[bytes, ...]:
    """Addresses of status.loadBalancer.ingress; names there are for DNS, not for packets."""
    if status is None or not status.has_fields(SERVICE_STATUS):
        return ()
    balancer = status.get("loadBalancer")
    if balancer is None or not balancer.has_fields(("ingress",)):
        return ()
    listed, found = balancer.get("ingress"), []
    for item in listed.items() if listed else []:
        if not item.has_fields(INGRESS):
            continue
        address, mode = item.get("ip"), item.get("ipMode")
        # Proxy: the balancer sends to node ports, and its own address is for it alone.
        by_proxy = mode is not None and mode.choice(("VIP", "Proxy")) == "Proxy"
        value = read_address(address) if address else None
        found += [value] if value is not None and not by_proxy else []
    return tuple(dict.fromkeys(found))


def _balancer_ips(spec: Reader, kind: ServiceType, given: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Those of the status, else the one that is asked for: nobody else gives any."""
    for field in ("loadBalancerClass", "loadBalancerIP"):
        word = spec.get(field)
        if word is not None and word.text() and kind is not ServiceType.LOAD_BALANCER:
            word.mistake("needs the type LoadBalancer")
    ports = spec.get("allocateLoadBalancerNodePorts")
    if ports is not None and ports.boolean() is False:
        ports.ignore("is not supported: ports of the nodes are always chosen; leave it out")
    if kind is not ServiceType.LOAD_BALANCER:
        return ()
    wanted = spec.get("loadBalancerIP")
    address = read_address(wanted) if wanted and wanted.value != "" and not given else None
    return given or ((address,) if address is not None else ())


def _distribution(spec: Reader, annotations: Pairs) -> Distribution:
    given = spec.get("trafficDistribution")
    word = given.choice(tuple(DISTRIBUTIONS)) if given else None
    if dict(annotations).get(TOPOLOGY_MODE) in ("Auto", "auto"):
        return Distribution.SAME_ZONE
    return DISTRIBUTIONS[word] if word else Distribution.ANY


def _external_name(spec: Reader, kind: ServiceType) -> str:
    if kind is not ServiceType.EXTERNAL_NAME:
        # Also the API takes it elsewhere and does nothing with it.
        return ""
    given = spec.require("externalName")
    text = given.text(lambda name: names.dns_subdomain_mistake(name.rstrip("."))) if given else None
    return (text or "").rstrip(".")
