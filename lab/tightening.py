"""Policies that let a connection pass or do not, and the changes between them, under traffic.

The proof is at the node that enforces: once the receipt says that a tighter policy is in force, its
programs let nothing through any more. Two things say so, and no clock: what they have let through
does not grow, and nothing arrives that was numbered after the receipt.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deltaplane.cli import enforcement
from deltaplane.cli.client import Client
from deltaplane.cli.enforcement import Receipt, Subject
from deltaplane.errors import Unavailable
from deltaplane.manifest import NamespaceManifest
from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.model.policy import IPBlock, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule
from deltaplane.model.ports import MAX_PORT, Protocol
from deltaplane.model.selector import LabelSelector
from lab.cluster import Lab
from lab.manifests import Manifests
from lab.steady import FRESH_PACKETS, Judge, Sink, Source, traffic
from lab.workloads import Workload

PORT = 9000
HELD_PACKETS = 4 * FRESH_PACKETS
"""Denied ones that are waited for after a receipt: of each family, on old and new connections."""

WAIT_SECONDS = 60.0
POLL_SECONDS = 0.0005

State = tuple[NetworkPolicy, ...]
"""All policies that there are, by name."""

ANYWHERE = (Prefix.parse("0.0.0.0/0"), Prefix.parse("::/0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two pods of one node and namespace. Labels: those that policies select them by."""

    namespace: str
    source: LabelSelector
    source_addresses: tuple[bytes, ...]
    destination: LabelSelector

    def loose(self) -> tuple[State, ...]:
        """States in which the source reaches PORT of the destination."""
        port = PolicyPort(protocol=Protocol.UDP, port=PORT - 10, end_port=PORT + 10)
        return (
            (),
            (self._ingress("base", PolicyRule()),),
            (
                self._ingress(
                    "base", PolicyRule(peers=tuple(map(_all_of, ANYWHERE)), ports=(port,))
                ),
            ),
            (self._ingress("base"), self._ingress("more", self._from_source())),
            (
                self._egress("base"),
                self._egress(
                    "more", PolicyRule(peers=(PolicyPeer(pod_selector=self.destination),))
                ),
            ),
        )

    def tight(self) -> tuple[State, ...]:
        """States in which it does not."""
        other = PolicyPeer(pod_selector=LabelSelector.of({"app": "nobody"}))
        below = PolicyPort(protocol=Protocol.UDP, port=1, end_port=PORT - 1)
        above = PolicyPort(protocol=Protocol.UDP, port=PORT + 1, end_port=MAX_PORT)
        return (
            (self._ingress("base"),),
            (self._egress("base"),),
            (self._ingress("base", PolicyRule(peers=(other,))),),
            (self._ingress("base", PolicyRule(ports=(below, above))),),
            (self._ingress("base", PolicyRule(peers=tuple(self._all_but_source()))),),
            (self._ingress("base"), self._ingress("more", self._from_source(above))),
        )

    def _ingress(self, name: str, *rules: PolicyRule) -> NetworkPolicy:
        return NetworkPolicy(
            namespace=self.namespace,
            name=name,
            pod_selector=self.destination,
            applies_to_ingress=True,
            applies_to_egress=False,
            ingress=rules,
        )

    def _egress(self, name: str, *rules: PolicyRule) -> NetworkPolicy:
        return NetworkPolicy(
            namespace=self.namespace,
            name=name,
            pod_selector=self.source,
            applies_to_ingress=False,
            applies_to_egress=True,
            egress=rules,
        )

    def _from_source(self, *ports: PolicyPort) -> PolicyRule:
        return PolicyRule(peers=(PolicyPeer(pod_selector=self.source),), ports=ports)

    def _all_but_source(self) -> Iterator[PolicyPeer]:
        for prefix in ANYWHERE:
            holes = tuple(
                Prefix(address, 8 * len(address))
                for address in self.source_addresses
                if len(address) == len(prefix.address)
            )
            yield PolicyPeer(ip_block=IPBlock(cidr=prefix, except_=holes))


def _all_of(prefix: Prefix) -> PolicyPeer:
    return PolicyPeer(ip_block=IPBlock(cidr=prefix))


class Broken(AssertionError):
    """Something passed after the receipt had said that nothing would."""


