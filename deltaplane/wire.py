"""Conversions between the values of `deltaplane.model` and their messages in `deltaplane.v1`.

Every `…_from_proto` checks what it reads: it takes a message from a stranger and the path at which
the message lies in the request ("" at the top), and raises `deltaplane.errors.Invalid` with the
path of the first wrong field.
"""

from collections.abc import Callable, Iterable, Mapping

from deltaplane.errors import Invalid
from deltaplane.model import names
from deltaplane.model.addresses import V4_MAPPED, AddressPair, Prefix
from deltaplane.model.identity import Identity, LabelSet
from deltaplane.model.policy import IPBlock, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from deltaplane.model.ports import MAX_PORT, NamedPort, Protocol
from deltaplane.model.selector import LabelSelector, Operator, Requirement
from deltaplane.v1 import common_pb2, policy_pb2, registry_pb2

_PROTOCOL_TO_PROTO = {
    Protocol.TCP: common_pb2.PROTOCOL_TCP,
    Protocol.UDP: common_pb2.PROTOCOL_UDP,
    Protocol.SCTP: common_pb2.PROTOCOL_SCTP,
}
_PROTOCOL_FROM_PROTO = {number: protocol for protocol, number in _PROTOCOL_TO_PROTO.items()}
_OPERATOR_TO_PROTO = {
    Operator.IN: common_pb2.LabelRequirement.OPERATOR_IN,
    Operator.NOT_IN: common_pb2.LabelRequirement.OPERATOR_NOT_IN,
    Operator.EXISTS: common_pb2.LabelRequirement.OPERATOR_EXISTS,
    Operator.DOES_NOT_EXIST: common_pb2.LabelRequirement.OPERATOR_DOES_NOT_EXIST,
}
_OPERATOR_FROM_PROTO = {number: operator for operator, number in _OPERATOR_TO_PROTO.items()}


def join(path: str, name: str) -> str:
    """The path of a field of the object at a path; the object at the top has the path ""."""
    return f"{path}.{name}" if path else name


def protocol_to_proto(protocol: Protocol) -> common_pb2.Protocol.ValueType:
    """Never PROTOCOL_UNSPECIFIED."""
    return _PROTOCOL_TO_PROTO[protocol]


def protocol_from_proto(number: int, path: str = "protocol") -> Protocol:
    """Refuses PROTOCOL_UNSPECIFIED and numbers that the enum does not have.

    Raises:
        Invalid: the number is none of TCP, UDP and SCTP.
    """
    protocol = _PROTOCOL_FROM_PROTO.get(common_pb2.Protocol.ValueType(number))
    if protocol is None:
        raise Invalid(path, f"{number} is none of PROTOCOL_TCP, PROTOCOL_UDP and PROTOCOL_SCTP")
    return protocol


def named_port_to_proto(port: NamedPort) -> common_pb2.NamedPort:
    """Message of a named container port."""
    return common_pb2.NamedPort(
        name=port.name, protocol=protocol_to_proto(port.protocol), number=port.number
    )


def named_port_from_proto(message: common_pb2.NamedPort, path: str = "") -> NamedPort:
    """Reads a named container port.

    Raises:
        Invalid: the name, protocol or number is not possible.
    """
    check_name(message.name, join(path, "name"), names.port_name_mistake)
    protocol = protocol_from_proto(message.protocol, join(path, "protocol"))
    try:
        return NamedPort(message.name, protocol, message.number)
    except ValueError as error:
        raise Invalid(join(path, "number"), str(error)) from error


def prefix_to_proto(prefix: Prefix) -> common_pb2.Prefix:
    """Message of a prefix."""
    return common_pb2.Prefix(address=prefix.address, length=prefix.length)


def prefix_from_proto(message: common_pb2.Prefix, path: str = "") -> Prefix:
    """Reads a prefix.

    Raises:
        Invalid: wrong size or length, host bits, or IPv4 written as IPv4-mapped IPv6.
    """
    _refuse_mapped(message.address, join(path, "address"))
    try:
        return Prefix(message.address, message.length)
    except ValueError as error:
        raise Invalid(path, str(error)) from error


def address_pair_to_proto(pair: AddressPair) -> common_pb2.AddressPair:
    """Message of a pair of addresses; an absent one is empty."""
    return common_pb2.AddressPair(ipv4=pair.ipv4 or b"", ipv6=pair.ipv6 or b"")


def address_pair_from_proto(message: common_pb2.AddressPair, path: str = "") -> AddressPair:
    """Reads a pair of addresses.

    Raises:
        Invalid: both are empty, one has the wrong size, or the IPv6 one is IPv4-mapped.
    """
    _refuse_mapped(message.ipv6, join(path, "ipv6"))
    try:
        return AddressPair(ipv4=message.ipv4 or None, ipv6=message.ipv6 or None)
    except ValueError as error:
        raise Invalid(path, str(error)) from error


