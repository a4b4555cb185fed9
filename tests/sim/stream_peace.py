"""The end of every story: nobody is disturbed any more, and everybody comes to the same end."""

from tests.sim.stream_agent import Agent
from tests.sim.stream_world import World
from tests.sim.violation import require

FOUND_SECONDS = 12.0
"""What is spoiled in an agent is found within this time, …"""

MENDED_SECONDS = 4.0
"""… and mended in this: some round trips of an agent that may have to wait for credit."""

PEACE_SECONDS = 60.0
"""Within this time everybody comes to rest."""


class Peace:
    """In a world in which nothing is written and nothing fails any more."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._audits = 0

    def settle(self) -> None:
        """Left in peace, everybody comes to the same end."""
        world = self.world
        self._peace()
        end = world.now + PEACE_SECONDS
        mended_by = world.now + FOUND_SECONDS + MENDED_SECONDS
        while not self._is_settled():
            world.now += 0.25
            require(world.now < end, "rest: does not come to rest:", self._unsettled())
            self._serve_all()
            if world.now >= mended_by:
                for agent in world.agents:
                    mended = not (agent.wrong or agent.wild or agent.doubting)
                    require(mended, "repair: still spoiled:", agent.spoiled)
            # Whoever is at rest but for its digest is to be found as soon as what is spoiled.
            differing = [line for line in self._unsettled() if line.startswith("the digest")]
            require(world.now < mended_by or not differing, "digest:", differing)
        for agent in world.agents:
            self._check_end(agent)

    def _peace(self) -> None:
        world = self.world
        for agent in world.agents:
            if not agent.index:
                world.register(agent)
            if agent.receiver is None:
                agent.start(world.history)

    def _serve_all(self) -> None:
        world = self.world
        for replica in world.replicas:
            replica.watch(replica.history.revision)
            replica.cut(world.now)
            for left in replica.streams.copy():
                if not left.has_client:
                    replica.end(left)
        self._audits += 1
        for agent in world.agents:
            if agent.stream is None or not agent.stream.has_server:
                world.connect(agent, world.any_replica())
            if (stream := agent.stream) is None:
                continue
            stream.replica.serve(stream, 100, world.now)
            agent.receive(1000, world.now)
            agent.apply(world.histories)
            if self._audits % 4 == 0:
                agent.audit(world.now)
            agent.answer(world.now)
            world.check_addresses(agent)
        world.check()
        if self._audits % 4 == 0:
            for replica in world.replicas:
                replica.publish()
                replica.advance()
                world.check_watermark()
                replica.fanout.set_watermark(world.board.watermark)
                world.unfence(replica)

    def _is_settled(self) -> bool:
        return self._audits > 0 and not self._unsettled()

    def _unsettled(self) -> list[str]:
        found = []
        world, head = self.world, self.world.history.revision
        for agent in world.agents:
            stream = agent.stream
            if stream is None or not stream.has_server or stream.replica.fanout.scanned < head:
                found.append(f"{agent.name} has no stream")
            elif agent.revision != head or stream.replica.fanout.sender.effective(
                stream.session.reader
            ) < min(head, agent.revision):
                found.append(f"{agent.name} is at {agent.revision} of {head}")
            elif agent.wrong or agent.wild or agent.doubting:
                found.append(agent.spoiled)
            elif not self._agrees(agent):
                # A generation may be wrong that no value tells: only the digest does.
                found.append(f"the digest of {agent.name} differs")
            elif stream.session.reader.refused.keys() != agent.refused.keys():
                found.append(f"{agent.name} has a Nack under way")
        if world.history.fences:
            found.append(f"fenced: {sorted(world.history.fences)}")
        last = max((record.generation for record in world.history.records[-1:]), default=0)
        if world.board.watermark.live < last:
            found.append(f"the watermark is {world.board.watermark.live} of {head}")
        return found

    @staticmethod
    def _agrees(agent: Agent) -> bool:
        """Whether its digest is what its replica takes it for."""
        assert agent.stream is not None
        assert agent.receiver is not None
        sender, reader = agent.stream.replica.fanout.sender, agent.stream.session.reader
        root = sender._writer.root(reader.scope, reader.node_index)
        return agent.receiver.view.digest.root == root

    def _check_end(self, agent: Agent) -> None:
        assert agent.stream is not None
        assert agent.receiver is not None
        require(self._agrees(agent), "digest: differs at the end")
        reader = agent.stream.session.reader
        view = {(h.value.kind, h.value.key): h.value for h in agent.receiver.view}
        wanted = agent.stream.wanted[agent.number] if agent.is_scoped else ()
        expected = self.world.history.content_at(agent.node, agent.revision, wanted)
        require(view == expected, "end: another view")
        require(reader.refused.keys() == agent.refused.keys(), "nack: refused differs")
