"""What policies of other kinds than NetworkPolicy say about a question, by their definition. Pure.

A part of `lab.expectation`: like that it shares nothing with the policy compiler but the model. In
a lab both ends of a question are pods.
"""

from collections.abc import Mapping

from deltaplane.model.addresses import parse_address
from deltaplane.model.identity import NAMESPACE_NAME_LABEL, Reserved
from deltaplane.model.ports import Protocol
from deltaplane.model.tiers import Action, Policy, Rule, Selector
from lab.pods import Pod
from lab.probing import Question

NamespaceLabels = Mapping[str, Mapping[str, str]]


def selects(selector: Selector, pod: Pod, namespaces: NamespaceLabels) -> bool:
    """Whether a selector means a pod."""
    labels = {**namespaces.get(pod.namespace, {}), NAMESPACE_NAME_LABEL: pod.namespace}
    return (
        selector.namespace in (None, pod.namespace)
        and selector.namespaces.matches(labels)
        and selector.pods.matches(pod.labels)
    )


def actions(
    policy: Policy,
    question: Question,
    peer: Pod,
    destination: Pod,
    namespaces: NamespaceLabels,
    *,
    ingress: bool,
) -> tuple[Action, ...]:
    """What the rules of one direction say that match, in their order.

    Args:
        policy: one that applies to the subject.
        question: what is asked.
        peer: the pod at the other end.
        destination: the pod that is asked.
        namespaces: labels by namespace name.
        ingress: the subject is the destination.
    """
    return tuple(
        rule.action
        for rule in (policy.ingress if ingress else policy.egress)
        if _is_peer(rule, peer, question, namespaces) and _is_port(rule, destination, question)
    )


def _is_peer(rule: Rule, peer: Pod, question: Question, namespaces: NamespaceLabels) -> bool:
    if rule.all_peers or Reserved.OTHER_POD in rule.entities:
        return True
    if any(selects(selector, peer, namespaces) for selector in rule.selectors):
        return True
    # Blocks that mean only what is outside never mean a pod.
    return not rule.outside_only and any(
        block.cidr.contains(address) and not any(hole.contains(address) for hole in block.except_)
        for block in rule.blocks
        for address in _addresses(peer, question.family)
    )


def _addresses(pod: Pod, family: str) -> list[bytes]:
    return [parse_address(text) for text in pod.addresses if (":" in text) == (family == "ipv6")]


def _is_port(rule: Rule, destination: Pod, question: Question) -> bool:
    protocol = Protocol[question.protocol]
    return (
        rule.any_port
        or any(
            item.protocol is protocol and item.first <= question.port <= item.last
            for item in rule.ranges
        )
        or any(
            (port.name, port.protocol, port.number) == (name, of.name, question.port)
            and of is protocol
            for name, of in rule.port_names
            for port in destination.ports
        )
    )
