"""Receipts: on how many nodes a revision is in force, by what the replicas know of their agents."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from deltaplane.delta.span_index import SpanIndex
from deltaplane.delta.view import View
from deltaplane.model.objects import Kind
from services.slicer.watermark import Fence

MISSING_AT_MOST = 100
"""Names of missing nodes in one receipt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """What one replica vouches for about one connected node.

    Attributes:
        node_index: number of the node.
        revision: its effective revision; 0 while it has applied nothing.
        refused: objects that it holds closed: "KIND key: reason", as made by `describe`.
    """

    node_index: int
    revision: int
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a receipt is about.

    Attributes:
        revision: that must be in force.
        kinds: kinds of objects that carry it: a node that refuses one of them does not enforce it.
        policy: "namespace/name" of the policy; empty: it is about something else.
        endpoints: node number and identity of each endpoint; empty: it is about something else.
    """

    revision: int
    kinds: frozenset[Kind]
    policy: str = ""
    endpoints: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A node that does not enforce it yet. effective_revision: 0 when it is not connected."""

    node: str
    effective_revision: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """nodes_enforced of nodes_total; missing is ordered by name and cut off at MISSING_AT_MOST."""

    revision: int
    nodes_total: int
    nodes_enforced: int
    missing: tuple[Missing, ...]
    complete: bool


POLICY_KINDS = frozenset({Kind.IDENTITY, Kind.PEER_SET, Kind.SUBJECT_POLICY})
ENDPOINT_KINDS = POLICY_KINDS | {Kind.NODE, Kind.BLOCK, Kind.ENDPOINT}


def concerned(subject: Subject, view: View, index: SpanIndex) -> frozenset[int] | None:
    """Numbers of the nodes whose span contains a subject; None: every node's does.

    Nodes that never hear of it have nothing to enforce: they are not counted.
    """
    if subject.policy:
        subjects = (
            held.value.identity
            for held in view.subject_policies.values()
            if subject.policy in (*held.value.ingress.policies, *held.value.egress.policies)
        )
        return frozenset(node for number in subjects for node in index.nodes_with(number))
    if subject.endpoints:
        own = frozenset(node for node, _ in subject.endpoints)
        return own.union(*(index.told(identity) for _, identity in subject.endpoints))
    return None


def describe(kind: Kind, key: bytes, reason: str) -> str:
    """A refused object, for people and for `receipt`."""
    return f"{kind.name} {key.hex()}: {reason}"


def newest(reports: Iterable[Iterable[Effective]]) -> dict[int, Effective]:
    """One entry for each node: an agent that changes replicas is known to two of them for a moment.

    What was acknowledged to either of them holds: a node never goes back.
    """
    best: dict[int, Effective] = {}
    for report in reports:
        for entry in report:
            known = best.get(entry.node_index)
            if known is None or entry.revision > known.revision:
                best[entry.node_index] = entry
    return best


def receipt(
    subject: Subject,
    *,
    nodes: Mapping[int, str],
    effective: Mapping[int, Effective],
    head: int,
    fenced: Collection[int] = (),
) -> Receipt:
    """Counts.

    Args:
        subject: what must be in force.
        nodes: names of the registered nodes by number, as of head.
        effective: see `newest`.
        head: a revision below the subject's cannot know all nodes, so nothing is complete then.
        fenced: numbers of fenced nodes: what is missing on them is no surprise.
    """
    kinds = {kind.name for kind in subject.kinds}
    missing = [
        replace(found, reason="fenced") if index in fenced else found
        for index, name in nodes.items()
        if (found := _missing(subject.revision, kinds, name, effective.get(index))) is not None
    ]
    missing.sort(key=lambda entry: entry.node)
    return Receipt(
        revision=subject.revision,
        nodes_total=len(nodes),
        nodes_enforced=len(nodes) - len(missing),
        missing=tuple(missing[:MISSING_AT_MOST]),
        complete=not missing and head >= subject.revision,
    )


def _missing(
    revision: int, kinds: Collection[str], node: str, known: Effective | None
) -> Missing | None:
    if known is None:
        return Missing(node=node, effective_revision=0, reason="not connected")
    if known.revision < revision:
        return Missing(node=node, effective_revision=known.revision, reason="lagging")
    for refused in known.refused:
        if refused.partition(" ")[0] in kinds:
            return Missing(
                node=node, effective_revision=known.revision, reason=f"refused: {refused}"
            )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A node that has not passed a release. effective_revision: 0 when it is not connected."""

    node: str
    node_index: int
    effective_revision: int
    fenced: bool
    reason: str


def holders(
    revision: int,
    *,
    nodes: Mapping[int, str],
    effective: Mapping[int, Effective],
    fences: Mapping[int, Fence],
) -> list[Holder]:
    """Registered nodes, by name, that do not provably agree with a revision.

    Args:
        revision: of the newest release.
        nodes: names of the registered nodes by number.
        effective: see `newest`.
        fences: by node number.
    """
    found = []
    for index, name in sorted(nodes.items(), key=lambda item: item[1]):
        known = effective.get(index)
        passed = 0 if known is None else known.revision
        if passed >= revision:
            continue
        fence = fences.get(index)
        fenced = "" if fence is None else ", joining" if fence.joining else ", unreachable"
        found.append(
            Holder(
                node=name,
                node_index=index,
                effective_revision=passed,
                fenced=fence is not None,
                reason=("not connected" if known is None else "lagging") + fenced,
            )
        )
    return found
