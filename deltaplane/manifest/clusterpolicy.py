"""ClusterNetworkPolicy, and AdminNetworkPolicy and BaselineAdminNetworkPolicy, its predecessors.

The rules are those of the Kubernetes network-policy API (kubernetes-sigs/network-policy-api, API
group policy.networking.k8s.io). What is not supported is refused by the name of its field.
docs/reference/policies-cluster.md lists all fields.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from deltaplane.manifest.networkpolicy import read_prefix, read_protocol, read_selector
from deltaplane.manifest.objects import GeneralPolicyManifest
from deltaplane.manifest.reading import Reader
from deltaplane.manifest.workloads import read_audit, read_labels
from deltaplane.model import names
from deltaplane.model.policy import IPBlock
from deltaplane.model.ports import MAX_PORT, TRANSPORTS, PortRange, Protocol, merge_ranges
from deltaplane.model.tiers import (
    BASELINE_NAME,
    MAX_PRIORITY,
    Action,
    Policy,
    PolicyKind,
    Rule,
    Selector,
    Tier,
)

MAX_RULE_NAME = 100
"""Characters."""
MAX_NETWORKS = 25
MAX_NETWORK = 43
"""Characters: an IPv6 address, a slash and three digits."""

_TIERS = {"Admin": Tier.ADMIN, "Baseline": Tier.BASELINE}
_REFUSED = {
    "nodes": "nodes have no labels here; write their addresses as networks",
    "domainNames": "nobody follows names to addresses here; write the addresses as networks",
}

Port = PortRange | str
"""A range, or the name of a port of any transport protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dialect:
    """How one of the kinds is written.

    Attributes:
        tier: of all its policies; None: the spec says.
        has_priority: the spec says; else it is 0.
        actions: by their words.
        limit: of rules of a direction, of peers and of ports of a rule.
        ports: the field of a rule that names ports.
        read_port: reads an item of that field.
        needs_namespaces: `pods` must have a namespaceSelector; else an absent one is empty.
    """

    tier: Tier | None
    has_priority: bool
    actions: Mapping[str, Action]
    limit: int
    ports: str
    read_port: Callable[[Reader], Port | None]
    needs_namespaces: bool


def read_cluster_policy(reader: Reader, kind: PolicyKind, name: str) -> GeneralPolicyManifest:
    """Reads an object of one of the three kinds; what is wrong is reported and left out."""
    metadata = reader.get("metadata")
    # Checked, then dropped: nothing selects policies.
    read_labels(metadata)
    dialect = _DIALECTS[kind]
    spec = reader.require("spec") or Reader({}, "spec", _ignore)
    fields = ["subject", "ingress", "egress"]
    fields += ["tier"] if dialect.tier is None else []
    fields += ["priority"] if dialect.has_priority else []
    spec.has_fields(fields)
    policy = Policy(
        kind=kind,
        namespace="",
        name=name,
        subject=_subject(spec.require("subject"), dialect),
        tier=dialect.tier or _tier(spec.require("tier")),
        priority=_priority(spec.require("priority")) if dialect.has_priority else 0,
        audit=read_audit(metadata),
        ingress=_rules(spec.get("ingress"), "from", dialect),
        egress=_rules(spec.get("egress"), "to", dialect),
    )
    return GeneralPolicyManifest(policy=policy, spec=json.dumps(spec.value))


def baseline_name_mistake(text: str) -> str | None:
    """Checks the name of a BaselineAdminNetworkPolicy."""
    if text == BASELINE_NAME:
        return None
    return f'is not possible: there is one {PolicyKind.BASELINE_ADMIN}, named "{BASELINE_NAME}"'


def _ignore(_path: str, _reason: str) -> None:
    """Takes the mistakes of a spec that is missing, which was reported."""


def _tier(reader: Reader | None) -> Tier:
    word = reader.choice(tuple(_TIERS)) if reader else None
    return _TIERS[word] if word else Tier.ADMIN


def _priority(reader: Reader | None) -> int:
    return (reader.integer(0, MAX_PRIORITY) if reader else None) or 0


