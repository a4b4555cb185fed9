"""What stands for a stored policy that cannot be read: left out, it would open what it had closed.

A NetworkPolicy: one that isolates its whole namespace and allows nothing. What other policies allow
stays allowed, as a NetworkPolicy never takes anything away.

A policy of another kind: what can be read of it. A rule that cannot be read allows nobody if it
was one that allows; any other denies everybody. If not even subject or tier can be read, it denies
everything to everybody whom it could have applied to: the namespace, or, for kinds that live in
none, every pod. That is loud, and ends when the policy is applied again or deleted.
"""

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from deltaplane import policywire
from deltaplane.errors import Invalid
from deltaplane.model.policy import NetworkPolicy
from deltaplane.model.selector import LabelSelector
from deltaplane.model.tiers import MAX_PRIORITY, Action, Policy, PolicyKind, Rule, Selector
from deltaplane.store import keys
from deltaplane.v1 import policy_pb2

DENY_EVERYTHING = Rule(action=Action.DENY, all_peers=True, any_port=True)


def standin(key: str, value: bytes) -> NetworkPolicy | Policy | None:
    """What stands for the policy under a key. None: nobody could say whom the key concerns."""
    named = keys.parse_policy(key)
    if named is None:
        return None
    text, namespace, name = named
    kind = next((kind for kind in policywire.TIERS if kind == text), None)
    if kind is not None and kind.is_namespaced == bool(namespace):
        return _general(kind, namespace, name, value)
    if not namespace:
        return None
    # A kind of a later version: what follows the namespace, its colon included, is still unique.
    return NetworkPolicy(
        namespace=namespace,
        name=key.rpartition("/")[2],
        pod_selector=LabelSelector(),
        applies_to_ingress=True,
        applies_to_egress=True,
    )


def _general(kind: PolicyKind, namespace: str, name: str, value: bytes) -> Policy:
    try:
        message = policy_pb2.Policy.FromString(value)
        tier = policywire.tier_from_proto(message, kind)
        subject = policywire.subject_from_proto(message, kind)
    except (DecodeError, Invalid):
        return _deny_all(kind, namespace, name)
    if (message.kind, message.namespace, message.name) != (kind, namespace, name):
        return _deny_all(kind, namespace, name)
    return Policy(
        kind=kind,
        namespace=namespace,
        name=name,
        subject=subject,
        tier=tier,
        priority=min(message.priority, MAX_PRIORITY),
        isolates_ingress=message.isolates_ingress,
        isolates_egress=message.isolates_egress,
        audit=message.audit,
        ingress=tuple(_rules(message.ingress, kind)),
        egress=tuple(_rules(message.egress, kind)),
    )


def _deny_all(kind: PolicyKind, namespace: str, name: str) -> Policy:
    return Policy(
        kind=kind,
        namespace=namespace,
        name=name,
        subject=Selector(namespace=namespace or None),
        tier=policywire.TIERS[kind][0],
        ingress=(DENY_EVERYTHING,),
        egress=(DENY_EVERYTHING,),
    )


def _rules(messages: Iterable[policy_pb2.TierRule], kind: PolicyKind) -> Iterable[Rule]:
    for message in messages:
        try:
            yield policywire.rule_from_proto(message, kind)
        except Invalid:
            if message.action != policy_pb2.RULE_ACTION_ALLOW:
                yield DENY_EVERYTHING
