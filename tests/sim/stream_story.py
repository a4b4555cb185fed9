"""Stories of the delta stream: what is written and what goes wrong, in which order, by seed.

A story is EVENTS random events over three or four nodes and two or three replicas; then everybody
is left in peace and must come to the same end. Every invariant is asserted on the way.
"""

from collections.abc import Callable

from deltaplane.delta.acks import Refusal
from deltaplane.delta.log import CHUNK_BYTES
from deltaplane.model.objects import Kind
from tests.sim.stream_agent import Agent
from tests.sim.stream_peace import Peace
from tests.sim.stream_replica import Board
from tests.sim.stream_spoiling import spoil
from tests.sim.stream_world import World
from tests.sim.violation import Violation

EVENTS = 200


class Story(World):
    """One seed. told: takes what happens; None: nobody listens."""

    def __init__(self, seed: int, told: Callable[[str], None] | None = None) -> None:
        super().__init__(seed)
        self.told = told
        self.events = 0
        self._events, weights = zip(*self._choices(), strict=True)
        self._weights = [sum(weights[: n + 1]) for n in range(len(weights))]

    def _choices(self) -> list[tuple[str, float]]:
        return [
            ("write", 30),
            ("flicker", 9),
            ("watch", 34),
            ("cut", 16),
            ("pump", 80),
            ("serve", 14),
            ("receive", 14),
            ("apply", 10),
            ("connect", 24),
            ("audit", 8),
            ("leave", 4),
            ("end", 4),
            ("move", 4),
            ("want", 5),
            ("spoil", 3),
            ("progress", 20),
            ("kill", 2),
            ("reboot", 1),
            ("restart", 2),
            ("relist", 2),
            ("drain", 1),
            ("fence", 2),
            ("node", 1),
            ("restore", 0.3),
        ]

    def run(self) -> None:
        """Tells the story.

        Raises:
            Violation: something is not as it must be.
        """
        try:
            for _ in range(EVENTS):
                self.step()
            Peace(self).settle()
        finally:
            self.size_messages(CHUNK_BYTES)

    def step(self) -> None:
        """One event."""
        self.events += 1
        self.now += self.random.choice((0.0, 0.0, 0.01, 0.06, 0.2, 1.1))
        (name,) = self.random.choices(self._events, cum_weights=self._weights)
        if self.is_calm and name in ("flicker", "fence", "node") and self.random.random() < 0.7:
            name = "write"
        said = getattr(self, f"do_{name}")()
        if self.told is not None:
            self.told(f"{self.events:4} {self.now:7.2f} s {name:8} {said or ''}")
        self.check()

    # --- events ----------------------------------------------------------------------------------

    def do_write(self) -> str:
        """Writes of services."""
        before = self.history.revision
        if self.random.random() < 0.4:
            self.history.revision += 1  # something else is written: a lease, a coverage
        for _ in range(self.random.choice((1, 1, 2) if self.is_calm else (1, 1, 2, 5))):
            self.writes.write()
        return self._written(before)

    def do_flicker(self) -> str:
        """Writes that come to nothing."""
        before = self.history.revision
        self.writes.flicker()
        return self._written(before)

    def _written(self, before: int) -> str:
        if self.told is None:
            return ""
        records = self.history.written(before, self.history.revision)
        return "; ".join(f"{r.generation} {r.key} {r.content or 'gone'}" for r in records)

    def do_watch(self) -> str:
        """A replica hears of writes."""
        replica = self.any_replica()
        scanned, head = replica.fanout.scanned, replica.history.revision
        replica.watch(head if self.random.random() < 0.75 else self.random.randint(scanned, head))
        if self.random.random() < 0.7:
            replica.cut(self.now)
        return (
            f"{replica.name} {scanned}..{replica.fanout.scanned}, cut {replica.fanout.sender.cut}"
        )

    def do_cut(self) -> str:
        """A replica ends its tick."""
        replica = self.any_replica()
        replica.cut(self.now)
        return f"{replica.name} at {replica.fanout.sender.cut}"

    def do_pump(self) -> str:
        """An agent and its replica get on with each other."""
        agent = self.any_agent()
        if agent.stream is None or agent.receiver is None or not agent.stream.has_server:
            return self._come(agent) if self.random.random() < 0.5 else "nothing"
        agent.stream.replica.serve(agent.stream, 100, self.now)
        agent.receive(self.random.choice((1, 3, 100, 100, 100)), self.now)
        if self.random.random() < 0.8:
            agent.apply(self.histories, self._refused(agent))
            agent.answer(self.now)
            self.check_addresses(agent)
        return f"{agent.name} at {agent.revision}"

    def do_serve(self) -> str:
        """A replica's end of a stream."""
        replica = self.any_replica()
        if not replica.streams:
            return "nothing"
        stream = self.random.choice(replica.streams)
        replica.serve(stream, self.random.choice((0, 1, 100, 100)), self.now)
        return f"{replica.name} {stream.agent}: {len(stream.down)} on their way"

    def do_receive(self) -> str:
        """An agent takes messages."""
        agent = self.any_agent()
        agent.receive(self.random.choice((1, 2, 100, 100)), self.now)
        return agent.name

    def do_apply(self) -> str:
        """An agent takes a barrier into its kernel."""
        agent = self.any_agent()
        if agent.receiver is None:
            return "nothing"
        agent.apply(self.histories, self._refused(agent))
        agent.answer(self.now)
        self.check_addresses(agent)
        return f"{agent.name} at {agent.revision}"

    def _refused(self, agent: Agent) -> list[Refusal]:
        if self.random.random() < 0.9 or agent.receiver is None:
            return []
        keys = [("e", key) for key in sorted(agent.receiver.view.endpoints)]
        return [
            Refusal(kind=Kind.ENDPOINT, key=key, reason="no room")
            for _, key in keys[: self.random.choice((0, 1, 2))]
        ]

    def do_connect(self) -> str:
        """An agent comes to a replica."""
        return self._come(self.any_agent())

    def _come(self, agent: Agent) -> str:
        if agent.index and agent.receiver is None:
            agent.start(self.history)
        if agent.stream is None or not agent.stream.has_server:
            replica = self.any_replica()
            if self.random.random() < 0.6:
                replica = max(self.replicas, key=lambda r: r.fanout.sender.head)
            self.connect(agent, replica)
        return self._where(agent)

    def _where(self, agent: Agent) -> str:
        if agent.stream is None:
            return f"{agent.name} -"
        return f"{agent.name} {agent.stream.replica.name} {agent.stream.session.reader.mode.name}"

    def do_audit(self) -> str:
        """An agent looks at what it holds."""
        agent = self.any_agent()
        agent.audit(self.now)
        return agent.name

    def do_leave(self) -> str:
        """A client is gone; the server does not notice."""
        agent = self.any_agent()
        if agent.stream is not None and self.random.random() < 0.5:
            agent.receive(self.random.choice((1, 2, 5)), self.now)
        agent.leave()
        return agent.name

    def do_end(self) -> str:
        """A server notices that a client is gone, or ends a stream."""
        replica = self.any_replica()
        if not replica.streams:
            return "nothing"
        stream = self.random.choice(replica.streams)
        if stream.has_client and self.random.random() < 0.7:
            return "nothing"
        replica.end(stream)
        return f"{replica.name} {stream.agent}"

    def do_move(self) -> str:
        """An agent goes to another replica; the old one goes on believing in its stream."""
        agent = self.any_agent()
        if agent.stream is not None:
            others = [r for r in self.replicas if r is not agent.stream.replica]
            self.connect(agent, self.random.choice(others))
        return self._where(agent)

    def do_want(self) -> str:
        """An agent prefetches."""
        agent = self.any_agent()
        known = [int.from_bytes(key) for kind, key in self.history.full if kind is Kind.IDENTITY]
        chosen = self.random.sample(known, min(len(known), self.random.choice((0, 1, 2))))
        if self.random.random() < 0.1:
            chosen.append(9999)
        agent.want(sorted(chosen))
        return f"{agent.name} {chosen}"

    def do_spoil(self) -> str:
        """An entry in an agent's memory changes by itself."""
        return spoil(self.any_agent(), self.random)

    def do_progress(self) -> str:
        """A replica's part in the watermark."""
        replica = self.any_replica()
        if replica.board is not self.board:
            return "nothing"
        if self.random.random() < 0.7:
            replica.publish()
            self.history.revision += 1
        if self.random.random() < 0.7:
            replica.advance()
            self.check_watermark()
        replica.fanout.set_watermark(self.board.watermark)
        if self.random.random() < 0.5:
            self.unfence(replica)
        return f"{replica.name} {self.board.watermark}"

    def do_kill(self) -> str:
        """An agent's process dies."""
        agent = self.any_agent()
        agent.kill()
        return agent.name

    def do_reboot(self) -> str:
        """A machine starts anew."""
        agent = self.any_agent()
        agent.reboot()
        return agent.name

    def do_restart(self) -> str:
        """A replica's process dies."""
        replica = self.any_replica()
        replica.start(self.history, self.board)
        return replica.name

    def do_relist(self) -> str:
        """The store compacts what a replica has not seen."""
        replica = self.any_replica()
        replica.relist()
        return replica.name

    def do_drain(self) -> str:
        """A replica is stopped politely."""
        replica = self.any_replica()
        replica.fanout.drain(deadline_seconds=1.0)
        for stream in replica.streams.copy():
            replica.serve(stream, 100, self.now)
        replica.start(self.history, self.board)
        return replica.name

    def do_fence(self) -> str:
        """A node is fenced: nobody has heard of it."""
        if not (live := self.live()):
            return "nothing"
        agent = self.random.choice(live)
        self.writes.fence(agent.name)
        return agent.name

    def do_node(self) -> str:
        """A node is deleted, or comes back as another."""
        agent = self.any_agent()
        if agent.name in self.history.nodes:
            agent.reboot()
            self.writes.node_goes(agent.name)
            agent.index = 0
        else:
            self.register(agent)
        return agent.name

    def do_restore(self) -> str:
        """All services stop; the store is that of a backup, with a new lineage."""
        old = self.history
        revision = self.random.randint(max(old.start, old.revision - 30), old.revision)
        lineage = bytes([len(self.histories)]) * 16
        self.history = self.histories[lineage] = old.restored(lineage, revision)
        self.board = Board(self.history)
        self.writes.restored(self.history)
        for replica in self.replicas:
            replica.start(self.history, self.board)
        for agent in self.agents:
            if agent.receiver is not None and not agent.receiver.lineage:
                agent.kill()  # it has registered in a store that is no more
            # The registry tells an agent that it is another node now, or none.
            record = self.history.nodes.get(agent.name)
            if record is None or record.object.index != agent.index:
                agent.reboot()
                agent.index = 0
                if record is not None:
                    self.writes.node_goes(agent.name)
        return f"to {revision}"


def tell(seed: int, told: Callable[[str], None] | None = None) -> None:
    """Tells one story; a violation names its seed.

    Raises:
        Violation: an invariant was broken, or something crashed.
    """
    try:
        Story(seed, told).run()
    except Violation as error:
        raise Violation(f"seed {seed}: {error}") from error
    except Exception as error:
        raise Violation(f"seed {seed}: {type(error).__name__}: {error}") from error
