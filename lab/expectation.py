"""What policies say about a question, straight from their definition. Pure.

The demo and the end-to-end tests compare what they measured with it. It shares nothing with the
policy compiler but the model, and is slow on purpose.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from deltaplane.model.addresses import parse_address
from deltaplane.model.identity import NAMESPACE_NAME_LABEL
from deltaplane.model.policy import NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from deltaplane.model.ports import Protocol
from deltaplane.model.tiers import Action, Policy, Tier
from lab import tiers
from lab.pods import Pod
from lab.probing import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything that a verdict depends on.

    Attributes:
        pods: by "namespace/pod".
        namespaces: labels by namespace name.
        policies: all NetworkPolicies.
        others: all policies of other kinds.
    """

    pods: Mapping[str, Pod]
    namespaces: tiers.NamespaceLabels
    policies: Sequence[NetworkPolicy]
    others: Sequence[Policy] = ()

    def allows(self, question: Question) -> bool:
        """Whether the source's egress and the destination's ingress both allow it."""
        source = self.pods[question.source]
        destination = self.pods[question.destination]
        return self._direction(source, destination, question, ingress=False) and self._direction(
            destination, source, question, ingress=True
        )

    def closing(self, subject: Pod, *, ingress: bool) -> tuple[str, ...]:
        """References of the policies that isolate a pod in one direction or may deny it there."""
        found = {policy.reference for policy in self._isolating(subject, ingress=ingress)}
        for policy in self._others(subject):
            rules = policy.ingress if ingress else policy.egress
            isolates = policy.isolates_ingress if ingress else policy.isolates_egress
            if isolates or any(rule.action is Action.DENY for rule in rules):
                found.add(policy.reference)
        return tuple(sorted(found))

    def _isolating(self, subject: Pod, *, ingress: bool) -> tuple[NetworkPolicy, ...]:
        return tuple(
            policy
            for policy in self.policies
            if policy.namespace == subject.namespace
            and policy.pod_selector.matches(subject.labels)
            and (policy.applies_to_ingress if ingress else policy.applies_to_egress)
            and not policy.audit
        )

    def _others(self, subject: Pod) -> list[Policy]:
        """In the order in which they are asked; those under audit are not."""
        found = [
            policy
            for policy in self.others
            if not policy.audit and tiers.selects(policy.subject, subject, self.namespaces)
        ]
        return sorted(found, key=lambda policy: (policy.priority, policy.reference))

    def _direction(self, subject: Pod, peer: Pod, question: Question, *, ingress: bool) -> bool:
        destination = subject if ingress else peer
        others = self._others(subject)

        def said(tier: Tier) -> list[Action]:
            return [
                action
                for policy in others
                if policy.tier is tier
                for action in tiers.actions(
                    policy, question, peer, destination, self.namespaces, ingress=ingress
                )
            ]

        first = said(Tier.ADMIN)
        if first and first[0] is not Action.PASS:
            return first[0] is Action.ALLOW
        normal = said(Tier.NORMAL)
        isolating = self._isolating(subject, ingress=ingress)
        if Action.DENY in normal:
            return False
        if normal or self._allowed_by(isolating, peer, destination, question, ingress=ingress):
            return True
        if isolating or any(p.isolates_ingress if ingress else p.isolates_egress for p in others):
            return False
        last = said(Tier.BASELINE)
        return not last or last[0] is not Action.DENY

    def _allowed_by(
        self,
        policies: Iterable[NetworkPolicy],
        peer: Pod,
        destination: Pod,
        question: Question,
        *,
        ingress: bool,
    ) -> bool:
        return any(
            self._peer_matches(rule, policy, peer, question)
            and _port_matches(rule, destination, question)
            for policy in policies
            for rule in (policy.ingress if ingress else policy.egress)
        )

    def _peer_matches(
        self, rule: PolicyRule, policy: NetworkPolicy, peer: Pod, question: Question
    ) -> bool:
        return not rule.peers or any(
            self._matches(wanted, policy, peer, question) for wanted in rule.peers
        )

    def _matches(
        self, wanted: PolicyPeer, policy: NetworkPolicy, peer: Pod, question: Question
    ) -> bool:
        if wanted.ip_block is not None:
            return any(
                wanted.ip_block.cidr.contains(address)
                and not any(hole.contains(address) for hole in wanted.ip_block.except_)
                for address in _addresses(peer, question.family)
            )
        if wanted.namespace_selector is None:
            if peer.namespace != policy.namespace:
                return False
        else:
            given = self.namespaces.get(peer.namespace, {})
            labels = {**given, NAMESPACE_NAME_LABEL: peer.namespace}
            if not wanted.namespace_selector.matches(labels):
                return False
        return wanted.pod_selector is None or wanted.pod_selector.matches(peer.labels)


def _addresses(pod: Pod, family: str) -> Iterable[bytes]:
    return [parse_address(text) for text in pod.addresses if (":" in text) == (family == "ipv6")]


def _port_matches(rule: PolicyRule, destination: Pod, question: Question) -> bool:
    return not rule.ports or any(_covers(port, destination, question) for port in rule.ports)


def _covers(port: PolicyPort, destination: Pod, question: Question) -> bool:
    if port.protocol is not Protocol[question.protocol]:
        return False
    if port.port is None:
        return True
    if isinstance(port.port, str):
        return any(
            known.name == port.port
            and known.protocol == question.protocol
            and known.number == question.port
            for known in destination.ports
        )
    return port.port <= question.port <= (port.end_port or port.port)