def _subject(reader: Reader | None, dialect: _Dialect) -> Selector:
    word = _only_field(reader, ("namespaces", "pods")) if reader else None
    found = reader.get(word) if reader and word else None
    return _selector(found, dialect, is_pods=word == "pods") if found else Selector()


def _selector(reader: Reader, dialect: _Dialect, *, is_pods: bool) -> Selector:
    """Reads `namespaces` or `pods` of a subject or peer."""
    if not is_pods:
        return Selector(namespaces=read_selector(reader))
    if not reader.has_fields(("namespaceSelector", "podSelector")):
        return Selector()
    pods = reader.require("podSelector")
    required = reader.require if dialect.needs_namespaces else reader.get
    namespaces = required("namespaceSelector")
    found = Selector(pods=read_selector(pods)) if pods else Selector()
    if namespaces is None:
        return found
    return Selector(namespaces=read_selector(namespaces), pods=found.pods)


# --- rules ---------------------------------------------------------------------------------------


def _rules(reader: Reader | None, peers_field: str, dialect: _Dialect) -> tuple[Rule, ...]:
    items = _items(reader, dialect.limit, least=0)
    return tuple(_rule(item, peers_field, dialect) for item in items)


def _rule(reader: Reader, peers_field: str, dialect: _Dialect) -> Rule:
    if not reader.has_fields(("name", "action", peers_field, dialect.ports)):
        return Rule()
    word, label = reader.require("action"), reader.get("name")
    action = word.choice(tuple(dialect.actions)) if word else None
    name = label.text(_rule_name_mistake) if label else None
    selectors: list[Selector] = []
    blocks: list[IPBlock] = []
    for item in _items(reader.require(peers_field), dialect.limit):
        _peer(item, dialect, selectors, blocks, may_be_network=peers_field == "to")
    given = reader.get(dialect.ports)
    ports = [dialect.read_port(item) for item in _items(given, dialect.limit)]
    port_names = {port for port in ports if isinstance(port, str)}
    if blocks and port_names and peers_field == "to":
        reader.mistake("networks have no named ports; write a rule of their own, with numbers")
    return Rule(
        action=dialect.actions[action] if action else Action.DENY,
        selectors=tuple(selectors),
        blocks=tuple(blocks),
        any_port=given is None,
        ranges=merge_ranges(port for port in ports if isinstance(port, PortRange)),
        port_names=tuple(sorted((name, p) for name in port_names for p in TRANSPORTS)),
        name=name or "",
    )


def _peer(
    reader: Reader,
    dialect: _Dialect,
    selectors: list[Selector],
    blocks: list[IPBlock],
    *,
    may_be_network: bool,
) -> None:
    """Adds a peer to one of the lists."""
    known = ["namespaces", "pods", *(("networks", *_REFUSED) if may_be_network else ())]
    word = _only_field(reader, known)
    found = reader.get(word) if word else None
    if word is None or found is None:
        return
    if word in _REFUSED:
        reader.refuse(_REFUSED)
    elif word == "networks":
        blocks += _networks(found)
    else:
        selectors.append(_selector(found, dialect, is_pods=word == "pods"))


def _networks(reader: Reader) -> list[IPBlock]:
    found: list[IPBlock] = []
    texts: set[object] = set()
    for item in _items(reader, MAX_NETWORKS):
        text = item.value
        if isinstance(text, str) and len(text) > MAX_NETWORK:
            item.mistake(f"has {len(text)} characters; at most {MAX_NETWORK} are accepted")
            continue
        prefix = read_prefix(item)
        if prefix is None:
            continue
        if text in texts:
            item.mistake(f'"{text}" is given twice')
        texts.add(text)
        found.append(IPBlock(prefix))
    return found


# --- ports ---------------------------------------------------------------------------------------


