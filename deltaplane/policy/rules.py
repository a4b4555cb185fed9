"""One policy in terms of peer sets: templates, and the rules that follow from them for a subject.

Named ports are the reason for two steps. On ingress a name is a port of the subject, so a template
gives different rules for subjects with different ports. On egress it is a port of each destination,
so a template's peer sets are divided by the number that the name has there.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from deltaplane.model.objects import DirectionRule
from deltaplane.model.policy import IPBlock, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from deltaplane.model.ports import MAX_PORT, NamedPort, PortRange, Protocol, merge_ranges
from deltaplane.model.selector import LabelSelector
from deltaplane.policy.terms import ANY_POD, Term

PortName = tuple[str, Protocol]
"""A named port as a rule gives it."""


@dataclass(frozen=True, slots=True)
class Template:
    """A rule of a policy with its named ports unresolved.

    Attributes:
        all_peers: every peer; terms and blocks are empty then.
        terms: peers by selector.
        blocks: peers by address.
        any_port: every port of every protocol; ranges and port_names are empty then.
        ranges: ports by number, ascending, neither overlapping nor adjacent.
        port_names: ports by name, ascending.
    """

    all_peers: bool
    terms: tuple[Term, ...]
    blocks: tuple[IPBlock, ...]
    any_port: bool
    ranges: tuple[PortRange, ...]
    port_names: tuple[PortName, ...]

    @property
    def named_terms(self) -> tuple[Term, ...]:
        """The terms that an egress rule with a port name divides by the destination's port."""
        if not self.port_names:
            return ()
        return (ANY_POD,) if self.all_peers else self.terms


def subject_term(policy: NetworkPolicy) -> Term:
    """The identities that a policy selects."""
    return Term(policy.namespace, LabelSelector(), policy.pod_selector)


def templates(namespace: str, rules: Iterable[PolicyRule]) -> tuple[Template, ...]:
    """The templates of one direction of a policy that lives in a namespace."""
    return tuple(_template(namespace, rule) for rule in rules)


def ingress_rule(template: Template, ports: Iterable[NamedPort]) -> DirectionRule | None:
    """What a template allows into subjects that declare ports; None: nothing."""
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
    """What a template allows out of every subject.

    An address has no named ports, so blocks take part in the numbered ports only.

    Args:
        template: the template.
        divisions: the non-empty parts of a term, one for each number that a port name has in it.
    """
    numbered = _rule(template, template.ranges)
    if numbered is not None:
        yield numbered
    keys: dict[PortRange, list[bytes]] = {}
    for term in template.named_terms:
        for name in template.port_names:
            for part in divisions(term, name):
                port = part.named_port
                assert port is not None
                number = PortRange(port.protocol, port.number, port.number)
                keys.setdefault(number, []).append(part.key)
    for number, parts in sorted(keys.items()):
        yield DirectionRule(peer_sets=tuple(sorted(set(parts))), ports=(number,))


def sort_key(rule: DirectionRule) -> tuple[object, ...]:
    """A total order of rules, the same on every replica."""
    blocks = tuple((block.cidr, block.except_) for block in rule.blocks)
    return (not rule.all_peers, rule.peer_sets, blocks, rule.ports)


def _rule(template: Template, ranges: tuple[PortRange, ...]) -> DirectionRule | None:
    # In a DirectionRule no ports means every port; a template that lists ports, none of which
    # exists here, must not become one.
    if not ranges and not template.any_port:
        return None
    return DirectionRule(
        all_peers=template.all_peers,
        peer_sets=tuple(sorted(term.key for term in template.terms)),
        blocks=template.blocks,
        ports=ranges,
    )


def _template(namespace: str, rule: PolicyRule) -> Template:
    terms = {_term(namespace, peer) for peer in rule.peers if peer.ip_block is None}
    blocks = {_canonical(peer.ip_block) for peer in rule.peers if peer.ip_block is not None}
    return Template(
        all_peers=not rule.peers,
        terms=tuple(sorted(terms, key=lambda term: term.key)),
        blocks=tuple(sorted(blocks, key=lambda block: (block.cidr, block.except_))),
        any_port=not rule.ports,
        ranges=merge_ranges(_range(port) for port in rule.ports if not isinstance(port.port, str)),
        port_names=tuple(
            sorted({(p.port, p.protocol) for p in rule.ports if isinstance(p.port, str)})
        ),
    )


def _term(namespace: str, peer: PolicyPeer) -> Term:
    pods = peer.pod_selector or LabelSelector()
    if peer.namespace_selector is None:
        return Term(namespace, LabelSelector(), pods)
    return Term(None, peer.namespace_selector, pods)


def _canonical(block: IPBlock) -> IPBlock:
    return IPBlock(block.cidr, tuple(sorted(set(block.except_))))


def _range(port: PolicyPort) -> PortRange:
    if port.port is None:
        return PortRange(port.protocol, 0, MAX_PORT)
    assert isinstance(port.port, int)
    return PortRange(port.protocol, port.port, port.end_port or port.port)
