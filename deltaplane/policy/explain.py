"""Who denies a connection, and by which policies: the policies themselves, read for people.

Slow and literal on purpose. It answers one question about one connection; enforcement goes through
the compiler.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from deltaplane.model.identity import LabelSet
from deltaplane.model.policy import IPBlock, NetworkPolicy
from deltaplane.policy.rules import Template, subject_term, templates
from deltaplane.policy.terms import Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """One end of a connection.

    Attributes:
        address: 4 or 16 bytes.
        label_set: what the pod's identity stands for; None: no pod, so no policy selects it.
    """

    address: bytes
    label_set: LabelSet | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What the policies of one end say.

    Attributes:
        isolating: "namespace/name" of the policies that isolate it in this direction, ascending.
        allowing: those among them of which a rule allows the connection, ascending.
    """

    isolating: tuple[str, ...]
    allowing: tuple[str, ...]

    @property
    def allowed(self) -> bool:
        """Whether this end lets the connection pass."""
        return not self.isolating or bool(self.allowing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Both sides. egress: the source's; ingress: the destination's."""

    egress: Side
    ingress: Side

    @property
    def allowed(self) -> bool:
        """Whether the connection is possible."""
        return self.egress.allowed and self.ingress.allowed

    def __str__(self) -> str:
        denials = [
            f"{name} denied by {', '.join(side.isolating)}"
            for name, side in (("egress", self.egress), ("ingress", self.ingress))
            if not side.allowed
        ]
        return "; ".join(denials) or "allowed"


def explain(
    policies: Iterable[NetworkPolicy],
    source: Party,
    destination: Party,
    *,
    protocol: int,
    port: int,
) -> Explanation:
    """Explains the first packet of a connection.

    Args:
        policies: all policies; those of other namespaces do no harm.
        source: who connects.
        destination: to whom.
        protocol: IP protocol number.
        port: destination port; 0 for protocols without ports.
    """
    known = tuple(policies)
    connection = _Connection(destination=destination, protocol=protocol, port=port)
    return Explanation(
        egress=_side(known, source, destination, connection, outgoing=True),
        ingress=_side(known, destination, source, connection, outgoing=False),
    )


def isolating(
    policies: Iterable[NetworkPolicy], subject: LabelSet, *, outgoing: bool
) -> tuple[str, ...]:
    """The policies that isolate a subject: "namespace/name", ascending.

    They are who denied it, when the data path counted a denial on its side.
    """
    return tuple(sorted(p.reference for p in _isolating(policies, subject, outgoing=outgoing)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Connection:
    destination: Party
    protocol: int
    port: int


def _isolating(
    policies: Iterable[NetworkPolicy], subject: LabelSet, *, outgoing: bool
) -> list[NetworkPolicy]:
    candidate = Candidate.of(subject)
    return [
        policy
        for policy in policies
        if (policy.applies_to_egress if outgoing else policy.applies_to_ingress)
        and subject_term(policy).matches(candidate)
    ]


def _side(
    policies: Iterable[NetworkPolicy],
    subject: Party,
    peer: Party,
    connection: _Connection,
    *,
    outgoing: bool,
) -> Side:
    if subject.label_set is None:
        return Side(isolating=(), allowing=())
    selecting = _isolating(policies, subject.label_set, outgoing=outgoing)
    allowing = [
        policy.reference
        for policy in selecting
        if any(
            _allows(template, peer, connection, outgoing=outgoing)
            for template in templates(
                policy.namespace, policy.egress if outgoing else policy.ingress
            )
        )
    ]
    return Side(
        isolating=tuple(sorted(policy.reference for policy in selecting)),
        allowing=tuple(sorted(allowing)),
    )


def _allows(template: Template, peer: Party, connection: _Connection, *, outgoing: bool) -> bool:
    by_number = template.any_port or any(
        item.protocol == connection.protocol and item.first <= connection.port <= item.last
        for item in template.ranges
    )
    by_name = _has_named_port(template, connection)
    if _is_selected(template, peer):
        return by_number or by_name
    # An address has no named ports: see rules.egress_rules.
    in_block = any(_inside(block, peer.address) for block in template.blocks)
    return in_block and (by_number or (by_name and not outgoing))


def _is_selected(template: Template, peer: Party) -> bool:
    if template.all_peers:
        return True
    if peer.label_set is None:
        return False
    candidate = Candidate.of(peer.label_set)
    return any(term.matches(candidate) for term in template.terms)


def _has_named_port(template: Template, connection: _Connection) -> bool:
    label_set = connection.destination.label_set
    return label_set is not None and any(
        (port.name, port.protocol) in template.port_names
        and (port.protocol, port.number) == (connection.protocol, connection.port)
        for port in label_set.named_ports
    )


def _inside(block: IPBlock, address: bytes) -> bool:
    return block.cidr.contains(address) and not any(
        hole.contains(address) for hole in block.except_
    )
