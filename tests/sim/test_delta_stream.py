"""Two slicer replicas, three agents, one store, virtual time: all that can go wrong with streams.

Each seed is a story of random steps: writes, ticks, deliveries, cut streams, killed agents and
replicas, lost history, agents that take their time. What must hold at every barrier is in
`Agent.apply`, what must hold at the end in `Story.settle`.
"""

import random
from collections.abc import Callable

import pytest

from deltaplane.delta.log import Limits
from deltaplane.delta.messages import StreamBroken
from deltaplane.model.addresses import AddressPair
from deltaplane.model.identity import FIRST_IDENTITY, Identity, LabelSet
from deltaplane.model.objects import EndpointObject, NodeObject
from deltaplane.model.policy import NetworkPolicy, PolicyPeer, PolicyRule
from deltaplane.model.selector import LabelSelector
from services.slicer.facts import EndpointRecord, NodeRecord, Record
from tests.sim.delta_world import Agent, Replica, Store

SEEDS = 300
STEPS = 120
AGENTS = 3
IDENTITIES = 4


class Story:
    """One seed."""

    def __init__(self, seed: int, *, is_scoped: bool) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.store = Store()
        for index in range(1, AGENTS + 1):
            self.write_node(index)
        # The second one forgets soon: agents fall behind its log in the middle of a stream.
        self.replicas = [
            Replica(self.store, limits, is_scoped) for limits in (Limits(), Limits(max_bytes=6000))
        ]
        windows = (1 << 20, 700, 150)  # the last two have to wait for credit again and again
        self.agents = [
            Agent(f"agent-{index}", self.store, credit, index if is_scoped else 0)
            for index, credit in enumerate(windows, start=1)
        ]

    # --- writes: references are made before what refers to them, as the services do ---------------

    def write_node(self, index: int) -> None:
        addresses = AddressPair(ipv4=bytes((198, 19, 0, index)))
        name = f"agent-{index}"
        node = NodeObject(index=index, name=name, addresses=addresses)
        self.store.write(f"nodes/{name}", NodeRecord(node, name))

    def write(self) -> None:
        kind = self.random.choice(("endpoint", "endpoint", "endpoint", "policy", "identity"))
        present = {r.key: r for r in self.store.listing(self.store.revision)}
        if kind == "policy":
            self.write_policy(present)
        elif kind == "identity":
            number = FIRST_IDENTITY + self.random.randrange(IDENTITIES)
            self.write_identity(number, present)
        else:
            self.write_endpoint(present)

    def write_policy(self, present: dict[str, Record]) -> None:
        name = f"p{self.random.randrange(3)}"
        key = f"policies/shop/{name}"
        if key in present and self.random.random() < 0.5:
            self.store.write(key, None)
            return
        chosen, peer = (
            LabelSelector.of({"app": f"a{self.random.randrange(IDENTITIES)}"}) for _ in range(2)
        )
        policy = NetworkPolicy(
            namespace="shop",
            name=name,
            pod_selector=chosen,
            applies_to_ingress=True,
            applies_to_egress=self.random.random() < 0.3,
            ingress=(PolicyRule(peers=(PolicyPeer(pod_selector=peer),)),),
        )
        self.store.write(key, policy)

    def write_identity(self, number: int, present: dict[str, Record]) -> None:
        key = f"identities/{number}"
        used = {
            r.content.object.identity
            for r in present.values()
            if isinstance(r.content, EndpointRecord)
        }
        if key in present and number not in used:
            self.store.write(key, None)
        elif key not in present:
            labels = LabelSet.of("shop", {}, {"app": f"a{number - FIRST_IDENTITY}"})
            self.store.write(key, Identity(number, labels))

    def write_endpoint(self, present: dict[str, Record]) -> None:
        node, number = self.random.randint(1, AGENTS), self.random.randint(1, 4)
        key = f"endpoints/{node}/{number}"
        old = present.get(key)
        if old is not None and self.random.random() < 0.5:
            self.store.write(key, None)
            return
        identity = FIRST_IDENTITY + self.random.randrange(IDENTITIES)
        if f"identities/{identity}" not in present:
            self.write_identity(identity, present)
        incarnation = self.store.revision + 1
        if old is not None:
            assert isinstance(old.content, EndpointRecord)
            incarnation = old.content.object.incarnation
        endpoint = EndpointObject(
            node_index=node,
            id=number,
            identity=identity,
            addresses=AddressPair(ipv4=bytes((10, 244, node, number))),
            incarnation=incarnation,
        )
        self.store.write(key, EndpointRecord(endpoint))

    # --- steps -----------------------------------------------------------------------------------

    def step(self) -> None:
        self.now += self.random.choice((0.0, 0.01, 0.2, 1.1))
        replica, agent = self.random.choice(self.replicas), self.random.choice(self.agents)
        steps: list[tuple[int, Callable[[], None]]] = [
            (20, lambda: self.writes(self.random.choice((1, 1, 2, 8)))),
            (20, lambda: replica.watch(self.random.randint(replica.fanout.scanned, self.end))),
            (15, lambda: replica.cut(self.now)),
            (40, lambda: self.move(agent)),
            (20, lambda: self.apply(agent)),
            (12, lambda: agent.connect(replica, self.now) if agent.stream is None else None),
            (7, agent.cut),
            (2, agent.kill),
            (1, lambda: self.restart(replica)),
            (1, replica.relist),
        ]
        weights, actions = zip(*steps, strict=True)
        self.random.choices(actions, weights)[0]()

    @property
    def end(self) -> int:
        return self.store.revision

    def writes(self, count: int) -> None:
        for _ in range(count):
            self.write()

    def move(self, agent: Agent) -> None:
        agent.pull(self.now)
        agent.receive(self.random.choice((1, 3, 100)), self.now)

    def apply(self, agent: Agent) -> None:
        agent.apply(self.now)
        agent.check_effective()

    def restart(self, replica: Replica) -> None:
        for agent in self.agents:
            if agent.stream is not None and agent.stream.replica is replica:
                agent.stream = None
        replica.start()

    def settle(self) -> None:
        """Left in peace, everybody comes to the same end, whatever has happened."""
        for replica in self.replicas:
            replica.watch(self.store.revision)
            replica.cut(self.now)
        for agent in self.agents:
            if agent.stream is None:
                agent.connect(self.replicas[0], self.now)
        while any(agent.kernel_revision < self.store.revision for agent in self.agents):
            self.now += 0.5
            assert self.now < 1000, "does not come to rest"
            for agent in self.agents:
                agent.pull(self.now)
                agent.receive(1000, self.now)
                agent.apply(self.now)
        self.now += 1.0
        for agent in self.agents:
            agent.answer(self.now)
            assert agent.kernel_revision == self.store.revision
            assert agent.stream is not None
            fanout, reader = agent.stream.replica.fanout, agent.stream.session.reader
            assert fanout.sender.effective(reader) == self.store.revision
            if not agent.node_index:
                assert agent.receiver.view.digest.root == fanout.sender.view.digest.root


@pytest.mark.parametrize("is_scoped", [False, True])
@pytest.mark.parametrize("first", range(0, SEEDS, 75))
def test_every_barrier_shows_one_revision_and_all_agents_converge(
    first: int, is_scoped: bool
) -> None:
    for seed in range(first, first + 75):
        story = Story(seed, is_scoped=is_scoped)
        try:
            for _ in range(STEPS):
                story.step()
            story.settle()
        except (AssertionError, StreamBroken) as error:
            raise AssertionError(f"seed {seed}: {error}") from error
