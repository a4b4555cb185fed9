"""Policies of every kind in the one form that they have in common.

A connection is judged, at each of its ends, tier by tier:

1. ADMIN: the first rule that matches decides; PASS leaves it to the next tier.
2. NORMAL (NetworkPolicy and Cilium's kinds): any rule that denies wins over any that allows; a
   subject that is isolated is denied what no rule allows; else the next tier.
3. BASELINE: as ADMIN.
4. What nobody decided is allowed.

"First" in ADMIN and BASELINE is by priority (lower first), then by the policy's reference, then by
the rule's place in its policy.
"""

import enum
from dataclasses import dataclass

from deltaplane.model.identity import Reserved
from deltaplane.model.policy import IPBlock
from deltaplane.model.ports import PortRange, Protocol
from deltaplane.model.selector import LabelSelector

MAX_PRIORITY = 1000
BASELINE_NAME = "default"
"""Of the only BaselineAdminNetworkPolicy that there can be."""
EVERYTHING = LabelSelector()


class PolicyKind(enum.StrEnum):
    """Kinds of policies, spelt as in their APIs."""

    NETWORK_POLICY = "NetworkPolicy"
    CILIUM = "CiliumNetworkPolicy"
    CILIUM_CLUSTERWIDE = "CiliumClusterwideNetworkPolicy"
    CLUSTER = "ClusterNetworkPolicy"
    ADMIN = "AdminNetworkPolicy"
    BASELINE_ADMIN = "BaselineAdminNetworkPolicy"

    @property
    def is_namespaced(self) -> bool:
        """Whether its policies live in a namespace."""
        return self in (PolicyKind.NETWORK_POLICY, PolicyKind.CILIUM)


class Tier(enum.IntEnum):
    """Tiers in the order in which they are asked."""

    ADMIN = 1
    NORMAL = 2
    BASELINE = 3


class Action(enum.IntEnum):
    """What a rule says of what it matches. PASS: only in ADMIN and BASELINE."""

    ALLOW = 1
    DENY = 2
    PASS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Identities by their labels.

    Attributes:
        namespace: only of this namespace; None: of those that `namespaces` matches.
        namespaces: over namespace labels.
        pods: over pod labels.
    """

    namespace: str | None = None
    namespaces: LabelSelector = EVERYTHING
    pods: LabelSelector = EVERYTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """(any of the peers) and (any of the ports).

    Attributes:
        action: what becomes of what matches; only ALLOW and DENY in the NORMAL tier.
        all_peers: every peer, also one without identity; the other ways to name peers are empty
            then. A rule that names no peer at all matches nothing.
        selectors: peers by label.
        blocks: peers by address.
        outside_only: blocks match only addresses outside the cluster: of no pod and no node (as
            fromCIDR of Cilium); False: whoever has the address (as ipBlock of NetworkPolicy).
        entities: peers by reserved identity; OTHER_POD stands for every pod.
        any_port: every port of every protocol, ICMP included; the next two are empty then.
        ranges: ports by number, or for ICMP types; ascending, neither overlapping nor adjacent.
        port_names: ports by name, ascending: of the subject for ingress, of the peer for egress.
        name: for people; empty: it has none.
    """

    action: Action = Action.ALLOW
    all_peers: bool = False
    selectors: tuple[Selector, ...] = ()
    blocks: tuple[IPBlock, ...] = ()
    outside_only: bool = False
    entities: tuple[Reserved, ...] = ()
    any_port: bool = False
    ranges: tuple[PortRange, ...] = ()
    port_names: tuple[tuple[str, Protocol], ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy of any kind, validated and with its defaults applied.

    Attributes:
        kind: what it was written as.
        namespace: where it lives; empty for kinds that live in none.
        name: unique within kind and namespace.
        subject: whom it applies to.
        tier: of all its rules.
        priority: 0..1000, lower first; 0 in the NORMAL tier.
        isolates_ingress: in the NORMAL tier: its subjects are denied what no rule allows in.
        isolates_egress: the same for what goes out.
        audit: it is judged as if it were not there; what it would deny is counted.
        ingress: in their order.
        egress: in their order.
    """

    kind: PolicyKind
    namespace: str
    name: str
    subject: Selector
    tier: Tier = Tier.NORMAL
    priority: int = 0
    isolates_ingress: bool = False
    isolates_egress: bool = False
    audit: bool = False
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()

    @property
    def reference(self) -> str:
        """Its name in receipts, counters and answers; see `reference`."""
        return reference(self.kind, self.namespace, self.name)


def reference(kind: PolicyKind, namespace: str, name: str) -> str:
    """The name of a policy in receipts, counters and answers.

    "namespace/name" of a NetworkPolicy; "Kind:namespace/name" or "Kind:name" of other kinds.
    """
    path = f"{namespace}/{name}" if namespace else name
    return path if kind is PolicyKind.NETWORK_POLICY else f"{kind}:{path}"


def parse_reference(text: str) -> tuple[PolicyKind, str, str]:
    """Kind, namespace and name of the policy that `reference` names so.

    Raises:
        ValueError: the text names no policy; the message says how it would.
    """
    word, colon, path = text.rpartition(":")
    kind = next((kind for kind in PolicyKind if kind == word), None)
    if not colon:
        kind = PolicyKind.NETWORK_POLICY
    if kind is None or (colon and kind is PolicyKind.NETWORK_POLICY):
        known = ", ".join(kind for kind in PolicyKind if kind is not PolicyKind.NETWORK_POLICY)
        message = f"{text!r}: the kind before the colon is one of {known}"
        raise ValueError(message)
    namespace, slash, name = path.rpartition("/")
    if not name or bool(slash) != kind.is_namespaced or (slash and not namespace):
        form = "NAMESPACE/NAME" if kind.is_namespaced else "NAME"
        shown = form if kind is PolicyKind.NETWORK_POLICY else f"{kind}:{form}"
        message = f"{text!r}: write a {kind} as {shown}"
        raise ValueError(message)
    return kind, namespace, name
