"""What NetworkPolicies say about a question, straight from their definition. Pure.

The demo and the end-to-end tests compare what they measured with it. It shares nothing with the
policy compiler but the model, and is slow on purpose.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from deltaplane.model.addresses import parse_address
from deltaplane.model.identity import NAMESPACE_NAME_LABEL
from deltaplane.model.policy import NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from deltaplane.model.ports import Protocol
from lab.pods import Pod
from lab.probing import Question

NamespaceLabels = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything that a verdict depends on.

    Attributes:
        pods: by "namespace/pod".
        namespaces: labels by namespace name.
        policies: all of them.
    """

    pods: Mapping[str, Pod]
    namespaces: NamespaceLabels
    policies: Sequence[NetworkPolicy]

    def allows(self, question: Question) -> bool:
        """Whether the source's egress and the destination's ingress both allow it."""
        source = self.pods[question.source]
        destination = self.pods[question.destination]
        return self._direction(source, destination, question, ingress=False) and self._direction(
            destination, source, question, ingress=True
        )

    def isolating(self, subject: Pod, *, ingress: bool) -> tuple[NetworkPolicy, ...]:
        """Policies that isolate a pod in one direction."""
        return tuple(
            policy
            for policy in self.policies
            if policy.namespace == subject.namespace
            and policy.pod_selector.matches(subject.labels)
            and (policy.applies_to_ingress if ingress else policy.applies_to_egress)
        )

    def _direction(self, subject: Pod, peer: Pod, question: Question, *, ingress: bool) -> bool:
        policies = self.isolating(subject, ingress=ingress)
        if not policies:
            return True
        destination = subject if ingress else peer
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
