"""Values to messages and back, and what strangers must not send."""

from collections.abc import Callable

import pytest
from hypothesis import given

from deltaplane import wire
from deltaplane.errors import Invalid
from deltaplane.model.addresses import AddressPair, Prefix, parse_address
from deltaplane.model.identity import Identity, LabelSet
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.ports import TRANSPORTS, NamedPort, Protocol
from deltaplane.model.selector import LabelSelector, Operator, Requirement
from deltaplane.v1 import common_pb2, policy_pb2, registry_pb2
from tests.unit.deltaplane.policy import worlds

MAPPED = bytes(10) + b"\xff\xff\x0a\x00\x00\x01"


@given(worlds.policies())
def test_a_policy_survives(policy: NetworkPolicy) -> None:
    data = wire.network_policy_to_proto(policy).SerializeToString()
    message = policy_pb2.NetworkPolicy.FromString(data)
    assert wire.network_policy_from_proto(message) == policy


@given(worlds.label_sets())
def test_an_identity_survives(label_set: LabelSet) -> None:
    identity = Identity(300, label_set)
    data = wire.identity_to_proto(identity).SerializeToString()
    message = registry_pb2.Identity.FromString(data)
    assert wire.identity_from_proto(message) == identity
    assert wire.label_set_from_proto(message) == label_set


@pytest.mark.parametrize("text", [("10.0.0.1", None), (None, "fd00::1"), ("10.0.0.1", "fd00::1")])
def test_addresses_survive(text: tuple[str | None, str | None]) -> None:
    ipv4, ipv6 = (parse_address(part) if part else None for part in text)
    pair = AddressPair(ipv4=ipv4, ipv6=ipv6)
    assert wire.address_pair_from_proto(wire.address_pair_to_proto(pair)) == pair


@pytest.mark.parametrize("text", ["0.0.0.0/0", "10.0.0.0/8", "::/0", "fd00::1/128"])
def test_a_prefix_survives(text: str) -> None:
    prefix = Prefix.parse(text)
    assert wire.prefix_from_proto(wire.prefix_to_proto(prefix)) == prefix


def test_a_second_value_for_a_key_is_not_lost() -> None:
    selector = LabelSelector(
        (Requirement("a", Operator.IN, ("b",)), Requirement("a", Operator.IN, ("c",)))
    )
    assert wire.label_selector_from_proto(wire.label_selector_to_proto(selector)) == selector


@pytest.mark.parametrize("protocol", TRANSPORTS)
def test_a_protocol_keeps_its_number(protocol: Protocol) -> None:
    assert wire.protocol_to_proto(protocol) == int(protocol)
    assert wire.protocol_from_proto(wire.protocol_to_proto(protocol)) is protocol


def policy_message() -> policy_pb2.NetworkPolicy:
    message = policy_pb2.NetworkPolicy(namespace="shop", name="p", applies_to_ingress=True)
    rule = message.ingress.add()
    rule.peers.add().ip_block.cidr.CopyFrom(wire.prefix_to_proto(Prefix.parse("10.0.0.0/8")))
    rule.ports.add(protocol=common_pb2.PROTOCOL_TCP, number=80)
    return message


Spoil = Callable[[policy_pb2.NetworkPolicy], object]


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (lambda m: setattr(m, "namespace", "Shop"), "p.namespace"),
        (lambda m: setattr(m, "name", ""), "p.name"),
        (lambda m: setattr(m, "applies_to_ingress", False), "p.applies_to_ingress"),
        (lambda m: m.pod_selector.match_labels.update({"-": ""}), "p.pod_selector.match_labels"),
        (
            lambda m: m.pod_selector.match_labels.update({"a": "-"}),
            "p.pod_selector.match_labels[a]",
        ),
        (
            lambda m: m.pod_selector.match_expressions.add(key="a"),
            "p.pod_selector.match_expressions[0].operator",
        ),
        (
            lambda m: m.pod_selector.match_expressions.add(key="a", operator=1),
            "p.pod_selector.match_expressions[0].values",
        ),
        (lambda m: m.ingress[0].peers.add(), "p.ingress[0].peers[1]"),
        (
            lambda m: m.ingress[0].peers[0].pod_selector.SetInParent(),
            "p.ingress[0].peers[0]",
        ),
        (
            lambda m: setattr(m.ingress[0].peers[0].ip_block.cidr, "length", 33),
            "p.ingress[0].peers[0].ip_block.cidr",
        ),
        (
            lambda m: (
                getattr(m.ingress[0].peers[0].ip_block, "except")
                .add()
                .CopyFrom(m.ingress[0].peers[0].ip_block.cidr)
            ),
            "p.ingress[0].peers[0].ip_block.except",
        ),
        (lambda m: setattr(m.ingress[0].ports[0], "number", 0), "p.ingress[0].ports[0].number"),
        (lambda m: setattr(m.ingress[0].ports[0], "number", 65536), "p.ingress[0].ports[0].number"),
        (lambda m: setattr(m.ingress[0].ports[0], "name", "A"), "p.ingress[0].ports[0].name"),
        (lambda m: setattr(m.ingress[0].ports[0], "protocol", 0), "p.ingress[0].ports[0].protocol"),
        (
            lambda m: setattr(m.ingress[0].ports[0], "end_number", 79),
            "p.ingress[0].ports[0].end_number",
        ),
    ],
)
def test_a_policy_that_the_api_would_refuse_is_refused(spoil: Spoil, field: str) -> None:
    message = policy_message()
    wire.network_policy_from_proto(message, "p")
    spoil(message)
    with pytest.raises(Invalid) as caught:
        wire.network_policy_from_proto(message, "p")
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: wire.protocol_from_proto(1), "protocol"),
        (lambda: wire.prefix_from_proto(common_pb2.Prefix(address=b"\n\0\0\1", length=8)), ""),
        (lambda: wire.prefix_from_proto(common_pb2.Prefix(address=MAPPED, length=128)), "address"),
        (lambda: wire.address_pair_from_proto(common_pb2.AddressPair()), ""),
        (lambda: wire.address_pair_from_proto(common_pb2.AddressPair(ipv4=bytes(16))), ""),
        (lambda: wire.address_pair_from_proto(common_pb2.AddressPair(ipv6=MAPPED)), "ipv6"),
        (
            lambda: wire.named_port_from_proto(
                common_pb2.NamedPort(name="http", protocol=common_pb2.PROTOCOL_TCP)
            ),
            "number",
        ),
        (lambda: wire.identity_from_proto(registry_pb2.Identity(id=8, namespace="a")), "id"),
        (
            lambda: wire.label_set_from_proto(
                registry_pb2.Identity(namespace="a", named_ports=[common_pb2.NamedPort()])
            ),
            "named_ports[0].name",
        ),
    ],
)
def test_a_value_that_cannot_be_is_refused(call: Callable[[], object], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        call()
    assert caught.value.field == field


def test_a_named_port_survives() -> None:
    port = NamedPort("http", Protocol.TCP, 80)
    assert wire.named_port_from_proto(wire.named_port_to_proto(port)) == port
