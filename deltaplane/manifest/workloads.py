"""Namespaces, pods and what owns pods: what the network needs of them, and the names of the rest.

Fields that do not concern the network are accepted by name and their content is not looked at.
"""

from dataclasses import replace

from deltaplane.manifest.fields import (
    CONTAINER,
    CONTAINER_PORT,
    DEPLOYMENT_SPEC,
    METADATA,
    POD_SPEC,
    STATEFUL_SET_SPEC,
)
from deltaplane.manifest.networkpolicy import read_protocol, read_selector
from deltaplane.manifest.objects import (
    ContainerPort,
    DeploymentManifest,
    NamespaceManifest,
    Pairs,
    PodManifest,
    PodTemplate,
    StatefulSetManifest,
)
from deltaplane.manifest.reading import Reader
from deltaplane.model import annotations as known
from deltaplane.model import names
from deltaplane.model.ports import MAX_PORT, Protocol

MAX_REPLICAS = 2**31 - 1
"""Largest value of the API's int32."""


def read_namespace(reader: Reader, name: str) -> NamespaceManifest:
    """Reads a Namespace."""
    if spec := reader.get("spec"):
        spec.has_fields(("finalizers",))
    labels, annotations = read_labels(reader.get("metadata"), of_namespace=True)
    return NamespaceManifest(name=name, labels=labels, annotations=annotations)


def read_pod(reader: Reader, namespace: str, name: str) -> PodManifest:
    """Reads a Pod."""
    template = _template(reader)
    return PodManifest(
        namespace=namespace,
        name=name,
        labels=template.labels,
        annotations=template.annotations,
        node_name=template.node_name,
        host_network=template.host_network,
        ports=template.ports,
        hostname=template.hostname,
        subdomain=template.subdomain,
    )


def read_deployment(reader: Reader, namespace: str, name: str) -> DeploymentManifest:
    """Reads a Deployment."""
    template, replicas = PodTemplate(), 1
    spec = reader.require("spec")
    if spec is not None and spec.has_fields(DEPLOYMENT_SPEC):
        template, replicas = _replicated(spec, "deployment")
    return DeploymentManifest(namespace=namespace, name=name, replicas=replicas, template=template)


def read_stateful_set(reader: Reader, namespace: str, name: str) -> StatefulSetManifest:
    """Reads a StatefulSet."""
    template, replicas, first, service = PodTemplate(), 1, 0, ""
    spec = reader.require("spec")
    if spec is not None and spec.has_fields(STATEFUL_SET_SPEC):
        template, replicas = _replicated(spec, "stateful set")
        # The API wants the field and takes an empty one; without it DNS knows no pod by its name.
        governing, ordinals = spec.get("serviceName"), spec.get("ordinals")
        if governing is not None and governing.value != "":
            service = governing.text(names.service_name_mistake) or ""
        if ordinals is not None and ordinals.has_fields(("start",)) and ordinals.get("start"):
            start = ordinals.get("start")
            first = (start.integer(0, MAX_REPLICAS) or 0) if start else 0
    return StatefulSetManifest(
        namespace=namespace,
        name=name,
        replicas=replicas,
        first=first,
        template=replace(template, subdomain=service),
    )


def _replicated(spec: Reader, owner: str) -> tuple[PodTemplate, int]:
    """Template and replicas of what owns pods."""
    template, replicas = PodTemplate(), 1
    if count := spec.get("replicas"):
        replicas = count.integer(0, MAX_REPLICAS) or 0
    selector, given = spec.require("selector"), spec.require("template")
    if given is not None and given.has_fields(("metadata", "spec")):
        if metadata := given.get("metadata"):
            metadata.has_fields(METADATA)
        template = _template(given)
        _check_addresses(given, template, replicas)
    if selector is not None:
        _check_selector(selector, template, owner)
    return template, replicas


def read_labels(metadata: Reader | None, *, of_namespace: bool = False) -> tuple[Pairs, Pairs]:
    """Labels and annotations of an object's metadata."""
    labels = metadata.get("labels") if metadata else None
    annotations = metadata.get("annotations") if metadata else None
    pairs = annotations.annotations() if annotations else ()
    for key, text in pairs:
        if annotations and (reason := known.mistake(key, text, of_namespace=of_namespace)):
            annotations.mistake(f'"{text}" {reason}', field=key)
    return labels.labels() if labels else (), pairs


