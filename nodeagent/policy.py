"""From subject policies to the content of kernel policy sets. Pure.

`resolve` is the compiler's last step: peer sets become identities, address blocks become classes
with their exceptions compiled out, rules become decisions whose order says which of them counts,
and what they say to the ports becomes the entries of a longest-match table.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from deltaplane.model.identity import FIRST_IDENTITY, Reserved
from deltaplane.model.objects import DirectionPolicy, DirectionRule, PeerSet, SubjectPolicy
from deltaplane.model.tiers import Action, Tier
from nodeagent.classes import classes
from nodeagent.dataplane.port import Decisions, PolicyEntry, PrefixEntry
from nodeagent.flattening import Piece, Profile, Said, flatten, profile
from nodeagent.verdict import EVERY_PEER, EVERY_POD, NOBODY, decision, ruling_of


@dataclass(frozen=True, slots=True, order=True)
class RuleName:
    """What a counter counts.

    Attributes:
        policy: reference; empty: no rule decided, the default did.
        ingress: the direction.
        rule: place in that direction of the policy.
        action: what it says.
        audit: it counts what a policy under audit would deny.
    """

    policy: str
    ingress: bool
    rule: int
    action: Action
    audit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedDirection:
    """What one direction of a subject lets pass.

    Attributes:
        entries: ascending by (peer, protocol, port, port_bits), "every" before a number.
        prefixes: ascending.
        names: the rules behind each ruling; empty: not known. It makes no difference to packets.
    """

    entries: tuple[PolicyEntry, ...]
    prefixes: tuple[PrefixEntry, ...]
    names: Mapping[int, tuple[RuleName, ...]] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedPolicy:
    """Both directions of a subject.

    Attributes:
        ingress: None: everything is allowed.
        egress: None: everything is allowed.
        audit_ingress: as `ingress` if policies under audit counted; None: there are none.
        audit_egress: the same for what goes out.
        missing: keys of peer sets that are not there, ascending. A rule that names one allows
            nobody; if it denies or passes on, it denies everybody.
    """

    ingress: ResolvedDirection | None
    egress: ResolvedDirection | None
    audit_ingress: ResolvedDirection | None = None
    audit_egress: ResolvedDirection | None = None
    missing: tuple[bytes, ...] = ()


def resolve(policy: SubjectPolicy, peer_sets: Mapping[bytes, PeerSet]) -> ResolvedPolicy:
    """Resolves what a subject policy lets pass.

    Args:
        policy: the policy.
        peer_sets: by key.
    """
    ingress, audit_ingress = _both(policy.ingress, peer_sets, ingress=True)
    egress, audit_egress = _both(policy.egress, peer_sets, ingress=False)
    missing = {
        key
        for direction in (policy.ingress, policy.egress)
        for rule in direction.rules
        for key in rule.peer_sets
        if key not in peer_sets
    }
    return ResolvedPolicy(
        ingress=ingress,
        egress=egress,
        audit_ingress=audit_ingress,
        audit_egress=audit_egress,
        missing=tuple(sorted(missing)),
    )


def _both(
    direction: DirectionPolicy, peer_sets: Mapping[bytes, PeerSet], *, ingress: bool
) -> tuple[ResolvedDirection | None, ResolvedDirection | None]:
    """What is enforced, and what would be if policies under audit counted."""
    enforced = [rule for rule in direction.rules if not rule.audit]
    first = _Direction(direction, enforced, peer_sets, ingress=ingress, audit=False).resolve()
    if len(enforced) == len(direction.rules) and direction.isolated >= direction.audit_isolated:
        return first, None
    every = direction.rules
    return first, _Direction(direction, every, peer_sets, ingress=ingress, audit=True).resolve()


@dataclass(frozen=True, slots=True)
class _Ordered:
    """A rule with the decision that stands for it."""

    rule: DirectionRule
    said: Said


class _Direction:
    """Some rules of one direction, on their way into tables."""

    def __init__(
        self,
        policy: DirectionPolicy,
        rules: Sequence[DirectionRule],
        peer_sets: Mapping[bytes, PeerSet],
        *,
        ingress: bool,
        audit: bool,
    ) -> None:
        self._policy = policy
        self._isolated = policy.isolated or (audit and policy.audit_isolated)
        self._peer_sets = peer_sets
        self._ingress = ingress
        self._audit = audit
        self._rules = _ordered(list(self._effective(rules)))
        self._profiles: dict[tuple[int, ...], Profile] = {}
        # Content by (rules of the peer, rules that are asked about the same packets anyway).
        self._flattened: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[Piece, ...]] = {}

    def resolve(self) -> ResolvedDirection | None:
        """The tables; None: everything is allowed."""
        if not self._rules and not self._isolated:
            return None
        by_peer = self._rules_by_peer()
        every = by_peer.pop(EVERY_PEER, ())
        # Of what is asked about every pod, a pod's own entries need not repeat anything.
        of_pods = tuple(sorted({*every, *by_peer.get(EVERY_POD, ())}))
        prefixes, address_classes = classes(
            [(number, ordered.rule) for number, ordered in enumerate(self._rules)],
            lambda covering: self._flatten(covering, every),
        )
        contents = [(EVERY_PEER, flatten(self._profile(every), profile(())))]
        for peer, numbers in sorted(by_peer.items()):
            context = of_pods if peer >= FIRST_IDENTITY else every
            contents.append((peer, self._flatten(numbers, context)))
        return ResolvedDirection(
            entries=tuple(
                _entry(peer, piece)
                for peer, content in (*contents, *address_classes)
                for piece in content
            ),
            prefixes=prefixes,
            names=self._names(),
        )

    def _effective(self, rules: Sequence[DirectionRule]) -> Iterator[DirectionRule]:
        """The rules that make a difference, those without their peer sets closed."""
        for rule in rules:
            if self._isolated and rule.tier is Tier.BASELINE:
                continue
            if all(key in self._peer_sets for key in rule.peer_sets):
                yield rule
            elif rule.action is not Action.ALLOW:
                # Whom it spares or leaves to others is not known either.
                yield replace(
                    rule,
                    action=Action.DENY,
                    all_peers=True,
                    peer_sets=(),
                    blocks=(),
                    entities=(),
                )

    def _rules_by_peer(self) -> dict[int, tuple[int, ...]]:
        """Numbers of the rules that name each identity, or everybody; blocks are left out."""
        naming: defaultdict[int, list[int]] = defaultdict(list)
        for number, ordered in enumerate(self._rules):
            for peer in self._peers_of(ordered.rule):
                naming[peer].append(number)
        return {peer: tuple(numbers) for peer, numbers in naming.items()}

    def _peers_of(self, rule: DirectionRule) -> set[int]:
        if rule.all_peers:
            return {EVERY_PEER}
        named = {number for key in rule.peer_sets for number in self._peer_sets[key].identities}
        # Nothing passes to or from UNKNOWN, whatever a rule says; nobody is NONE.
        return (named | set(rule.entities)) - {Reserved.UNKNOWN, Reserved.NONE}

    def _flatten(self, numbers: tuple[int, ...], context: tuple[int, ...]) -> tuple[Piece, ...]:
        """Thousands of peers, few combinations of rules: each is flattened once."""
        if not numbers:
            return ()
        key = (numbers, context)
        found = self._flattened.get(key)
        if found is None:
            own = profile([self._rules[number].said for number in numbers])
            found = self._flattened[key] = flatten(own, self._profile(context))
        return found

    def _profile(self, numbers: tuple[int, ...]) -> Profile:
        """What rules for every peer say, and what is said in the end to everybody."""
        found = self._profiles.get(numbers)
        if found is None:
            said = [self._rules[number].said for number in numbers]
            if not self._isolated:
                said.append(Said(_in_tier(Tier.BASELINE, _DEFAULT), ()))
            found = self._profiles[numbers] = profile(said)
        return found

    def _names(self) -> dict[int, tuple[RuleName, ...]]:
        default = NOBODY if self._isolated else ruling_of(Tier.BASELINE, _DEFAULT)
        action = Action.DENY if self._isolated else Action.ALLOW
        names: dict[int, tuple[RuleName, ...]] = {default: (self._name("", 0, action),)}
        for ordered in self._rules:
            rule = ordered.rule
            ruling = ruling_of(rule.tier, ordered.said.decisions[rule.tier - 1])
            names[ruling] = tuple(
                self._name(self._policy.policies[policy], index, rule.action)
                for policy, index in rule.sources
            )
        return names

    def _name(self, policy: str, index: int, action: Action) -> RuleName:
        return RuleName(policy, self._ingress, index, action, self._audit)


_DEFAULT = decision(0, Action.ALLOW)
"""Of BASELINE, where nobody isolates: below every rule."""


def _ordered(rules: Sequence[DirectionRule]) -> list[_Ordered]:
    """Gives the rules their places: within each tier the highest that matches counts.

    In NORMAL whatever denies is above what allows; and what is said to more peers above what is
    said to few, so that the few need no entry for what it says.
    """
    placed: list[_Ordered] = []
    for tier in Tier:
        ranked = [rule for rule in rules if rule.tier is tier]
        if tier is Tier.NORMAL:
            ranked.sort(key=_rank)
        else:
            ranked.reverse()
        for order, rule in enumerate(ranked, start=1):
            decisions = _in_tier(tier, decision(order, _final(rule)))
            placed.append(_Ordered(rule, Said(decisions, rule.ports)))
    return placed


def _final(rule: DirectionRule) -> Action:
    """After BASELINE there is nobody to pass on to: what nobody decided is allowed."""
    if rule.tier is Tier.BASELINE and rule.action is Action.PASS:
        return Action.ALLOW
    return rule.action


def _rank(rule: DirectionRule) -> tuple[bool, bool, bool, bool]:
    return (
        rule.action is Action.DENY,
        rule.all_peers,
        EVERY_POD in rule.entities,
        not rule.ports,
    )


def _in_tier(tier: Tier, said: int) -> Decisions:
    admin, normal, baseline = (said if tier is each else 0 for each in Tier)
    return admin, normal, baseline


def _entry(peer: int, piece: Piece) -> PolicyEntry:
    return PolicyEntry(
        peer=peer,
        protocol=None if piece.protocol < 0 else piece.protocol,
        port=None if piece.port < 0 else piece.port,
        port_bits=piece.port_bits,
        decisions=piece.decisions,
    )
