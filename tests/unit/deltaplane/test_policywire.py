"""Policies of every kind to messages and back, and what strangers must not send."""

from collections.abc import Callable

import pytest
from hypothesis import given

from deltaplane import policywire, wire
from deltaplane.errors import Invalid
from deltaplane.model.addresses import Prefix
from deltaplane.model.identity import Reserved
from deltaplane.model.ports import PortRange, Protocol
from deltaplane.model.tiers import Policy, Tier
from deltaplane.v1 import common_pb2, policy_pb2
from tests.unit.deltaplane import general_policies

TCP, ICMP = common_pb2.PROTOCOL_TCP, common_pb2.PROTOCOL_ICMP


@given(general_policies.policies())
def test_a_policy_survives(policy: Policy) -> None:
    data = policywire.policy_to_proto(policy, '{"a": 1}').SerializeToString()
    message = policy_pb2.Policy.FromString(data)
    assert policywire.policy_from_proto(message) == policy
    assert message.manifest == '{"a": 1}'


def cluster() -> policy_pb2.Policy:
    message = policy_pb2.Policy(
        kind="ClusterNetworkPolicy", name="p", tier=policy_pb2.POLICY_TIER_ADMIN, priority=5
    )
    message.subject.SetInParent()
    rule = message.ingress.add(action=policy_pb2.RULE_ACTION_DENY)
    rule.selectors.add(namespace="shop")
    rule.blocks.add().cidr.CopyFrom(wire.prefix_to_proto(Prefix.parse("10.0.0.0/8")))
    rule.ranges.add(protocol=TCP, first=80, last=80)
    return message


def cilium() -> policy_pb2.Policy:
    message = policy_pb2.Policy(
        kind="CiliumNetworkPolicy",
        namespace="shop",
        name="p",
        tier=policy_pb2.POLICY_TIER_NORMAL,
        isolates_egress=True,
    )
    message.subject.namespace = "shop"
    message.egress.add(action=policy_pb2.RULE_ACTION_ALLOW, any_port=True, entities=[2])
    return message


def baseline() -> policy_pb2.Policy:
    message = policy_pb2.Policy(
        kind="BaselineAdminNetworkPolicy", name="default", tier=policy_pb2.POLICY_TIER_BASELINE
    )
    message.subject.SetInParent()
    message.ingress.add(action=policy_pb2.RULE_ACTION_DENY, all_peers=True, any_port=True)
    return message


def test_what_is_read_is_canonical() -> None:
    message = cluster()
    rule = message.ingress[0]
    rule.ranges.add(protocol=TCP, first=81, last=90)
    rule.entities.extend([8, 1, 8])
    rule.port_names.add(name="web", protocol=TCP)
    rule.port_names.add(name="dns", protocol=common_pb2.PROTOCOL_UDP)
    rule.port_names.add(name="web", protocol=TCP)
    read = policywire.policy_from_proto(message).ingress[0]
    assert read.ranges == (PortRange(Protocol.TCP, 80, 90),)
    assert read.entities == (Reserved.HOST, Reserved.KUBE_APISERVER)
    assert read.port_names == (("dns", Protocol.UDP), ("web", Protocol.TCP))


def test_a_tier_is_one_of_its_kind() -> None:
    message = cluster()
    message.tier = policy_pb2.POLICY_TIER_BASELINE
    assert policywire.policy_from_proto(message).tier is Tier.BASELINE


Spoil = Callable[[policy_pb2.Policy], object]
RULE = "p.ingress[0]"


@pytest.mark.parametrize(
    ("make", "spoil", "field"),
    [
        (cluster, lambda m: setattr(m, "kind", ""), "p.kind"),
        (cluster, lambda m: setattr(m, "kind", "NetworkPolicy"), "p.kind"),
        (cluster, lambda m: setattr(m, "kind", "clusternetworkpolicy"), "p.kind"),
        (cluster, lambda m: setattr(m, "namespace", "shop"), "p.namespace"),
        (cilium, lambda m: setattr(m, "namespace", ""), "p.namespace"),
        (cilium, lambda m: setattr(m, "namespace", "Shop"), "p.namespace"),
        (cluster, lambda m: setattr(m, "name", ""), "p.name"),
        (cluster, lambda m: setattr(m, "name", "a" * 254), "p.name"),
        (baseline, lambda m: setattr(m, "name", "other"), "p.name"),
        (cluster, lambda m: setattr(m, "tier", 0), "p.tier"),
        (cluster, lambda m: setattr(m, "tier", 2), "p.tier"),
        (cluster, lambda m: setattr(m, "tier", 9), "p.tier"),
        (cilium, lambda m: setattr(m, "tier", 1), "p.tier"),
        (baseline, lambda m: setattr(m, "tier", 1), "p.tier"),
        (cluster, lambda m: setattr(m, "priority", 1001), "p.priority"),
        (cilium, lambda m: setattr(m, "priority", 1), "p.priority"),
        (baseline, lambda m: setattr(m, "priority", 1), "p.priority"),
        (cluster, lambda m: setattr(m, "isolates_ingress", True), "p.isolates_ingress"),
        (cluster, lambda m: setattr(m, "isolates_egress", True), "p.isolates_egress"),
        (cluster, lambda m: m.ClearField("subject"), "p.subject"),
        (cilium, lambda m: m.subject.ClearField("namespace"), "p.subject.namespace"),
        (cilium, lambda m: setattr(m.subject, "namespace", "other"), "p.subject.namespace"),
        (cluster, lambda m: setattr(m.subject, "namespace", "A"), "p.subject.namespace"),
        (
            cluster,
            lambda m: m.subject.pods.match_labels.update({"-": ""}),
            "p.subject.pods.match_labels",
        ),
        (
            cilium,
            lambda m: m.subject.namespaces.match_labels.update({"a": "b"}),
            "p.subject.namespaces",
        ),
        (cluster, lambda m: m.ingress.extend([m.ingress[0]] * 1000), "p.ingress"),
    ],
)
def test_a_policy_is_checked(
    make: Callable[[], policy_pb2.Policy], spoil: Spoil, field: str
) -> None:
    _check(make(), spoil, field)