def read_audit(metadata: Reader | None) -> bool:
    """Whether an annotation of a policy puts it under audit."""
    annotations = metadata.get("annotations") if metadata else None
    given = annotations.get(known.AUDIT) if annotations else None
    if given is None or not isinstance(given.value, str):
        # What is no text is a mistake that `read_labels` reports.
        return False
    if reason := known.audit_mistake(given.value):
        given.mistake(f'"{given.value}" {reason}')
    return given.value == "true"


def _check_addresses(template: Reader, read: PodTemplate, replicas: int) -> None:
    """One address cannot be that of several pods."""
    fixed = dict(read.annotations).get(known.IP_ADDRESSES)
    metadata = template.get("metadata")
    annotations = metadata.get("annotations") if metadata else None
    if fixed is not None and replicas > 1 and annotations:
        annotations.mistake(
            f'"{fixed}" would be asked for by each of the {replicas} replicas; set replicas to 1, '
            "or write one Pod for each address",
            field=known.IP_ADDRESSES,
        )


def _check_selector(selector: Reader, template: PodTemplate, owner: str) -> None:
    wanted = read_selector(selector)
    if not wanted.requirements:
        selector.mistake(f"must not be empty: the {owner} would own every pod")
    elif not wanted.matches(dict(template.labels)):
        selector.mistake("must match the labels of spec.template")


def _template(reader: Reader) -> PodTemplate:
    labels, annotations = read_labels(reader.get("metadata"))
    spec = reader.require("spec")
    if spec is None or not spec.has_fields(POD_SPEC):
        return PodTemplate(labels=labels, annotations=annotations)
    node, host_network = spec.get("nodeName"), spec.get("hostNetwork")
    return PodTemplate(
        labels=labels,
        annotations=annotations,
        node_name=node.text(names.dns_subdomain_mistake) if node else None,
        host_network=bool(host_network.boolean()) if host_network else False,
        ports=_ports(spec),
        hostname=_label(spec.get("hostname")),
        subdomain=_label(spec.get("subdomain")),
    )


def _label(given: Reader | None) -> str:
    if given is None or given.value == "":
        return ""
    return given.text(names.dns_label_mistake) or ""


def _ports(spec: Reader) -> tuple[ContainerPort, ...]:
    containers = spec.require("containers")
    regular = containers.items() if containers else []
    if containers is not None and containers.value == []:
        containers.mistake("must hold at least one container")
    initial = spec.get("initContainers")
    early = initial.items() if initial else []
    ports: list[ContainerPort] = []
    seen: set[str] = set()
    for container in (*regular, *early):
        found = _container(container, seen)
        # An init container serves only if it stays, as a sidecar.
        if container not in early or _stays(container):
            ports.extend(found)
    return tuple(ports)


def _stays(container: Reader) -> bool:
    policy = container.get("restartPolicy")
    return policy is not None and policy.value == "Always"


def _container(reader: Reader, seen: set[str]) -> list[ContainerPort]:
    if not reader.has_fields(CONTAINER):
        return []
    name = reader.require("name")
    text = name.text(names.dns_label_mistake) if name else None
    if name is not None and text is not None:
        if text in seen:
            name.mistake(f'another container is called "{text}", too')
        seen.add(text)
    listed = reader.get("ports")
    found: list[ContainerPort] = []
    for item in listed.items() if listed else []:
        port = _port(item)
        if port is None:
            continue
        if port.name and any(other.name == port.name for other in found):
            item.mistake(f'another port of this container is called "{port.name}"', field="name")
        found.append(port)
    return found


def _port(reader: Reader) -> ContainerPort | None:
    if not reader.has_fields(CONTAINER_PORT):
        return None
    number, name = reader.require("containerPort"), reader.get("name")
    if host_port := reader.get("hostPort"):
        host_port.integer(1, MAX_PORT)
    protocol: Protocol = read_protocol(reader.get("protocol"))
    text = name.text(names.port_name_mistake) if name else None
    value = number.integer(1, MAX_PORT) if number else None
    return ContainerPort(number=value, protocol=protocol, name=text) if value else None
