"""One policy in terms of peer sets: templates, and the rules that follow from them for a subject.

Named ports are the reason for two steps. On ingress a name is a port of the subject, so a template
gives different rules for subjects with different ports. On egress it is a port of each destination,
so a template's peer sets are divided by the number that the name has there.

Rules are made without sources here: `deltaplane.policy.directions` adds them.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from deltaplane.model.identity import Reserved
from deltaplane.model.objects import DirectionRule
from deltaplane.model.policy import IPBlock
from deltaplane.model.ports import NamedPort, PortRange, Protocol, merge_ranges
from deltaplane.model.tiers import Action, Policy, Rule, Selector, Tier
from deltaplane.policy.terms import ANY_POD, Term

PortName = tuple[str, Protocol]
"""A named port as a rule gives it."""


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class Template:
    """A rule of a policy with its named ports unresolved.

    Attributes:
        tier: tier of the policy.
        action: what becomes of what matches.
        audit: the policy is under audit.
        all_peers: every peer; terms, blocks and entities are empty then.
        terms: peers by selector, ascending by key; none that matches every pod.
        blocks: peers by address, ascending.
        entities: reserved identities, ascending; OTHER_POD stands for every pod, and no terms are
            left beside it.
        outside_only: blocks match only addresses of no pod and no node.
        any_port: every port of every protocol; ranges and port_names are empty then.
        ranges: ports by number, ascending, neither overlapping nor adjacent.
        port_names: ports by name, ascending.
    """

    tier: Tier
    action: Action
    audit: bool
    all_peers: bool
    terms: tuple[Term, ...]
    blocks: tuple[IPBlock, ...]
    entities: tuple[int, ...]
    outside_only: bool
    any_port: bool
    ranges: tuple[PortRange, ...]
    port_names: tuple[PortName, ...]

    @property
    def named_terms(self) -> tuple[Term, ...]:
        """The terms that an egress rule with a port name divides by the destination's port."""
        if not self.port_names:
            return ()
        every_pod = self.all_peers or Reserved.OTHER_POD in self.entities
        return (ANY_POD,) if every_pod else self.terms


def term(selector: Selector) -> Term:
    """The identities that a selector matches."""
    return Term(selector.namespace, selector.namespaces, selector.pods)


def template(policy: Policy, rule: Rule, interned: Callable[[Term], Term]) -> Template:
    """A rule of a policy. interned: finds the term to use for one that equals it."""
    terms = {interned(term(selector)) for selector in rule.selectors}
    entities = {int(entity) for entity in rule.entities}
    if any(item.matches_every_pod for item in terms):
        # As a peer set it would list every identity, and each node would be told of every pod.
        entities.add(int(Reserved.OTHER_POD))
    if Reserved.OTHER_POD in entities:
        terms = set()
    blocks = {IPBlock(b.cidr, tuple(sorted(set(b.except_)))) for b in rule.blocks}
    return Template(
        tier=policy.tier,
        action=rule.action,
        audit=policy.audit,
        all_peers=rule.all_peers,
        terms=() if rule.all_peers else tuple(sorted(terms, key=lambda item: item.key)),
        blocks=tuple(sorted(blocks, key=lambda block: (block.cidr, block.except_))),
        entities=tuple(sorted(entities)),
        outside_only=rule.outside_only and bool(blocks),
        any_port=rule.any_port,
        ranges=merge_ranges(rule.ranges),
        port_names=tuple(sorted(set(rule.port_names))),
    )


def ingress_rule(template: Template, ports: Iterable[NamedPort]) -> DirectionRule | None:
    """What a template says of what comes into subjects that declare ports; None: nothing."""
    resolved = [
        PortRange(port.protocol, port.number, port.number)
        for port in ports
        if (port.name, port.protocol) in template.port_names
    ]
    ranges = merge_ranges((*template.ranges, *resolved)) if resolved else template.ranges
    return _rule(template, ranges)


def egress_rules(
    template: Template, divisions: Callable[[Term, PortName], Iterable[Term]]
) -> Iterator[DirectionRule]:
    """What a template says of what goes out of every subject.

    Neither an address nor a reserved identity has named ports, so both take part in the numbered
    ports only.

    Args:
        template: the template.
        divisions: the non-empty parts of a term, one for each number that a port name has in it.
    """
    numbered = _rule(template, template.ranges)
    if numbered is not None:
        yield numbered
    keys: dict[PortRange, list[bytes]] = {}
    for named in template.named_terms:
        for name in template.port_names:
            for part in divisions(named, name):
                port = part.named_port
                assert port is not None
                number = PortRange(port.protocol, port.number, port.number)
                keys.setdefault(number, []).append(part.key)
    for number, parts in sorted(keys.items()):
        yield DirectionRule(
            tier=template.tier,
            action=template.action,
            audit=template.audit,
            peer_sets=tuple(sorted(set(parts))),
            ports=(number,),
        )


def _rule(template: Template, ranges: tuple[PortRange, ...]) -> DirectionRule | None:
    # In a DirectionRule no ports means every port; a template that lists ports, none of which
    # exists here, must not become one.
    if not ranges and not template.any_port:
        return None
    if not (template.all_peers or template.terms or template.blocks or template.entities):
        return None
    return DirectionRule(
        tier=template.tier,
        action=template.action,
        audit=template.audit,
        all_peers=template.all_peers,
        peer_sets=tuple(sorted(item.key for item in template.terms)),
        blocks=template.blocks,
        entities=template.entities,
        outside_only=template.outside_only,
        ports=ranges,
    )