def label_selector_to_proto(selector: LabelSelector) -> common_pb2.LabelSelector:
    """Message of a selector: single-value In requirements as match_labels, as people write them."""
    message = common_pb2.LabelSelector()
    for requirement in selector.requirements:
        is_pair = requirement.operator is Operator.IN and len(requirement.values) == 1
        if is_pair and requirement.key not in message.match_labels:
            message.match_labels[requirement.key] = requirement.values[0]
        else:
            message.match_expressions.add(
                key=requirement.key,
                operator=_OPERATOR_TO_PROTO[requirement.operator],
                values=requirement.values,
            )
    return message


def label_selector_from_proto(message: common_pb2.LabelSelector, path: str = "") -> LabelSelector:
    """Reads a selector.

    Raises:
        Invalid: a key, operator or value is not possible.
    """
    check_labels(message.match_labels, join(path, "match_labels"))
    requirements = [
        _requirement_from_proto(expression, f"{join(path, 'match_expressions')}[{index}]")
        for index, expression in enumerate(message.match_expressions)
    ]
    pairs = LabelSelector.of(message.match_labels).requirements
    return LabelSelector((*pairs, *requirements))


def network_policy_to_proto(policy: NetworkPolicy) -> policy_pb2.NetworkPolicy:
    """Message of a policy, without traceparent and meta."""
    return policy_pb2.NetworkPolicy(
        namespace=policy.namespace,
        name=policy.name,
        pod_selector=label_selector_to_proto(policy.pod_selector),
        applies_to_ingress=policy.applies_to_ingress,
        applies_to_egress=policy.applies_to_egress,
        ingress=[_rule_to_proto(rule) for rule in policy.ingress],
        egress=[_rule_to_proto(rule) for rule in policy.egress],
        audit=policy.audit,
    )


def network_policy_from_proto(message: policy_pb2.NetworkPolicy, path: str = "") -> NetworkPolicy:
    """Reads a policy; traceparent and meta are left to the caller.

    Raises:
        Invalid: the policy is one that the Kubernetes API would refuse, or applies to no direction.
    """
    check_name(message.namespace, join(path, "namespace"), names.dns_label_mistake)
    check_name(message.name, join(path, "name"), names.dns_subdomain_mistake)
    if not (message.applies_to_ingress or message.applies_to_egress):
        raise Invalid(
            join(path, "applies_to_ingress"), "a policy applies to ingress, egress or both"
        )
    return NetworkPolicy(
        namespace=message.namespace,
        name=message.name,
        pod_selector=label_selector_from_proto(message.pod_selector, join(path, "pod_selector")),
        applies_to_ingress=message.applies_to_ingress,
        applies_to_egress=message.applies_to_egress,
        ingress=_rules_from_proto(message.ingress, join(path, "ingress")),
        egress=_rules_from_proto(message.egress, join(path, "egress")),
        audit=message.audit,
    )


def ip_block_to_proto(block: IPBlock) -> policy_pb2.IPBlock:
    """Message of addresses of a prefix but for exceptions."""
    message = policy_pb2.IPBlock(cidr=prefix_to_proto(block.cidr))
    getattr(message, "except").extend(prefix_to_proto(hole) for hole in block.except_)
    return message


def ip_block_from_proto(message: policy_pb2.IPBlock, path: str = "") -> IPBlock:
    """Reads addresses of a prefix but for exceptions.

    Raises:
        Invalid: a prefix is not possible, or an exception is not a strict part.
    """
    cidr = prefix_from_proto(message.cidr, join(path, "cidr"))
    holes = tuple(
        prefix_from_proto(hole, f"{join(path, 'except')}[{index}]")
        for index, hole in enumerate(getattr(message, "except"))
    )
    try:
        return IPBlock(cidr, holes)
    except ValueError as error:
        raise Invalid(join(path, "except"), str(error)) from error


def identity_to_proto(identity: Identity) -> registry_pb2.Identity:
    """Record of an identity, without meta."""
    return registry_pb2.Identity(
        id=identity.id,
        namespace=identity.label_set.namespace,
        namespace_labels=dict(identity.label_set.namespace_labels),
        labels=dict(identity.label_set.labels),
        named_ports=[named_port_to_proto(port) for port in identity.label_set.named_ports],
    )


def identity_from_proto(message: registry_pb2.Identity, path: str = "") -> Identity:
    """Reads an identity.

    Raises:
        Invalid: the number is reserved, or its label set is not possible.
    """
    label_set = label_set_from_proto(message, path)
    try:
        return Identity(message.id, label_set)
    except ValueError as error:
        raise Invalid(join(path, "id"), str(error)) from error


def label_set_from_proto(message: registry_pb2.Identity, path: str = "") -> LabelSet:
    """Reads what an identity stands for and ignores its number.

    Raises:
        Invalid: the namespace, a label or a port is not possible.
    """
    check_name(message.namespace, join(path, "namespace"), names.dns_label_mistake)
    check_labels(message.namespace_labels, join(path, "namespace_labels"))
    check_labels(message.labels, join(path, "labels"))
    ports = tuple(
        named_port_from_proto(port, f"{join(path, 'named_ports')}[{index}]")
        for index, port in enumerate(message.named_ports)
    )
    return LabelSet.of(message.namespace, message.namespace_labels, message.labels, ports)