def _protocol_match(reader: Reader) -> Port | None:
    """An item of `protocols` of a ClusterNetworkPolicy."""
    transports = {protocol.name.lower(): protocol for protocol in TRANSPORTS}
    word = _only_field(reader, (*transports, "destinationNamedPort"))
    found = reader.get(word) if word else None
    if word is None or found is None:
        return None
    if word == "destinationNamedPort":
        return found.text(names.port_name_mistake)
    if not found.has_fields(("destinationPort",)):
        return None
    port = found.require("destinationPort")
    which = _only_field(port, ("number", "range")) if port else None
    given = port.get(which) if port and which else None
    if given is None:
        return None
    if which == "range":
        return _range(given, transports[word]) if given.has_fields(("start", "end")) else None
    number = given.integer(1, MAX_PORT)
    return PortRange(transports[word], number, number) if number else None


def _port_match(reader: Reader) -> Port | None:
    """An item of `ports` of the predecessors."""
    word = _only_field(reader, ("portNumber", "portRange", "namedPort"))
    found = reader.get(word) if word else None
    if found is None:
        return None
    if word == "namedPort":
        return found.text(names.port_name_mistake)
    fields = ("port",) if word == "portNumber" else ("start", "end")
    if not found.has_fields(("protocol", *fields)):
        return None
    protocol = read_protocol(found.get("protocol"))
    if word == "portRange":
        return _range(found, protocol)
    given = found.require("port")
    number = given.integer(1, MAX_PORT) if given else None
    return PortRange(protocol, number, number) if number else None


def _range(reader: Reader, protocol: Protocol) -> PortRange | None:
    start, end = reader.require("start"), reader.require("end")
    first = start.integer(1, MAX_PORT) if start else None
    last = end.integer(1, MAX_PORT) if end else None
    if first is None or last is None:
        return None
    if first >= last:
        reader.mistake(f"start {first} must be below end {last}")
        return None
    return PortRange(protocol, first, last)


# --- lists and unions ----------------------------------------------------------------------------


def _items(reader: Reader | None, limit: int, *, least: int = 1) -> list[Reader]:
    """The items of a list that the API bounds."""
    if reader is None:
        return []
    if isinstance(reader.value, list):
        if len(reader.value) < least:
            reader.mistake("must hold at least one item")
        if len(reader.value) > limit:
            reader.mistake(f"has {len(reader.value)} items; at most {limit} are possible")
    return reader.items()


def _only_field(reader: Reader, known: Collection[str]) -> str | None:
    """The field of a union that is given; None, and a mistake, unless there is exactly one."""
    if not reader.has_fields(known):
        return None
    given = [name for name in known if reader.get(name) is not None]
    if len(given) == 1:
        return given[0]
    listed = ", ".join(known)
    if given:
        reader.mistake(f"has {' and '.join(given)}; exactly one of {listed} is possible")
    elif not _has_other(reader, known):
        reader.mistake(f"must have exactly one of {listed}")
    return None


def _has_other(reader: Reader, known: Collection[str]) -> bool:
    """Whether an unknown field stands there: a misspelt one was reported, and may be the one."""
    return isinstance(reader.value, dict) and any(name not in known for name in reader.value)


def _rule_name_mistake(text: str) -> str | None:
    if len(text) <= MAX_RULE_NAME:
        return None
    return f"has {len(text)} characters; at most {MAX_RULE_NAME} are accepted"


_ADMIN = {"Allow": Action.ALLOW, "Deny": Action.DENY, "Pass": Action.PASS}
_DIALECTS = {
    PolicyKind.CLUSTER: _Dialect(
        tier=None,
        has_priority=True,
        actions={"Accept": Action.ALLOW, "Deny": Action.DENY, "Pass": Action.PASS},
        limit=25,
        ports="protocols",
        read_port=_protocol_match,
        needs_namespaces=False,
    ),
    PolicyKind.ADMIN: _Dialect(
        tier=Tier.ADMIN,
        has_priority=True,
        actions=_ADMIN,
        limit=100,
        ports="ports",
        read_port=_port_match,
        needs_namespaces=True,
    ),
    PolicyKind.BASELINE_ADMIN: _Dialect(
        tier=Tier.BASELINE,
        has_priority=False,
        actions={"Allow": Action.ALLOW, "Deny": Action.DENY},
        limit=100,
        ports="ports",
        read_port=_port_match,
        needs_namespaces=True,
    ),
}