class Ground:
    """A pair of pods with traffic between them, and the services to change policies at."""

    def __init__(self, client: Client, judge: Judge, source: Source, sink: Sink) -> None:
        """Begins without policies."""
        self.client = client
        self.judge = judge
        self.source = source
        self.sink = sink
        self.state: State = ()

    def change(self, state: State) -> Receipt:
        """Writes what differs from the state before, and waits for the receipt of all of it.

        Raises:
            DeltaplaneError: a service is away, or it is not in force in time.
        """
        started = time.monotonic()
        subject = self.write(state)
        return enforcement.await_enforced(
            self.client, subject, started=started, seconds=WAIT_SECONDS
        )

    def write(self, state: State) -> Subject:
        """Writes what differs; what the receipt of it is about."""
        before, self.state = self.state, state
        names = {policy.name for policy in state}
        gone = [policy for policy in before if policy.name not in names]
        written = [policy for policy in state if policy not in before]
        revision = enforcement.delete_policies(self.client, gone) if gone else 0
        if written:
            revision = max(revision, enforcement.apply_policies(self.client, written))
        if len(written) == 1 and not gone:
            return Subject(policy=written[0].reference)
        return Subject(revision=revision or 1)

    def loosen(self, state: State) -> Receipt:
        """The same; returns once packets pass."""
        receipt = self.change(state)
        allowed = self.judge.verdicts().allowed
        self.until(lambda: self.judge.verdicts().allowed > allowed, f"nothing passes: {state}")
        self.sink.take()
        return receipt

    def tighten(self, state: State) -> Receipt:
        """The same; returns once enough packets have been denied after the receipt.

        Raises:
            Broken: one was let through.
        """
        receipt = self.change(state)
        number = self.source.number
        before = self.judge.verdicts()
        enough = before.denied + HELD_PACKETS
        self.until(lambda: self.judge.verdicts().denied >= enough, f"nothing is denied: {state}")
        after = self.judge.verdicts()
        late = [arrived for arrived in self.sink.take() if arrived > number]
        if after.allowed != before.allowed or late:
            message = (
                f"{after.allowed - before.allowed} packets were let through after the receipt "
                f"({receipt}), {len(late)} arrived that were sent after it, with {state}"
            )
            raise Broken(message)
        return receipt

    def until(self, condition: Callable[[], bool], complaint: str) -> None:
        """Polls.

        Raises:
            Unavailable: not within WAIT_SECONDS.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise Unavailable(f"after {WAIT_SECONDS:g} s {complaint}")
            time.sleep(POLL_SECONDS)


@contextmanager
def ground(
    client: Client, pins: Path, namespaces: tuple[str, str], addresses: Sequence[str]
) -> Iterator[Ground]:
    """Traffic between two pods of a node, until the end of the block.

    Args:
        client: of the services.
        pins: of the node's agent.
        namespaces: the network namespaces of source and destination.
        addresses: of the destination.
    """
    judge = Judge(pins)
    try:
        with traffic(*namespaces, addresses, PORT) as (source, sink):
            yield Ground(client, judge, source, sink)
    finally:
        judge.close()


NAMESPACE = "steady"
SOURCE, DESTINATION = "source", "sink"


@contextmanager
def in_lab(lab: Lab) -> Iterator[tuple[Ground, Pair]]:
    """A pair of pods on the first node of a lab, which go with the end of the block."""
    node = lab.topology.nodes[0].name
    pods = Manifests(
        namespaces=(NamespaceManifest(name=NAMESPACE),),
        workloads=tuple(
            Workload(kind="Pod", namespace=NAMESPACE, name=name, labels={"app": name}, node=node)
            for name in (SOURCE, DESTINATION)
        ),
    )
    lab.wait_enforced(lab.apply(pods))
    try:
        source, destination = (lab.pod(f"{NAMESPACE}/{name}") for name in (SOURCE, DESTINATION))
        pair = Pair(
            namespace=NAMESPACE,
            source=LabelSelector.of({"app": SOURCE}),
            source_addresses=tuple(map(parse_address, source.addresses)),
            destination=LabelSelector.of({"app": DESTINATION}),
        )
        namespaces = lab.pod_namespace(source), lab.pod_namespace(destination)
        pins = lab.layout.node(node).pins
        with ground(lab.client, pins, namespaces, destination.addresses) as made:
            yield made, pair
            made.change(())
    finally:
        lab.delete(pods)
