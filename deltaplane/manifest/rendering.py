"""Policies back to Kubernetes YAML."""

import json
from collections.abc import Iterable, Mapping

import yaml

from deltaplane.manifest.fields import API_VERSIONS
from deltaplane.model.annotations import AUDIT
from deltaplane.model.policy import IPBlock, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from deltaplane.model.selector import LabelSelector, Operator
from deltaplane.model.tiers import Policy, PolicyKind


class _Quoted(str):
    """Text that is always quoted: readers disagree on whether labels like y or 1e3 are text."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Repeats equal values instead of naming them with anchors."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the name is the library's
        """No value is written as an alias."""
        return True


_Dumper.add_representer(
    _Quoted,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style='"'),
)


def policy_to_yaml(policy: NetworkPolicy) -> str:
    """Writes a policy as one YAML document that kubectl and `parse` read as the same policy."""
    return yaml.dump(policy_to_object(policy), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def policy_to_object(policy: NetworkPolicy) -> dict[str, object]:
    """The policy as a Kubernetes object of plain values, policyTypes written out."""
    applies = {"Ingress": policy.applies_to_ingress, "Egress": policy.applies_to_egress}
    spec: dict[str, object] = {
        "podSelector": _selector(policy.pod_selector),
        "policyTypes": [name for name, applied in applies.items() if applied],
    }
    if policy.ingress:
        spec["ingress"] = [_rule(rule, "from") for rule in policy.ingress]
    if policy.egress:
        spec["egress"] = [_rule(rule, "to") for rule in policy.egress]
    metadata: dict[str, object] = {
        "name": _Quoted(policy.name),
        "namespace": _Quoted(policy.namespace),
    }
    if policy.audit:
        metadata["annotations"] = {_Quoted(AUDIT): _Quoted("true")}
    return {
        "apiVersion": API_VERSIONS[PolicyKind.NETWORK_POLICY],
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": spec,
    }


def general_policy_to_yaml(policy: Policy, spec: str) -> str:
    """Writes a policy of another kind as one YAML document; spec: as it was given, JSON."""
    shown = general_policy_to_object(policy, spec)
    return yaml.dump(shown, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def general_policy_to_object(policy: Policy, spec: str) -> dict[str, object]:
    """The policy as a Kubernetes object of plain values.

    Raises:
        ValueError: the spec is no JSON.
    """
    metadata: dict[str, object] = {"name": _Quoted(policy.name)}
    if policy.namespace:
        metadata["namespace"] = _Quoted(policy.namespace)
    if policy.audit:
        metadata["annotations"] = {_Quoted(AUDIT): _Quoted("true")}
    given = json.loads(spec)
    return {
        "apiVersion": API_VERSIONS[policy.kind],
        "kind": policy.kind.value,
        "metadata": metadata,
        "specs" if isinstance(given, list) else "spec": _quoted(given),
    }


def _quoted(value: object) -> object:
    """Plain values with every text quoted; names of fields only if they could be something else."""
    match value:
        case str():
            return _Quoted(value)
        case list():
            return [_quoted(item) for item in value]
        case dict():
            return {
                key if len(key) > 1 and key.isalpha() else _Quoted(key): _quoted(item)
                for key, item in value.items()
            }
        case _:
            return value


def _selector(selector: LabelSelector) -> dict[str, object]:
    pairs: dict[str, str] = {}
    expressions: list[Mapping[str, object]] = []
    for requirement in selector.requirements:
        key, values = _Quoted(requirement.key), [_Quoted(value) for value in requirement.values]
        is_pair = requirement.operator is Operator.IN and len(values) == 1
        if is_pair and key not in pairs:
            pairs[key] = values[0]
            continue
        expression: dict[str, object] = {"key": key, "operator": requirement.operator.value}
        expressions.append(expression | ({"values": values} if values else {}))
    shown = {"matchLabels": pairs, "matchExpressions": expressions}
    return {name: content for name, content in shown.items() if content}


def _rule(rule: PolicyRule, peers_field: str) -> dict[str, object]:
    parts: dict[str, Iterable[object]] = {
        peers_field: [_peer(peer) for peer in rule.peers],
        "ports": [_port(port) for port in rule.ports],
    }
    return {name: content for name, content in parts.items() if content}


def _peer(peer: PolicyPeer) -> dict[str, object]:
    shown: dict[str, object] = {}
    if peer.pod_selector is not None:
        shown["podSelector"] = _selector(peer.pod_selector)
    if peer.namespace_selector is not None:
        shown["namespaceSelector"] = _selector(peer.namespace_selector)
    if peer.ip_block is not None:
        shown["ipBlock"] = _ip_block(peer.ip_block)
    return shown


def _ip_block(block: IPBlock) -> dict[str, object]:
    shown: dict[str, object] = {"cidr": _Quoted(block.cidr)}
    if block.except_:
        shown["except"] = [_Quoted(hole) for hole in block.except_]
    return shown


def _port(port: PolicyPort) -> dict[str, object]:
    shown: dict[str, object] = {"protocol": port.protocol.name}
    if port.port is not None:
        shown["port"] = _Quoted(port.port) if isinstance(port.port, str) else port.port
    if port.end_port is not None:
        shown["endPort"] = port.end_port
    return shown
