"""EndpointSlice of discovery.k8s.io/v1: the rules of the Kubernetes API server, field by field.

Of an endpoint with several addresses the first counts: what the others are for, the API leaves
open, and no other implementation uses them. Its zone is not read: who makes hints knows the nodes.
"""

from deltaplane.manifest.families import FAMILIES, family_of, read_address
from deltaplane.manifest.fields import OBJECT_REFERENCE, SLICE_ENDPOINT, SLICE_PORT
from deltaplane.manifest.networkpolicy import read_protocol
from deltaplane.manifest.objects import EndpointSliceManifest
from deltaplane.manifest.reading import Reader
from deltaplane.manifest.workloads import read_labels
from deltaplane.model import names
from deltaplane.model.ports import MAX_PORT
from deltaplane.model.service import EndpointSlice, SliceEndpoint, SlicePort

SERVICE_NAME = "kubernetes.io/service-name"
"""Label that says which service a slice belongs to."""
MAX_ENDPOINTS = 1000
MAX_PORTS = 20_000
MAX_ADDRESSES = 100
"""Of one endpoint."""
MAX_HINTS = 8
"""Of one kind of one endpoint."""


def read_endpoint_slice(reader: Reader, namespace: str, name: str) -> EndpointSliceManifest:
    """Reads an EndpointSlice; what is wrong in it is reported and left out."""
    labels, _ = read_labels(reader.get("metadata"))
    service = dict(labels).get(SERVICE_NAME, "")
    metadata = reader.get("metadata")
    if not service and metadata is not None:
        metadata.ignore(f"needs {SERVICE_NAME}: no service has this slice", field="labels")
    elif metadata is not None and (reason := names.service_name_mistake(service)):
        metadata.mistake(f'{SERVICE_NAME}: "{service}" {reason}', field="labels")
    kind = reader.require("addressType")
    word = kind.choice((*FAMILIES, "FQDN")) if kind else None
    if kind is not None and word == "FQDN":
        kind.ignore("FQDN is not supported: packets go to addresses")
    found = EndpointSlice(
        namespace=namespace,
        name=name,
        service=service,
        ports=_ports(reader.get("ports")),
        endpoints=_endpoints(reader.get("endpoints"), FAMILIES.get(word or "", 0)),
    )
    return EndpointSliceManifest(slice=found)


def _ports(listed: Reader | None) -> tuple[SlicePort, ...]:
    items = listed.items() if listed else []
    if listed is not None and len(items) > MAX_PORTS:
        listed.mistake(f"has {len(items)} ports; at most {MAX_PORTS} are accepted")
        return ()
    found: dict[str, SlicePort] = {}
    for item in items:
        if not item.has_fields(SLICE_PORT):
            continue
        given, number = item.get("name"), item.get("port")
        named = given is not None and given.value != ""
        text = (given.text(names.dns_label_mistake) or "") if given and named else ""
        protocol = read_protocol(item.get("protocol"))
        if text in found:
            item.mistake(f'another port is called "{text}", too', field="name")
        if number is None:
            item.ignore("is required: a port without a number is not supported", field="port")
        elif value := number.integer(1, MAX_PORT):
            found.setdefault(text, SlicePort(name=text, protocol=protocol, number=value))
    return tuple(found.values())


def _endpoints(listed: Reader | None, family: int) -> tuple[SliceEndpoint, ...]:
    """family: 4 or 6; 0: the addresses are none that a packet could go to."""
    items = listed.items() if listed else []
    if listed is not None and len(items) > MAX_ENDPOINTS:
        listed.mistake(f"has {len(items)} endpoints; at most {MAX_ENDPOINTS} are accepted")
        return ()
    if family == 0:
        return ()
    found = (_endpoint(item, family) for item in items)
    return tuple(endpoint for endpoint in found if endpoint is not None)


def _endpoint(reader: Reader, family: int) -> SliceEndpoint | None:
    if not reader.has_fields(SLICE_ENDPOINT):
        return None
    address = _address(reader, family)
    ready, serving, terminating = _conditions(reader.get("conditions"))
    zones, nodes = _hints(reader.get("hints"))
    node, hostname = reader.get("nodeName"), reader.get("hostname")
    on_node = node.text(names.dns_subdomain_mistake) if node else None
    known_as = hostname.text(names.dns_label_mistake) if hostname and hostname.value != "" else None
    target = _target(reader.get("targetRef"))
    if address is None:
        return None
    return SliceEndpoint(
        address=address,
        ready=ready,
        serving=serving,
        terminating=terminating,
        node=on_node or "",
        zones=zones,
        nodes=nodes,
        hostname=known_as or "",
        target=target,
    )


def _address(reader: Reader, family: int) -> bytes | None:
    listed = reader.require("addresses")
    items = listed.items() if listed else []
    if listed is not None and not 1 <= len(items) <= MAX_ADDRESSES:
        listed.mistake(f"must hold 1 to {MAX_ADDRESSES} addresses")
        return None
    addresses = []
    for item in items:
        address = read_address(item)
        if address is not None and family_of(address) != family:
            item.mistake(f'"{item.value}" is not of the family that addressType names')
            address = None
        addresses.append(address)
    return addresses[0] if addresses else None


def _conditions(given: Reader | None) -> tuple[bool, bool, bool]:
    """Ready, serving, terminating: absent ones are true, as ready, and false."""
    if given is None or not given.has_fields(("ready", "serving", "terminating")):
        return True, True, False
    values = {word: given.get(word) for word in ("ready", "serving", "terminating")}
    said = {word: reader.boolean() for word, reader in values.items() if reader is not None}
    ready = said.get("ready") is not False
    serving = said.get("serving")
    return ready, ready if serving is None else serving, said.get("terminating") is True


def _hints(given: Reader | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if given is None or not given.has_fields(("forZones", "forNodes")):
        return (), ()
    zones = _names(given.get("forZones"), names.label_value_mistake)
    return zones, _names(given.get("forNodes"), names.dns_subdomain_mistake)


def _names(listed: Reader | None, mistake: names.Check) -> tuple[str, ...]:
    items = listed.items() if listed else []
    if listed is not None and len(items) > MAX_HINTS:
        listed.mistake(f"has {len(items)} items; at most {MAX_HINTS} are accepted")
        return ()
    found: list[str] = []
    for item in items:
        if not item.has_fields(("name",)):
            continue
        given = item.require("name")
        text = given.text(mistake) if given else None
        if text in found:
            item.mistake(f'"{text}" is there already', field="name")
        found += [text] if text else []
    return tuple(sorted(set(found)))


def _target(given: Reader | None) -> str:
    """The pod as namespace/name; "": it is something else."""
    if given is None or not given.has_fields(OBJECT_REFERENCE):
        return ""
    said = [given.get(word) for word in ("kind", "namespace", "name")]
    kind, namespace, name = (item.text() if item else None for item in said)
    return f"{namespace}/{name}" if kind == "Pod" and namespace and name else ""
