"""Agents, replicas and the store under them, in virtual time, and what must hold among them.

Facts, fan-out, sender, receiver and watermark are real. The invariants are asserted where something
happens: an agent that takes a barrier, a replica that vouches for a node, a watermark that moves.
"""

import random

from deltaplane.delta import log as log_module
from deltaplane.delta import pieces as pieces_module
from deltaplane.delta import writer as writer_module
from deltaplane.delta.log import CHUNK_BYTES, Limits
from tests.sim.stream_agent import Agent
from tests.sim.stream_oracle import History
from tests.sim.stream_replica import Board, Replica
from tests.sim.stream_writes import Address, Writes
from tests.sim.violation import Violation, require


class World:
    """Where the story of a seed happens: three or four nodes, two or three replicas."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = chance = random.Random(seed)
        self.now = 0.0
        self.is_scoped = seed % 4 != 3
        self.is_calm = seed % 2 == 0
        self.size_messages(chance.choice((150, 400, 1500, CHUNK_BYTES)))
        self.history = History(b"L" * 16)
        self.histories = {self.history.lineage: self.history}
        self.board = Board(self.history)
        self.writes = Writes(chance, self.history, self._may_use)
        self.agents = [
            Agent(f"agent-{number}", credit, is_scoped=self.is_scoped)
            for number, credit in enumerate(
                chance.sample((1 << 20, 1 << 16, 3000, 700, 150), chance.choice((3, 3, 4))), 1
            )
        ]
        for agent in self.agents:
            self.register(agent)
        if chance.random() < 0.8:
            self.writes.begin()
        if self.is_calm:
            self.writes.calm()
        limits = (Limits(), Limits(max_bytes=6000), Limits(max_bytes=2500, max_seconds=2.0))
        self.replicas = [
            Replica(f"r{number}", self.history, self.board, limit, is_scoped=self.is_scoped)
            for number, limit in enumerate(limits[: chance.choice((2, 3))], 1)
        ]

    def size_messages(self, size: int) -> None:
        """Small messages, so that small worlds have snapshots and frames of many parts."""
        vars(writer_module)["_GROUP_BYTES"] = size
        for module in (pieces_module, log_module):
            vars(module)["CHUNK_BYTES"] = max(size, 128 + 64)

    # --- invariants ------------------------------------------------------------------------------

    def check(self) -> None:
        """What every replica says of every agent must be what that agent's kernel shows."""
        by_name = {agent.name: agent for agent in self.agents}
        for replica in self.replicas:
            sender = replica.fanout.sender
            for session in replica.fanout.sessions.values():
                reader = session.reader
                agent = by_name[reader.node]
                if agent.index != reader.node_index or agent.lineage != sender.lineage:
                    continue
                effective = sender.effective(reader)
                require(effective <= replica.history.revision, "effective: beyond the store")
                if agent.revision < effective and not replica.history.is_same(
                    agent.node, agent.revision, effective
                ):
                    raise Violation(
                        f"effective: {replica.name} says {effective} of {agent.name}, which shows "
                        f"{agent.revision}"
                    )

    def check_watermark(self) -> None:
        """Every live node's kernel shows what the store had at the watermark."""
        live = self.board.watermark.live
        for agent in self.live():
            if agent.lineage == self.history.lineage and agent.revision:
                require(
                    self.history.is_same(agent.node, agent.revision, live),
                    f"watermark: {live}, but {agent.name} shows {agent.revision}",
                )
            else:
                require(live < agent.registered_at or not agent.lineage, "watermark: lineage")

    def check_addresses(self, agent: Agent) -> None:
        """No live node maps an address to another endpoint than this one does."""
        if agent not in (live := self.live()) or agent.lineage != self.history.lineage:
            return
        mine = self.history.holders_at(agent.node, agent.revision)
        for other in live:
            if other is agent or other.lineage != self.history.lineage:
                continue
            for address, holder in self.history.holders_at(other.node, other.revision).items():
                if mine.get(address, holder) != holder:
                    raise Violation(f"reuse: {agent.name} and {other.name} differ on an address")

    def live(self) -> list[Agent]:
        """Agents of nodes that are registered and not fenced."""
        nodes, fences = self.history.nodes, self.history.fences
        return [a for a in self.agents if a.name in nodes and a.index not in fences]

    def _may_use(self, node: int, address: Address) -> bool:
        """Whether a node knows that an address is free; everybody else must agree."""
        (agent,) = (a for a in self.agents if a.index == node)
        known = agent.watermark if agent.lineage == address.lineage else 0
        if known < address.released:
            return False
        pair = address.pair
        for other in self.live():
            if other.lineage in self.histories and other.revision:
                shown = self.histories[other.lineage].holders_at(other.node, other.revision)
                require(
                    pair.ipv4 not in shown and pair.ipv6 not in shown,
                    f"reuse: {other.name} still maps what is used again",
                )
        return True

    # --- what happens in it ----------------------------------------------------------------------

    def any_agent(self) -> Agent:
        """One of them, by chance."""
        return self.random.choice(self.agents)

    def any_replica(self) -> Replica:
        """One of them, by chance."""
        return self.random.choice(self.replicas)

    def register(self, agent: Agent) -> None:
        """Its node comes, as another than it may have been before."""
        agent.uid = f"uid-{self.writes.next_node}"
        agent.index = self.writes.node_comes(agent.name, agent.uid)

    def connect(self, agent: Agent, replica: Replica) -> None:
        """An agent comes to a replica."""
        agent.connect(replica, self.now, self.histories)
        self.check_addresses(agent)

    def unfence(self, replica: Replica) -> None:
        """A replica takes away the fences that may go."""
        for name in replica.outgrown():
            self.writes.unfence(name)
            self.check_watermark()
            for agent in self.agents:
                self.check_addresses(agent)
