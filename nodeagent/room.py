"""Whether policy sets fit into their maps, before anything is written. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from nodeagent.dataplane.port import Room, Usage
from nodeagent.plan import to_write
from nodeagent.policy import ResolvedDirection
from nodeagent.state import InForce, Kernel, Policies, Touched, Wanted


@dataclass(frozen=True, slots=True)
class Crowded:
    """Subjects whose sets do not fit, and why."""

    reasons: Mapping[int, str] = field(default_factory=dict)

    @property
    def keys(self) -> Touched:
        """What should not be there then."""
        return Touched(subjects=set(self.reasons))


def crowded_out(wanted: Wanted, kernel: Kernel, room: Room) -> dict[int, str]:
    """Subjects whose sets do not fit beside those in use, and why, with the numbers.

    A set is written before the one that it replaces goes, so both need room for a while. The
    smaller identity goes first; one that needs little is not kept waiting by one that needs much.
    """
    free = [room.policy_entries.free, room.policy_prefixes.free, room.subjects.free]
    if all(most <= left for most, left in zip(_most(wanted), free, strict=True)):
        return {}
    reasons: dict[int, str] = {}
    for identity, policies in sorted(wanted.subjects.items()):
        needed = _needed(policies, kernel.subjects.get(identity))
        if any(need > left for need, left in zip(needed, free, strict=True)):
            reasons[identity] = "; ".join(_mistakes(needed, free, room))
        else:
            free = [left - need for need, left in zip(needed, free, strict=True)]
    return reasons


def _most(wanted: Wanted) -> tuple[int, int, int]:
    """What is needed if everything is new: cheaper to know than what is."""
    contents = [each for policies in wanted.subjects.values() for each in policies.sets]
    return (*_sizes(contents), len(wanted.subjects))


def _needed(policies: Policies, held: InForce | None) -> tuple[int, int, int]:
    """Entries, prefixes, subjects."""
    return (*_sizes(to_write(policies, held)), int(held is None))


def _sizes(contents: Iterable[ResolvedDirection | None]) -> tuple[int, int]:
    there = [content for content in contents if content is not None]
    entries = sum(len(content.entries) for content in there)
    return entries, sum(len(content.prefixes) for content in there)


def _mistakes(needed: tuple[int, int, int], free: list[int], room: Room) -> Iterator[str]:
    usages: tuple[tuple[str, Usage], ...] = (
        ("policy entries", room.policy_entries),
        ("policy prefixes", room.policy_prefixes),
        ("subjects", room.subjects),
    )
    for need, left, (what, usage) in zip(needed, free, usages, strict=True):
        if need > left:
            yield f"needs {need:,} {what}, {left:,} of {usage.capacity:,} are free"
