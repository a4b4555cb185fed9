"""Deltaplane's whole policy path without a kernel: YAML in, verdicts out.

What the compiler's output says, word by word, and what an agent makes of it are the same, or a test
fails here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from deltaplane.manifest import (
    GeneralPolicyManifest,
    NamespaceManifest,
    PodManifest,
    PolicyManifest,
    parse,
)
from deltaplane.model.addresses import parse_address
from deltaplane.model.identity import FIRST_IDENTITY, Identity, LabelSet, Reserved
from deltaplane.model.objects import Kind, PeerSet, SubjectPolicy
from deltaplane.model.ports import Protocol
from deltaplane.policy.compiler import Compiler
from nodeagent.policy import ResolvedPolicy, resolve
from nodeagent.verdict import Judge, allows
from tests.conformance.cases import Party, Row
from tests.unit.deltaplane.policy.reading import Remote, reads

_parsed = cache(parse_address)


@dataclass(slots=True)
class World:
    """What the services, the slicer and an agent would hold."""

    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    pods: dict[str, PodManifest] = field(default_factory=dict)
    compiler: Compiler = field(default_factory=Compiler)
    peer_sets: dict[bytes, PeerSet] = field(default_factory=dict)
    policies: dict[bytes, SubjectPolicy] = field(default_factory=dict)
    numbers: dict[LabelSet, int] = field(default_factory=dict)
    in_use: set[int] = field(default_factory=set)
    _identities: dict[str, int] = field(default_factory=dict)
    _resolved: dict[int, ResolvedPolicy] = field(default_factory=dict)
    _judges: dict[tuple[int, str], Judge | None] = field(default_factory=dict)

    def delete(self, text: str) -> None:
        for manifest in parse(text, "delete.yaml"):
            match manifest:
                case NamespaceManifest():
                    del self.namespaces[manifest.name]
                case PodManifest():
                    del self.pods[f"{manifest.namespace}/{manifest.name}"]
                case PolicyManifest() | GeneralPolicyManifest():
                    self.compiler.delete_policy(manifest.policy.reference)
                case _:
                    raise AssertionError

    def apply(self, text: str) -> None:
        for manifest in parse(text, "apply.yaml"):
            match manifest:
                case NamespaceManifest():
                    self.namespaces[manifest.name] = dict(manifest.labels)
                case PodManifest():
                    self.pods[f"{manifest.namespace}/{manifest.name}"] = manifest
                case PolicyManifest() | GeneralPolicyManifest():
                    self.compiler.set_policy(manifest.policy)
                case _:
                    raise AssertionError

    def settle(self) -> None:
        """Gives pods their identities and takes over what the compiler says has changed."""
        self._identities = {name: self._identity_of(pod) for name, pod in self.pods.items()}
        used = set(self._identities.values())
        for label_set, number in self.numbers.items():
            if number in used - self.in_use:
                self.compiler.set_identity(Identity(number, label_set))
        for number in self.in_use - used:
            self.compiler.delete_identity(number)
        self.in_use = used
        compiled = self.compiler.flush()
        for value in compiled.upserts:
            if isinstance(value, PeerSet):
                self.peer_sets[value.key] = value
            else:
                self.policies[value.key] = value
        for kind, key in compiled.removals:
            removed = self.peer_sets if kind is Kind.PEER_SET else self.policies
            del removed[key]
        self._resolved.clear()
        self._judges.clear()

    def identity(self, name: str) -> int:
        """The identity of a pod; WORLD for what is outside."""
        return self._identities.get(name, Reserved.WORLD)

    def _identity_of(self, pod: PodManifest) -> int:
        label_set = LabelSet.of(
            pod.namespace, self.namespaces[pod.namespace], dict(pod.labels), pod.named_ports
        )
        return self.numbers.setdefault(label_set, FIRST_IDENTITY + len(self.numbers))

    def sides(self, row: Row, parties: Mapping[str, Party]) -> str:
        """Which sides deny a connection."""
        denying = ""
        for letter, subject, peer in (
            ("E", row.source, row.destination),
            ("I", row.destination, row.source),
        ):
            if subject not in self.pods:
                continue
            policy = self.policies[self.identity(subject).to_bytes(4)]
            address = parties[peer].address(row.family)
            assert address is not None
            allowed = reads(
                policy.egress if letter == "E" else policy.ingress,
                self.peer_sets,
                Remote(identity=self.identity(peer), address=address),
                Protocol[row.protocol],
                row.port,
            )
            assert allowed == self._agent_allows(row, letter, _parsed(address))
            denying += "" if allowed else letter
        return denying

    def _agent_allows(self, row: Row, side: str, address: bytes) -> bool:
        subject, peer = row.source, row.destination
        if side == "I":
            subject, peer = peer, subject
        key = self.identity(subject), side
        if key not in self._judges:
            resolved = self._of(key[0])
            tables = resolved.egress if side == "E" else resolved.ingress
            self._judges[key] = None if tables is None else Judge(tables)
        judge = self._judges[key]
        protocol = Protocol[row.protocol]
        return judge is None or allows(
            judge.ruling(self.identity(peer), address, protocol, row.port)
        )

    def _of(self, number: int) -> ResolvedPolicy:
        """What an agent makes of an identity's policy."""
        if number not in self._resolved:
            self._resolved[number] = resolve(self.policies[number.to_bytes(4)], self.peer_sets)
            assert not self._resolved[number].missing
        return self._resolved[number]