def check_labels(labels: Mapping[str, str], path: str) -> None:
    """Checks the syntax of labels.

    Raises:
        Invalid: a key or value is not possible.
    """
    for key, value in sorted(labels.items()):
        check_name(key, path, names.label_key_mistake)
        check_name(value, f"{path}[{key}]", names.label_value_mistake)


def check_name(text: str, path: str, mistake: Callable[[str], str | None]) -> None:
    """Checks a text by one of `deltaplane.model.names`.

    Raises:
        Invalid: it is misspelt.
    """
    reason = mistake(text)
    if reason is not None:
        raise Invalid(path, f'"{text}" {reason}')


def _requirement_from_proto(message: common_pb2.LabelRequirement, path: str) -> Requirement:
    check_name(message.key, join(path, "key"), names.label_key_mistake)
    operator = _OPERATOR_FROM_PROTO.get(message.operator)
    if operator is None:
        known = ", ".join(common_pb2.LabelRequirement.Operator.keys()[1:])
        raise Invalid(join(path, "operator"), f"{message.operator} is none of {known}")
    for index, value in enumerate(message.values):
        check_name(value, f"{join(path, 'values')}[{index}]", names.label_value_mistake)
    try:
        return Requirement(message.key, operator, tuple(message.values))
    except ValueError as error:
        raise Invalid(join(path, "values"), str(error)) from error


def _rule_to_proto(rule: PolicyRule) -> policy_pb2.PolicyRule:
    return policy_pb2.PolicyRule(
        peers=[_peer_to_proto(peer) for peer in rule.peers],
        ports=[_port_to_proto(port) for port in rule.ports],
    )


def _rules_from_proto(
    messages: Iterable[policy_pb2.PolicyRule], path: str
) -> tuple[PolicyRule, ...]:
    return tuple(
        PolicyRule(
            peers=tuple(
                _peer_from_proto(peer, f"{path}[{number}].peers[{index}]")
                for index, peer in enumerate(message.peers)
            ),
            ports=tuple(
                _port_from_proto(port, f"{path}[{number}].ports[{index}]")
                for index, port in enumerate(message.ports)
            ),
        )
        for number, message in enumerate(messages)
    )


def _peer_to_proto(peer: PolicyPeer) -> policy_pb2.PolicyPeer:
    message = policy_pb2.PolicyPeer()
    if peer.pod_selector is not None:
        message.pod_selector.CopyFrom(label_selector_to_proto(peer.pod_selector))
    if peer.namespace_selector is not None:
        message.namespace_selector.CopyFrom(label_selector_to_proto(peer.namespace_selector))
    if peer.ip_block is not None:
        message.ip_block.CopyFrom(ip_block_to_proto(peer.ip_block))
    return message


def _peer_from_proto(message: policy_pb2.PolicyPeer, path: str) -> PolicyPeer:
    pods = namespaces = block = None
    if message.HasField("pod_selector"):
        pods = label_selector_from_proto(message.pod_selector, join(path, "pod_selector"))
    if message.HasField("namespace_selector"):
        namespaces = label_selector_from_proto(
            message.namespace_selector, join(path, "namespace_selector")
        )
    if message.HasField("ip_block"):
        block = ip_block_from_proto(message.ip_block, join(path, "ip_block"))
    try:
        return PolicyPeer(pod_selector=pods, namespace_selector=namespaces, ip_block=block)
    except ValueError as error:
        raise Invalid(path, str(error)) from error


def _port_to_proto(port: PolicyPort) -> policy_pb2.PolicyPort:
    message = policy_pb2.PolicyPort(
        protocol=protocol_to_proto(port.protocol), end_number=port.end_port or 0
    )
    if isinstance(port.port, int):
        message.number = port.port
    elif port.port is not None:
        message.name = port.port
    return message


def _port_from_proto(message: policy_pb2.PolicyPort, path: str) -> PolicyPort:
    protocol = protocol_from_proto(message.protocol, join(path, "protocol"))
    port: int | str | None = None
    match message.WhichOneof("port"):
        case "number":
            port = message.number
            if not 1 <= port <= MAX_PORT:
                raise Invalid(join(path, "number"), f"port {port} is outside 1..{MAX_PORT}")
        case "name":
            port = message.name
            check_name(port, join(path, "name"), names.port_name_mistake)
        case None:
            pass
    try:
        return PolicyPort(protocol=protocol, port=port, end_port=message.end_number or None)
    except ValueError as error:
        raise Invalid(join(path, "end_number"), str(error)) from error


def _refuse_mapped(address: bytes, path: str) -> None:
    """One address has one spelling; otherwise an IPv4 address could pass as another, IPv6 one."""
    if len(address) == 16 and address.startswith(V4_MAPPED):
        raise Invalid(path, "an IPv4-mapped IPv6 address is not accepted; give the 4 bytes")