@pytest.mark.parametrize(
    ("make", "spoil", "field"),
    [
        (cluster, lambda r: setattr(r, "action", 0), f"{RULE}.action"),
        (cluster, lambda r: setattr(r, "action", 7), f"{RULE}.action"),
        (baseline, lambda r: setattr(r, "action", 3), f"{RULE}.action"),
        (cluster, lambda r: setattr(r, "all_peers", True), f"{RULE}.selectors"),
        (baseline, lambda r: r.entities.append(1), f"{RULE}.entities"),
        (baseline, lambda r: r.blocks.add(), f"{RULE}.blocks"),
        (cluster, lambda r: r.entities.append(0), f"{RULE}.entities[0]"),
        (cluster, lambda r: r.entities.append(9), f"{RULE}.entities[0]"),
        (cluster, lambda r: r.selectors.add(namespace="A"), f"{RULE}.selectors[1].namespace"),
        (cluster, lambda r: r.selectors.extend([r.selectors[0]] * 1000), f"{RULE}.selectors"),
        (cluster, lambda r: setattr(r.blocks[0].cidr, "length", 33), f"{RULE}.blocks[0].cidr"),
        (cluster, lambda r: r.blocks.extend([r.blocks[0]] * 1000), f"{RULE}.blocks"),
        (
            cluster,
            lambda r: getattr(r.blocks[0], "except").extend([r.blocks[0].cidr] * 1001),
            f"{RULE}.blocks[0].except",
        ),
        (
            cluster,
            lambda r: getattr(r.blocks[0], "except").append(r.blocks[0].cidr),
            f"{RULE}.blocks[0].except",
        ),
        (cluster, lambda r: setattr(r, "any_port", True), f"{RULE}.ranges"),
        (baseline, lambda r: r.port_names.add(name="web", protocol=TCP), f"{RULE}.port_names"),
        (cluster, lambda r: r.ClearField("ranges"), f"{RULE}.any_port"),
        (cluster, lambda r: setattr(r.ranges[0], "protocol", 0), f"{RULE}.ranges[0].protocol"),
        (cluster, lambda r: setattr(r.ranges[0], "protocol", 2), f"{RULE}.ranges[0].protocol"),
        (cluster, lambda r: setattr(r.ranges[0], "first", 81), f"{RULE}.ranges[0]"),
        (cluster, lambda r: setattr(r.ranges[0], "last", 65536), f"{RULE}.ranges[0]"),
        (cluster, lambda r: r.ranges.add(protocol=ICMP, last=256), f"{RULE}.ranges[1].last"),
        (cluster, lambda r: r.ranges.extend([r.ranges[0]] * 1000), f"{RULE}.ranges"),
        (
            cluster,
            lambda r: r.port_names.add(name="Web", protocol=TCP),
            f"{RULE}.port_names[0].name",
        ),
        (
            cluster,
            lambda r: r.port_names.add(name="web", protocol=ICMP),
            f"{RULE}.port_names[0].protocol",
        ),
        (cluster, lambda r: setattr(r, "name", "a" * 257), f"{RULE}.name"),
    ],
)
def test_a_rule_is_checked(
    make: Callable[[], policy_pb2.Policy],
    spoil: Callable[[policy_pb2.TierRule], object],
    field: str,
) -> None:
    _check(make(), lambda message: spoil(message.ingress[0]), field)


def test_every_icmp_type_is_one_range() -> None:
    message = cluster()
    message.ingress[0].ranges.add(protocol=ICMP, first=0, last=65535)
    assert PortRange(Protocol.ICMP) in policywire.policy_from_proto(message).ingress[0].ranges


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"a": [1, "x"]}', f'"{"a" * (262144 - 2)}"'])
def test_a_manifest_is_json(text: str) -> None:
    policywire.check_manifest(text)


@pytest.mark.parametrize("text", ["{", "a: b", f'"{"ä" * 131072}"', "[" * 100_000])
def test_a_manifest_that_is_none(text: str) -> None:
    with pytest.raises(Invalid, match="manifest"):
        policywire.check_manifest(text)


def _check(message: policy_pb2.Policy, spoil: Spoil, field: str) -> None:
    policywire.policy_from_proto(message, "p")
    spoil(message)
    with pytest.raises(Invalid) as caught:
        policywire.policy_from_proto(message, "p")
    assert caught.value.field == field
