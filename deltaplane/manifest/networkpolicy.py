"""NetworkPolicy v1: the rules of the Kubernetes API server, field by field."""

from collections.abc import Callable

from deltaplane.manifest.reading import Reader
from deltaplane.model import names
from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.model.policy import IPBlock, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from deltaplane.model.ports import MAX_PORT, TRANSPORTS, Protocol
from deltaplane.model.selector import LabelSelector, Operator, Requirement

PROTOCOLS = tuple(protocol.name for protocol in TRANSPORTS)
POLICY_TYPES = ("Ingress", "Egress")
BLOCK = ("cidr", "except")
"""Fields of an ipBlock."""


def read_policy(spec: Reader, namespace: str, name: str, *, audit: bool = False) -> NetworkPolicy:
    """Reads the spec; what is wrong in it is reported and left out."""
    spec.has_fields(("podSelector", "ingress", "egress", "policyTypes"))
    pods = spec.get("podSelector")
    ingress = _rules(spec.get("ingress"), "from")
    egress = _rules(spec.get("egress"), "to")
    types = _policy_types(spec.get("policyTypes"))
    if not types:
        # The API's default: egress counts only if something is said about it.
        types = {"Ingress", "Egress"} if egress else {"Ingress"}
    return NetworkPolicy(
        namespace=namespace,
        name=name,
        pod_selector=read_selector(pods) if pods else LabelSelector(),
        applies_to_ingress="Ingress" in types,
        applies_to_egress="Egress" in types,
        ingress=ingress,
        egress=egress,
        audit=audit,
    )


def read_selector(reader: Reader) -> LabelSelector:
    """Reads a label selector; an empty one matches everything."""
    if not reader.has_fields(("matchLabels", "matchExpressions")):
        return LabelSelector()
    requirements: list[Requirement] = []
    if pairs := reader.get("matchLabels"):
        requirements.extend(LabelSelector.of(dict(pairs.labels())).requirements)
    if expressions := reader.get("matchExpressions"):
        found = (read_requirement(item) for item in expressions.items())
        requirements.extend(requirement for requirement in found if requirement is not None)
    return LabelSelector(tuple(requirements))


def read_protocol(reader: Reader | None) -> Protocol:
    """Reads a protocol; TCP when it is absent."""
    word = reader.choice(PROTOCOLS) if reader else None
    return Protocol[word] if word else Protocol.TCP


def read_requirement(
    reader: Reader, key_mistake: Callable[[str], str | None] = names.label_key_mistake
) -> Requirement | None:
    """Reads an item of matchExpressions; None if it has a mistake."""
    if not reader.has_fields(("key", "operator", "values")):
        return None
    key, word = reader.require("key"), reader.require("operator")
    name = key.text(key_mistake) if key else None
    operator = word.choice([operator.value for operator in Operator]) if word else None
    listed = reader.get("values")
    texts = [item.text(names.label_value_mistake) for item in listed.items()] if listed else []
    if operator in ("In", "NotIn") and not texts:
        reader.mistake(f"must list at least one value when operator is {operator}", field="values")
        return None
    if operator in ("Exists", "DoesNotExist") and texts:
        reader.mistake(f"must be absent when operator is {operator}", field="values")
        return None
    values = tuple(text for text in texts if text is not None)
    if name is None or operator is None or len(values) != len(texts):
        return None
    return Requirement(name, Operator(operator), values)


def _policy_types(reader: Reader | None) -> set[str]:
    if reader is None:
        return set()
    words = [item.choice(POLICY_TYPES) for item in reader.items()]
    if len(words) > len(POLICY_TYPES):
        reader.mistake(f"has {len(words)} items; at most {len(POLICY_TYPES)} are possible")
    return {word for word in words if word is not None}


def _rules(reader: Reader | None, peers_field: str) -> tuple[PolicyRule, ...]:
    if reader is None:
        return ()
    return tuple(_rule(item, peers_field) for item in reader.items())


