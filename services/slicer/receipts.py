"""Receipts: on how many nodes a revision is in force, by what the replicas know of their agents."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from deltaplane.delta.span import peer_sets_of
from deltaplane.delta.span_index import SpanIndex
from deltaplane.delta.view import View
from deltaplane.model.objects import Kind
from services.slicer.timings import Spread
from services.slicer.watermark import Fence

MISSING_AT_MOST = 100
"""Names of missing nodes in one receipt."""

REFUSED_AT_MOST = 10
"""Objects that are told of one node."""

NOTHING = Spread()
"""Nothing was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """What one replica vouches for about one connected node.

    Attributes:
        node_index: number of the node.
        revision: its effective revision; 0 while it has applied nothing.
        refused: objects that it holds closed: "KIND key: reason", as made by `describe`.
        lagging_seconds: age of the oldest change that it has not acknowledged; 0: there is none.
    """

    node_index: int
    revision: int
    refused: tuple[str, ...] = ()
    lagging_seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one replica says. times: of the policy that was asked for, by its own agents."""

    nodes: tuple[Effective, ...] = ()
    times: Spread = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a receipt is about.

    Attributes:
        revision: that must be in force.
        kinds: kinds of objects that carry it: a node that refuses one of them does not enforce it.
        policy: reference of the policy; empty: it is about something else.
        endpoints: node number and identity of each endpoint; empty: it is about something else.
    """

    revision: int
    kinds: frozenset[Kind]
    policy: str = ""
    endpoints: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """An object that a node holds closed, and why, both for people."""

    object: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A node that does not enforce it yet.

    Attributes:
        node: its name.
        effective_revision: 0 when it is not connected.
        reason: why, for people.
        lagging_seconds: as in `Effective`.
        refused: what it refuses, at most REFUSED_AT_MOST.
    """

    node: str
    effective_revision: int
    reason: str
    lagging_seconds: float = field(default=0.0, compare=False)
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """nodes_enforced of nodes_total. Two are equal when they count the same, whatever the times.

    Attributes:
        revision: that must be in force.
        nodes_total: nodes that count.
        nodes_enforced: those that have it.
        missing: the others, ordered by name and cut off at MISSING_AT_MOST.
        complete: there are no others.
        times: how long those that have it took, as far as that was measured.
    """

    revision: int
    nodes_total: int
    nodes_enforced: int
    missing: tuple[Missing, ...]
    complete: bool
    times: Spread = field(default=NOTHING, compare=False)


POLICY_KINDS = frozenset({Kind.IDENTITY, Kind.PEER_SET, Kind.SUBJECT_POLICY})
ENDPOINT_KINDS = POLICY_KINDS | {Kind.NODE, Kind.BLOCK, Kind.ENDPOINT}


@dataclass(frozen=True, slots=True)
class Concern:
    """A subject in the view: whom it concerns, and what of the view carries it.

    Attributes:
        subject: what the receipt is about.
        view: at the last cut.
        identities: those that the subject's policy applies to; empty without a policy.
    """

    subject: Subject
    view: View
    identities: frozenset[int] = frozenset()

    @classmethod
    def of(cls, subject: Subject, view: View) -> "Concern":
        """Looks at all subject policies if it is about a policy."""
        if not subject.policy:
            return cls(subject, view)
        identities = (
            held.value.identity
            for held in view.subject_policies.values()
            if subject.policy in (*held.value.ingress.policies, *held.value.egress.policies)
        )
        return cls(subject, view, frozenset(identities))

    def nodes(self, index: SpanIndex) -> frozenset[int] | None:
        """Numbers of the nodes whose span contains the subject; None: every node's does.

        Nodes that never hear of it have nothing to enforce: they are not counted.
        """
        subject = self.subject
        if subject.policy:
            return frozenset(n for number in self.identities for n in index.nodes_with(number))
        if subject.endpoints:
            own = frozenset(node for node, _ in subject.endpoints)
            return own.union(*(index.told(identity) for _, identity in subject.endpoints))
        return None

    def is_carried_by(self, kind: Kind, key: bytes) -> bool:
        """Whether a node that refuses an object does not enforce the subject."""
        if kind not in self.subject.kinds:
            return False
        if not self.subject.policy:
            return True
        if kind is Kind.SUBJECT_POLICY:
            return int.from_bytes(key) in self.identities
        return kind is not Kind.PEER_SET or any(
            key in peer_sets_of(held.value)
            for number in self.identities
            if (held := self.view.subject_policies.get(number.to_bytes(4))) is not None
        )

    def named(self, kind: Kind, key: bytes) -> str:
        """An object, for people."""
        if kind not in (Kind.SUBJECT_POLICY, Kind.IDENTITY):
            return f"{kind.name} {key.hex()}"
        text = f"identity {int.from_bytes(key)}"
        if (held := self.view.identities.get(key)) is not None:
            text += f" ({' '.join((held.value.namespace, *held.value.labels))})"
        return text if kind is Kind.IDENTITY else f"policies of {text}"


def describe(kind: Kind, key: bytes, reason: str) -> str:
    """A refused object, for people and for `receipt`."""
    return f"{kind.name} {key.hex()}: {reason}"


def _described(text: str) -> tuple[Kind, bytes, str] | None:
    """What `describe` was told; None: a replica that knows other kinds made it."""
    found, _, reason = text.partition(": ")
    kind, _, key = found.partition(" ")
    try:
        return Kind[kind], bytes.fromhex(key), reason
    except (KeyError, ValueError):
        return None


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
    concern: Concern,
    *,
    nodes: Mapping[int, str],
    reports: Sequence[Report],
    head: int,
    fenced: Collection[int] = (),
) -> Receipt:
    """Counts.

    Args:
        concern: what must be in force.
        nodes: names of the registered nodes that count, by number, as of head.
        reports: of all replicas.
        head: a revision below the subject's cannot know all nodes, so nothing is complete then.
        fenced: numbers of fenced nodes: what is missing on them is no surprise.
    """
    effective = newest(report.nodes for report in reports)
    missing = [
        replace(found, reason="fenced") if index in fenced else found
        for index, name in nodes.items()
        if (found := _missing(concern, name, effective.get(index))) is not None
    ]
    missing.sort(key=lambda entry: entry.node)
    revision = concern.subject.revision
    return Receipt(
        revision=revision,
        nodes_total=len(nodes),
        nodes_enforced=len(nodes) - len(missing),
        missing=tuple(missing[:MISSING_AT_MOST]),
        complete=not missing and head >= revision,
        times=Spread.sum(report.times for report in reports),
    )


def _missing(concern: Concern, node: str, known: Effective | None) -> Missing | None:
    if known is None:
        return Missing(node=node, effective_revision=0, reason="not connected")
    found = Missing(
        node=node,
        effective_revision=known.revision,
        reason="lagging",
        lagging_seconds=known.lagging_seconds,
    )
    if known.revision < concern.subject.revision:
        return found
    refused = [(text, item) for text in known.refused if (item := _refused(concern, text))]
    if not refused:
        return None
    return replace(
        found,
        reason=f"refused: {refused[0][0]}",
        refused=tuple(item for _, item in refused[:REFUSED_AT_MOST]),
    )


def _refused(concern: Concern, text: str) -> Refused | None:
    """A refused object of the subject; None: it is none. What cannot be read may well be one."""
    if (parts := _described(text)) is None:
        return Refused(text, "")
    kind, key, reason = parts
    return Refused(concern.named(kind, key), reason) if concern.is_carried_by(kind, key) else None


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
