"""Who lets a connection pass or not, and by which rules: the policies themselves, read for people.

Slow and literal on purpose. It answers one question about one connection; enforcement goes through
the compiler. `deltaplane.model.tiers` says how policies are judged.
"""

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from deltaplane.model.identity import FIRST_IDENTITY, LabelSet, Reserved
from deltaplane.model.policy import IPBlock
from deltaplane.model.tiers import Action, Policy, Rule, Selector, Tier
from deltaplane.policy.rules import term


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """One end of a connection.

    Attributes:
        address: 4 or 16 bytes.
        identity: of an address of no pod a reserved one: WORLD outside, HOST the node of the pod at
            the other end, REMOTE_NODE another one, OTHER_POD a pod that nothing is known of; of a
            pod its number, which no policy asks for.
        label_set: what the pod's identity stands for; None: no pod, so no policy selects it.
    """

    address: bytes
    identity: int = Reserved.WORLD
    label_set: LabelSet | None = None


class Way(enum.Enum):
    """How a rule names a peer: not at all, as a pod (or like everybody), by address or entity."""

    NOT = 0
    POD = 1
    ADDRESS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A rule that matches the connection.

    Attributes:
        policy: reference of its policy.
        rule: its index in the policy's direction, from 0.
        name: its name; empty: it has none.
        tier: tier of its policy.
        action: what it says.
        audit: its policy is under audit.
    """

    policy: str
    rule: int
    name: str
    tier: Tier
    action: Action
    audit: bool

    def __str__(self) -> str:
        name = f' "{self.name}"' if self.name else ""
        return f"rule {self.rule}{name} of {self.policy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of the connection at one end.

    Attributes:
        allowed: whether it may pass.
        tier: which tier decided; None: none did, so it may pass.
        by: the rules that decided: the first that matched in ADMIN and BASELINE, in NORMAL all that
            say so; empty: no tier decided, or NORMAL did because nothing allows it.
    """

    allowed: bool
    tier: Tier | None = None
    by: tuple[Match, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What the policies of one end say.

    Attributes:
        outgoing: it is the source's.
        exempt: why no policy is asked; empty: policies are asked.
        policies: references of those that apply to it in this direction, ascending.
        isolating: those that isolate it in this direction, but for those under audit, ascending.
        matching: rules that match, those under audit too, in the order in which they are asked.
        decision: what becomes of the connection.
        audit: what would become of it if policies under audit were enforced.
    """

    outgoing: bool
    exempt: str = ""
    policies: tuple[str, ...] = ()
    isolating: tuple[str, ...] = ()
    matching: tuple[Match, ...] = ()
    decision: Decision = Decision(allowed=True)
    audit: Decision = Decision(allowed=True)

    @property
    def allowed(self) -> bool:
        """Whether this end lets the connection pass."""
        return self.decision.allowed

    def __str__(self) -> str:
        return f"{'egress' if self.outgoing else 'ingress'} {self.reason}"

    @property
    def reason(self) -> str:
        """The decision and why, as the end of a sentence."""
        word = "allowed" if self.allowed else "denied"
        if self.decision.by:
            return f"{word} by {', '.join(map(str, self.decision.by))}"
        if not self.allowed:
            return f"denied: no rule of {', '.join(self.isolating)} allows it"
        return f"allowed: {self.exempt or 'no policy decides'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Both sides. egress: the source's; ingress: the destination's."""

    egress: Side
    ingress: Side

    @property
    def allowed(self) -> bool:
        """Whether the connection is possible."""
        return self.egress.allowed and self.ingress.allowed

    @property
    def allowed_under_audit(self) -> bool:
        """Whether it would be possible if policies under audit were enforced."""
        return self.egress.audit.allowed and self.ingress.audit.allowed

    def __str__(self) -> str:
        denying = [str(side) for side in (self.egress, self.ingress) if not side.allowed]
        return "; ".join(denying) or "allowed"


def explain(
    policies: Iterable[Policy], source: Party, destination: Party, *, protocol: int, port: int
) -> Explanation:
    """Explains the first packet of a connection.

    Args:
        policies: all policies; those that apply to neither end do no harm.
        source: who connects.
        destination: to whom.
        protocol: IP protocol number.
        port: destination port; the type for ICMP and ICMPV6; 0 for protocols without ports.
    """
    known = tuple(policies)
    return Explanation(
        egress=side(known, source, destination, protocol=protocol, port=port, outgoing=True),
        ingress=side(known, destination, source, protocol=protocol, port=port, outgoing=False),
    )


def side(
    policies: Iterable[Policy],
    subject: Party,
    peer: Party,
    *,
    protocol: int,
    port: int,
    outgoing: bool,
) -> Side:
    """Explains what one end says. outgoing: the subject is the source."""
    if subject.label_set is None:
        return Side(outgoing=outgoing, exempt="no pod, so no policy applies")
    if peer.identity == Reserved.HOST and peer.label_set is None and not outgoing:
        return Side(outgoing=outgoing, exempt="from the pod's own node")
    applying = _applying(policies, subject.label_set, outgoing=outgoing)
    asked = _Asked(
        peer=peer,
        destination=(peer if outgoing else subject).label_set,
        protocol=protocol,
        port=port,
        outgoing=outgoing,
    )
    matching = tuple(_matching(applying, asked))
    isolating = [policy for policy in applying if _isolates(policy, outgoing=outgoing)]
    enforced = tuple(policy.reference for policy in isolating if not policy.audit)
    return Side(
        outgoing=outgoing,
        policies=tuple(sorted(policy.reference for policy in applying)),
        isolating=tuple(sorted(enforced)),
        matching=matching,
        decision=_decision([m for m in matching if not m.audit], isolated=bool(enforced)),
        audit=_decision(matching, isolated=bool(isolating)),
    )


def applying(policies: Iterable[Policy], subject: LabelSet, *, outgoing: bool) -> tuple[str, ...]:
    """References of the policies that apply to a subject in a direction, ascending."""
    return tuple(sorted(p.reference for p in _applying(policies, subject, outgoing=outgoing)))


def selects(selector: Selector, label_set: LabelSet) -> bool:
    """Whether a selector matches an identity made of labels."""
    return (
        selector.namespace in (None, label_set.namespace)
        and selector.namespaces.matches(dict(label_set.namespace_labels))
        and selector.pods.matches(dict(label_set.labels))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A connection from the subject's point of view. destination: its labels, if it is a pod."""

    peer: Party
    destination: LabelSet | None
    protocol: int
    port: int
    outgoing: bool


def _applying(policies: Iterable[Policy], subject: LabelSet, *, outgoing: bool) -> list[Policy]:
    """In the order in which their rules are asked."""
    found = [
        policy
        for policy in policies
        if (_isolates(policy, outgoing=outgoing) or rules_of(policy, outgoing=outgoing))
        and selects(policy.subject, subject)
    ]
    return sorted(found, key=lambda policy: (policy.tier, policy.priority, policy.reference))


def _isolates(policy: Policy, *, outgoing: bool) -> bool:
    return policy.isolates_egress if outgoing else policy.isolates_ingress


def rules_of(policy: Policy, *, outgoing: bool) -> tuple[Rule, ...]:
    """A policy's rules for one direction, in their order."""
    return policy.egress if outgoing else policy.ingress


def _matching(policies: Iterable[Policy], asked: _Asked) -> Iterator[Match]:
    for policy in policies:
        for number, rule in enumerate(rules_of(policy, outgoing=asked.outgoing)):
            if _matches(rule, asked):
                yield Match(
                    policy=policy.reference,
                    rule=number,
                    name=rule.name,
                    tier=policy.tier,
                    action=rule.action,
                    audit=policy.audit,
                )


def _decision(matching: Sequence[Match], *, isolated: bool) -> Decision:
    for tier in Tier:
        here = [match for match in matching if match.tier is tier]
        decided = _normal(here, isolated=isolated) if tier is Tier.NORMAL else _first(here)
        if decided is not None:
            return decided
    return Decision(allowed=True)


def _first(matching: Sequence[Match]) -> Decision | None:
    if not matching or matching[0].action is Action.PASS:
        return None
    first = matching[0]
    return Decision(allowed=first.action is Action.ALLOW, tier=first.tier, by=(first,))


def _normal(matching: Sequence[Match], *, isolated: bool) -> Decision | None:
    for action in (Action.DENY, Action.ALLOW):
        if saying := tuple(match for match in matching if match.action is action):
            return Decision(allowed=action is Action.ALLOW, tier=Tier.NORMAL, by=saying)
    return Decision(allowed=False, tier=Tier.NORMAL) if isolated else None


def way(rule: Rule, peer: Party) -> Way:
    """How a rule names a peer."""
    if rule.all_peers or _is_selected(rule, peer):
        return Way.POD
    return Way.ADDRESS if _is_named(rule, peer) else Way.NOT


def _matches(rule: Rule, asked: _Asked) -> bool:
    named = way(rule, asked.peer)
    if named is Way.NOT:
        return False
    by_number = rule.any_port or any(
        item.protocol == asked.protocol and item.first <= asked.port <= item.last
        for item in rule.ranges
    )
    # Neither an address nor a reserved identity has named ports: see rules.egress_rules.
    counts = named is Way.POD or not asked.outgoing
    return by_number or (counts and _has_named_port(rule, asked))


def _is_selected(rule: Rule, peer: Party) -> bool:
    """Whether the peer is a pod that the rule names as a pod."""
    if peer.label_set is None:
        return False
    label_set = peer.label_set
    every_pod = Reserved.OTHER_POD in rule.entities
    return every_pod or any(selects(selector, label_set) for selector in rule.selectors)


def _is_named(rule: Rule, peer: Party) -> bool:
    """Whether the rule names the peer by a reserved identity or its address."""
    reserved = peer.identity if peer.label_set is None else FIRST_IDENTITY
    if reserved in rule.entities:
        return True
    if reserved == Reserved.OTHER_POD and any(term(s).matches_every_pod for s in rule.selectors):
        return True
    if rule.outside_only and reserved != Reserved.WORLD:
        return False
    return any(_inside(block, peer.address) for block in rule.blocks)


def _has_named_port(rule: Rule, asked: _Asked) -> bool:
    return asked.destination is not None and any(
        (port.name, port.protocol) in rule.port_names
        and (port.protocol, port.number) == (asked.protocol, asked.port)
        for port in asked.destination.named_ports
    )


def _inside(block: IPBlock, address: bytes) -> bool:
    return block.cidr.contains(address) and not any(
        hole.contains(address) for hole in block.except_
    )