def _rule(reader: Reader, peers_field: str) -> PolicyRule:
    reader.has_fields((peers_field, "ports"))
    peers, ports = reader.get(peers_field), reader.get("ports")
    found_peers = [_peer(item) for item in peers.items()] if peers else []
    found_ports = [_port(item) for item in ports.items()] if ports else []
    return PolicyRule(
        peers=tuple(peer for peer in found_peers if peer is not None),
        ports=tuple(port for port in found_ports if port is not None),
    )


def _peer(reader: Reader) -> PolicyPeer | None:
    if not reader.has_fields(("podSelector", "namespaceSelector", "ipBlock")):
        return None
    pods, namespaces = reader.get("podSelector"), reader.get("namespaceSelector")
    block = reader.get("ipBlock")
    if block is not None and (pods is not None or namespaces is not None):
        reader.mistake("ipBlock stands alone; move the selectors to a peer of their own")
    if block is None and pods is None and namespaces is None:
        reader.mistake("must name a peer: podSelector, namespaceSelector, both, or ipBlock")
        return None
    pod_selector = read_selector(pods) if pods else None
    namespace_selector = read_selector(namespaces) if namespaces else None
    if block is not None:
        addresses = read_block(block) if block.has_fields(BLOCK) else None
        return PolicyPeer(ip_block=addresses) if addresses else None
    return PolicyPeer(pod_selector=pod_selector, namespace_selector=namespace_selector)


def read_block(reader: Reader) -> IPBlock | None:
    """Reads the fields BLOCK of a mapping; None if cidr has a mistake."""
    given, holes = reader.require("cidr"), reader.get("except")
    cidr = read_prefix(given) if given else None
    kept: list[Prefix] = []
    for item in holes.items() if holes else []:
        hole = read_prefix(item)
        if hole is None or cidr is None:
            continue
        if not cidr.contains(hole) or hole.length == cidr.length:
            item.mistake(f"{hole} must lie inside cidr {cidr} and be smaller")
        else:
            kept.append(hole)
    return IPBlock(cidr, tuple(kept)) if cidr else None


def read_prefix(reader: Reader) -> Prefix | None:
    """Reads an address and a length. Like the API, clears the bits behind the length."""
    text = reader.text()
    if text is None:
        return None
    complaint = f'"{text}" is no address prefix such as 10.9.8.0/24 or 2001:db8::/64'
    address_text, _, length_text = text.partition("/")
    try:
        address = parse_address(address_text)
    except ValueError as error:
        reader.mistake(f"{complaint}: {error}")
        return None
    bits = len(address) * 8
    if length_text not in map(str, range(bits + 1)):
        reader.mistake(f"{complaint}: the length must be 0 to {bits}")
        return None
    length = int(length_text)
    free = bits - length
    network = int.from_bytes(address) >> free << free
    return Prefix(network.to_bytes(len(address)), length)


def _port(reader: Reader) -> PolicyPort | None:
    if not reader.has_fields(("protocol", "port", "endPort")):
        return None
    protocol = read_protocol(reader.get("protocol"))
    port, last = reader.get("port"), reader.get("endPort")
    end_port = last.integer(1, MAX_PORT) if last else None
    if last is not None and port is None:
        last.mistake("needs a port to start from")
        return None
    if port is None:
        return PolicyPort(protocol=protocol)
    if isinstance(port.value, str):
        name = port.text(names.port_name_mistake)
        if last is not None:
            last.mistake("cannot be combined with a named port; give the number")
        return PolicyPort(protocol=protocol, port=name) if name else None
    number = port.integer(1, MAX_PORT)
    if last is not None and end_port is not None and number is not None and end_port < number:
        last.mistake(f"{end_port} is below port {number}; the range would be empty")
        return None
    return PolicyPort(protocol=protocol, port=number, end_port=end_port) if number else None
