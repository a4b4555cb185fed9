"""Wrong ways to evaluate NetworkPolicies, planted one at a time in reader, translation, compiler.

Each must fail some case of our own. A piece of source that is not there any more fails, too: then
the product has changed, and the mutant must.
"""

import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from deltaplane.manifest import networkpolicy
from deltaplane.model.selector import Requirement
from deltaplane.policy import directions, rules, translate
from deltaplane.policy.compiler import Compiler
from deltaplane.policy.index import MatchIndex


@dataclass(frozen=True, slots=True)
class Mutant:
    """owner: class or module; old, new: a piece of a function's source and what replaces it."""

    name: str
    owner: Any
    function: str
    old: str
    new: str

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Changes the function, wherever it was imported, and puts it right again."""
        real: Any = vars(self.owner)[self.function]
        source = textwrap.dedent(inspect.getsource(real))
        assert source.count(self.old) == 1, f"{self.name}: {self.old!r} is not there once"
        namespace: dict[str, Any] = {}
        code = compile(source.replace(self.old, self.new), f"<{self.name}>", "exec")
        exec(code, sys.modules[real.__module__].__dict__, namespace)  # noqa: S102
        right = real.__code__
        real.__code__ = namespace[self.function].__code__
        try:
            yield
        finally:
            real.__code__ = right


MUTANTS = (
    Mutant(
        "egress rules ignored",
        Compiler,
        "_subject_policy",
        "egress = tuple(r for r in references if self._policies[r].applies_to_egress)",
        "egress = ()",
    ),
    Mutant(
        "ingress rules ignored",
        Compiler,
        "_subject_policy",
        "ingress = tuple(r for r in references if self._policies[r].applies_to_ingress)",
        "ingress = ()",
    ),
    Mutant(
        "policyTypes defaults to Ingress only",
        networkpolicy,
        "read_policy",
        '{"Ingress", "Egress"} if egress else {"Ingress"}',
        '{"Ingress"}',
    ),
    Mutant(
        "policyTypes ignored, taken from the rule lists",
        networkpolicy,
        "read_policy",
        'types = _policy_types(spec.get("policyTypes"))',
        "types = {k for k in ('Ingress', 'Egress') if spec.get(k.lower())} or {'Ingress'}",
    ),
    Mutant(
        "podSelector-only peer matches every namespace",
        translate,
        "_selector",
        "Selector(namespace=namespace, pods=pods)",
        "Selector(pods=pods)",
    ),
    Mutant(
        "podSelector AND namespaceSelector treated as OR",
        translate,
        "_rule",
        "_selector(namespace, p) for p in rule.peers if p.ip_block is None",
        "s for p in rule.peers if p.ip_block is None for s in ("
        "(Selector(namespace=namespace, pods=p.pod_selector),"
        " Selector(namespaces=p.namespace_selector))"
        " if p.pod_selector is not None and p.namespace_selector is not None"
        " else (_selector(namespace, p),))",
    ),
    Mutant(
        "two peers ANDed",
        rules,
        "template",
        "{interned(term(selector)) for selector in rule.selectors}",
        "{interned(term(s)) for s in rule.selectors} if len(rule.selectors) < 2 else set()",
    ),
    Mutant(
        "two policies intersected instead of united",
        directions,
        "_merged",
        "for rule, found in sources.items()",
        "for rule, found in sources.items()"
        " if len({index for index, _ in found}) == sum(part.isolates for part in parts)",
    ),
    Mutant(
        "empty from/to means nobody",
        translate,
        "_rule",
        "all_peers=not rule.peers",
        "all_peers=False",
    ),
    Mutant(
        "ipBlock except ignored",
        translate,
        "_canonical",
        "IPBlock(block.cidr, tuple(sorted(set(block.except_))))",
        "IPBlock(block.cidr)",
    ),
    Mutant(
        "ipBlock never matches pods",
        translate,
        "_rule",
        "any_port=not rule.ports",
        "outside_only=True, any_port=not rule.ports",
    ),
    # The compiler knows no addresses of pods, so here it matches nobody at all.
    Mutant(
        "ipBlock never matches externals",
        translate,
        "_rule",
        "if p.ip_block is not None",
        "if False",
    ),
    Mutant(
        "selectors match externals",
        rules,
        "template",
        "entities = {int(entity) for entity in rule.entities}",
        "entities = {int(Reserved.WORLD)} if terms else set()",
    ),
    Mutant(
        "protocol ignored",
        translate,
        "_rule",
        "_range(port) for port in rule.ports if not isinstance(port.port, str)",
        "PortRange(protocol, _range(port).first, _range(port).last)"
        " for port in rule.ports if not isinstance(port.port, str) for protocol in (6, 17, 132)",
    ),
    Mutant(
        "missing protocol means any",
        networkpolicy,
        "_rule",
        "port for port in found_ports if port is not None",
        "PolicyPort(protocol=protocol, port=port.port, end_port=port.end_port)"
        " for item, port in zip(ports.items() if ports else [], found_ports) if port is not None"
        " for protocol in ([port.protocol] if item.get('protocol') else TRANSPORTS)",
    ),
    Mutant(
        "port without number means nothing",
        translate,
        "_rule",
        "for port in rule.ports if not isinstance(port.port, str)",
        "for port in rule.ports if isinstance(port.port, int)",
    ),
    Mutant(
        "endPort exclusive",
        translate,
        "_range",
        "port.end_port or port.port",
        "max(port.port, port.end_port - 1) if port.end_port else port.port",
    ),
    Mutant("endPort ignored", translate, "_range", "port.end_port or port.port", "port.port"),
    Mutant(
        "named port resolved on any pod, not the destination",
        Compiler,
        "_ingress",
        "port for port in ports if (port.name, port.protocol) in names",
        "NamedPort(*name, number) for name in sorted(names) for number in self._numbers[name]",
    ),
    Mutant(
        "named port not supported (never matches)",
        rules,
        "template",
        "port_names=tuple(sorted(set(rule.port_names)))",
        "port_names=()",
    ),
    Mutant(
        "named port ignores protocol of the container port",
        Compiler,
        "_ingress",
        "port for port in ports if (port.name, port.protocol) in names",
        "NamedPort(*name, port.number)"
        " for port in ports for name in sorted(names) if port.name == name[0]",
    ),
    Mutant(
        "NotIn needs the key to exist",
        Requirement,
        "matches",
        "labels.get(self.key) not in self.values",
        "self.key in labels and labels[self.key] not in self.values",
    ),
    Mutant(
        "Exists and DoesNotExist always true",
        Requirement,
        "matches",
        "match self.operator:",
        "if not self.values:\n        return True\n    match self.operator:",
    ),
    Mutant(
        "matchExpressions ignored",
        networkpolicy,
        "read_selector",
        'expressions := reader.get("matchExpressions")',
        "expressions := None",
    ),
    Mutant(
        "policy applies in every namespace",
        translate,
        "of_network_policy",
        "subject=Selector(namespace=policy.namespace, pods=policy.pod_selector)",
        "subject=Selector(pods=policy.pod_selector)",
    ),
    Mutant(
        "label updates not followed",
        MatchIndex,
        "add_identity",
        "self._members[term].add(identity.id)",
        "pass",
    ),
    Mutant(
        "policy updates not followed",
        Compiler,
        "set_policy",
        "elif installed.policy != policy:",
        "elif False:",
    ),
    Mutant(
        "policy deletes not followed",
        Compiler,
        "delete_policy",
        "if reference in self._policies:",
        "if False:",
    ),
    Mutant(
        "IPv6 not enforced",
        rules,
        "_rule",
        "blocks=template.blocks",
        "blocks=(*template.blocks, IPBlock(__import__('deltaplane.model.addresses',"
        " fromlist=['Prefix']).Prefix.parse('::/0')))",
    ),
)
