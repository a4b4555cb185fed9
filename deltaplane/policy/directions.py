"""The rules of several policies as one direction of a subject: in order, merged, with sources."""

from collections.abc import Sequence
from dataclasses import dataclass

from deltaplane.model.objects import DirectionPolicy, DirectionRule
from deltaplane.model.tiers import Policy, Tier

Source = tuple[int, int]
"""Index of a policy among those that apply, and of the rule in that policy's direction."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one policy adds to a direction.

    Attributes:
        policy: the policy.
        isolates: whether it isolates in this direction.
        rules: index of the rule in the policy, and what it says, without sources; ascending.
    """

    policy: Policy
    isolates: bool
    rules: tuple[tuple[int, DirectionRule], ...]


def direction(references: tuple[str, ...], parts: Sequence[Part]) -> DirectionPolicy:
    """Puts parts together.

    Args:
        references: of the policies, ascending.
        parts: in the same order.
    """
    isolating = [part for part in parts if part.isolates]
    return DirectionPolicy(
        isolated=any(not part.policy.audit for part in isolating),
        audit_isolated=bool(isolating),
        rules=(*_in_order(parts, Tier.ADMIN), *_merged(parts), *_in_order(parts, Tier.BASELINE)),
        policies=references,
    )


def _in_order(parts: Sequence[Part], tier: Tier) -> list[DirectionRule]:
    """Rules of a tier whose first match decides."""
    found = [item for item in enumerate(parts) if item[1].policy.tier is tier]
    found.sort(key=lambda item: item[1].policy.priority)
    return [
        _with_sources(rule, ((index, number),))
        for index, part in found
        for number, rule in part.rules
    ]


def _merged(parts: Sequence[Part]) -> list[DirectionRule]:
    """Rules of the normal tier: their order means nothing, so equal ones are one.

    That of their first sources is the same on every replica.
    """
    sources: dict[DirectionRule, list[Source]] = {}
    for index, part in enumerate(parts):
        if part.policy.tier is Tier.NORMAL:
            for number, rule in part.rules:
                sources.setdefault(rule, []).append((index, number))
    return [_with_sources(rule, tuple(found)) for rule, found in sources.items()]


def _with_sources(rule: DirectionRule, sources: tuple[Source, ...]) -> DirectionRule:
    return DirectionRule(
        tier=rule.tier,
        action=rule.action,
        audit=rule.audit,
        all_peers=rule.all_peers,
        peer_sets=rule.peer_sets,
        blocks=rule.blocks,
        entities=rule.entities,
        outside_only=rule.outside_only,
        ports=rule.ports,
        sources=sources,
    )
