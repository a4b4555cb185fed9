"""Stories of the delta stream: what is written and what goes wrong, in which order, by seed.

A story is EVENTS random events over three or four nodes and two or three replicas; then everybody
is left in peace and must come to the same end. Every invariant is asserted on the way.
"""

import random
from collections.abc import Callable
from dataclasses import replace

from deltaplane.delta import log as log_module
from deltaplane.delta import pieces as pieces_module
from deltaplane.delta import writer as writer_module
from deltaplane.delta.acks import Refusal
from deltaplane.delta.changes import ObjectKey
from deltaplane.delta.log import CHUNK_BYTES, Limits
from deltaplane.delta.view import Held
from deltaplane.model.addresses import AddressPair
from deltaplane.model.objects import (
    DERIVED_KINDS,
    BlockObject,
    DirectionPolicy,
    EndpointObject,
    IdentityObject,
    Kind,
    NodeObject,
    PeerSet,
    PoolObject,
    StreamObject,
    SubjectPolicy,
)
from tests.sim.stream_oracle import History
from tests.sim.stream_world import Agent, Board, Replica, Violation, require
from tests.sim.stream_writes import Address, Writes

EVENTS = 200
FOUND_SECONDS = 12.0
"""What is spoiled in an agent is found within this time, …"""

MENDED_SECONDS = 4.0
"""… and mended in this: some round trips of an agent that may have to wait for credit."""

PEACE_SECONDS = 60.0
"""Within this time everybody comes to rest."""

Event = Callable[[], None]


class Story:
    """One seed. told: takes what happens; None: nobody listens."""

    def __init__(self, seed: int, told: Callable[[str], None] | None = None) -> None:
        self.seed, self.told = seed, told
        self.random = chance = random.Random(seed)
        self.now = 0.0
        self.events = 0
        self.is_scoped = seed % 4 != 3
        self._is_calm = seed % 2 == 0
        self._size_messages(chance.choice((150, 400, 1500, CHUNK_BYTES)))
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
            self._register(agent)
        if chance.random() < 0.8:
            self.writes.begin()
        if self._is_calm:
            self.writes.calm()
        limits = (Limits(), Limits(max_bytes=6000), Limits(max_bytes=2500, max_seconds=2.0))
        self.replicas = [
            Replica(f"r{number}", self.history, self.board, limit, is_scoped=self.is_scoped)
            for number, limit in enumerate(limits[: chance.choice((2, 3))], 1)
        ]
        self._events, weights = zip(*self._choices(), strict=True)
        self._weights = [sum(weights[: n + 1]) for n in range(len(weights))]

    def _size_messages(self, size: int) -> None:
        """Small messages, so that small worlds have snapshots and frames of many parts."""
        vars(writer_module)["_GROUP_BYTES"] = size
        for module in (pieces_module, log_module):
            vars(module)["CHUNK_BYTES"] = max(size, 128 + 64)

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
            self.settle()
        finally:
            self._size_messages(CHUNK_BYTES)

    def step(self) -> None:
        """One event."""
        self.events += 1
        self.now += self.random.choice((0.0, 0.0, 0.01, 0.06, 0.2, 1.1))
        (name,) = self.random.choices(self._events, cum_weights=self._weights)
        if self._is_calm and name in ("flicker", "fence", "node") and self.random.random() < 0.7:
            name = "write"
        said = getattr(self, f"do_{name}")()
        if self.told is not None:
            self.told(f"{self.events:4} {self.now:7.2f} s {name:8} {said or ''}")
        self.check()

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
        for agent in self._live():
            if agent.lineage == self.history.lineage and agent.revision:
                require(
                    self.history.is_same(agent.node, agent.revision, live),
                    f"watermark: {live}, but {agent.name} shows {agent.revision}",
                )
            else:
                require(live < agent.registered_at or not agent.lineage, "watermark: lineage")

    def check_addresses(self, agent: Agent) -> None:
        """No live node maps an address to another endpoint than this one does."""
        if agent not in (live := self._live()) or agent.lineage != self.history.lineage:
            return
        mine = self.history.holders_at(agent.node, agent.revision)
        for other in live:
            if other is agent or other.lineage != self.history.lineage:
                continue
            for address, holder in self.history.holders_at(other.node, other.revision).items():
                if mine.get(address, holder) != holder:
                    raise Violation(f"reuse: {agent.name} and {other.name} differ on an address")

    def _live(self) -> list[Agent]:
        nodes, fences = self.history.nodes, self.history.fences
        return [a for a in self.agents if a.name in nodes and a.index not in fences]

    def _may_use(self, node: int, address: Address) -> bool:
        """Whether a node knows that an address is free; everybody else must agree."""
        (agent,) = (a for a in self.agents if a.index == node)
        known = agent.watermark if agent.lineage == address.lineage else 0
        if known < address.released:
            return False
        pair = address.pair
        for other in self._live():
            if other.lineage in self.histories and other.revision:
                shown = self.histories[other.lineage].holders_at(other.node, other.revision)
                require(
                    pair.ipv4 not in shown and pair.ipv6 not in shown,
                    f"reuse: {other.name} still maps what is used again",
                )
        return True

    # --- events ----------------------------------------------------------------------------------

    def _agent(self) -> Agent:
        return self.random.choice(self.agents)

    def _replica(self) -> Replica:
        return self.random.choice(self.replicas)

    def do_write(self) -> str:
        """Writes of services."""
        before = self.history.revision
        if self.random.random() < 0.4:
            self.history.revision += 1  # something else is written: a lease, a coverage
        for _ in range(self.random.choice((1, 1, 2) if self._is_calm else (1, 1, 2, 5))):
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
        replica = self._replica()
        scanned, head = replica.fanout.scanned, replica.history.revision
        replica.watch(head if self.random.random() < 0.75 else self.random.randint(scanned, head))
        if self.random.random() < 0.7:
            replica.cut(self.now)
        return (
            f"{replica.name} {scanned}..{replica.fanout.scanned}, cut {replica.fanout.sender.cut}"
        )

    def do_cut(self) -> str:
        """A replica ends its tick."""
        replica = self._replica()
        replica.cut(self.now)
        return f"{replica.name} at {replica.fanout.sender.cut}"

    def do_pump(self) -> str:
        """An agent and its replica get on with each other."""
        agent = self._agent()
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
        replica = self._replica()
        if not replica.streams:
            return "nothing"
        stream = self.random.choice(replica.streams)
        replica.serve(stream, self.random.choice((0, 1, 100, 100)), self.now)
        return f"{replica.name} {stream.agent.name}: {len(stream.down)} on their way"

    def do_receive(self) -> str:
        """An agent takes messages."""
        agent = self._agent()
        agent.receive(self.random.choice((1, 2, 100, 100)), self.now)
        return agent.name

    def do_apply(self) -> str:
        """An agent takes a barrier into its kernel."""
        agent = self._agent()
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
        return self._come(self._agent())

    def _come(self, agent: Agent) -> str:
        if agent.index and agent.receiver is None:
            agent.start(self.history)
        if agent.stream is None or not agent.stream.has_server:
            replica = self._replica()
            if self.random.random() < 0.6:
                replica = max(self.replicas, key=lambda r: r.fanout.sender.head)
            self._connect(agent, replica)
        return self._where(agent)

    def _connect(self, agent: Agent, replica: Replica) -> None:
        agent.connect(replica, self.now, self.histories)
        self.check_addresses(agent)

    def _where(self, agent: Agent) -> str:
        if agent.stream is None:
            return f"{agent.name} -"
        return f"{agent.name} {agent.stream.replica.name} {agent.stream.session.reader.mode.name}"

    def do_audit(self) -> str:
        """An agent looks at what it holds."""
        agent = self._agent()
        agent.audit(self.now)
        return agent.name

    def do_leave(self) -> str:
        """A client is gone; the server does not notice."""
        agent = self._agent()
        if agent.stream is not None and self.random.random() < 0.5:
            agent.receive(self.random.choice((1, 2, 5)), self.now)
        agent.leave()
        return agent.name

    def do_end(self) -> str:
        """A server notices that a client is gone, or ends a stream."""
        replica = self._replica()
        if not replica.streams:
            return "nothing"
        stream = self.random.choice(replica.streams)
        if stream.has_client and self.random.random() < 0.7:
            return "nothing"
        replica.end(stream)
        return f"{replica.name} {stream.agent.name}"

    def do_move(self) -> str:
        """An agent goes to another replica; the old one goes on believing in its stream."""
        agent = self._agent()
        if agent.stream is not None:
            others = [r for r in self.replicas if r is not agent.stream.replica]
            self._connect(agent, self.random.choice(others))
        return self._where(agent)

    def do_want(self) -> str:
        """An agent prefetches."""
        agent = self._agent()
        known = [int.from_bytes(key) for kind, key in self.history.full if kind is Kind.IDENTITY]
        chosen = self.random.sample(known, min(len(known), self.random.choice((0, 1, 2))))
        if self.random.random() < 0.1:
            chosen.append(9999)
        agent.want(sorted(chosen))
        return f"{agent.name} {chosen}"

    def do_progress(self) -> str:
        """A replica's part in the watermark."""
        replica = self._replica()
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
            self._unfence(replica)
        return f"{replica.name} {self.board.watermark}"

    def _unfence(self, replica: Replica) -> None:
        for name in replica.outgrown():
            self.writes.unfence(name)
            self.check_watermark()
            for agent in self.agents:
                self.check_addresses(agent)

    def do_kill(self) -> str:
        """An agent's process dies."""
        agent = self._agent()
        agent.kill()
        return agent.name

    def do_reboot(self) -> str:
        """A machine starts anew."""
        agent = self._agent()
        agent.reboot()
        return agent.name

    def do_restart(self) -> str:
        """A replica's process dies."""
        replica = self._replica()
        replica.start(self.history, self.board)
        return replica.name

    def do_relist(self) -> str:
        """The store compacts what a replica has not seen."""
        replica = self._replica()
        replica.relist()
        return replica.name

    def do_drain(self) -> str:
        """A replica is stopped politely."""
        replica = self._replica()
        replica.fanout.drain(deadline_seconds=1.0)
        for stream in replica.streams.copy():
            replica.serve(stream, 100, self.now)
        replica.start(self.history, self.board)
        return replica.name

    def do_fence(self) -> str:
        """A node is fenced: nobody has heard of it."""
        if not (live := self._live()):
            return "nothing"
        agent = self.random.choice(live)
        self.writes.fence(agent.name)
        return agent.name

    def do_node(self) -> str:
        """A node is deleted, or comes back as another."""
        agent = self._agent()
        if agent.name in self.history.nodes:
            agent.reboot()
            self.writes.node_goes(agent.name)
            agent.index = 0
        else:
            self._register(agent)
        return agent.name

    def _register(self, agent: Agent) -> None:
        agent.uid = f"uid-{self.writes.next_node}"
        agent.index = self.writes.node_comes(agent.name, agent.uid)

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

    # --- what is spoiled -------------------------------------------------------------------------

    def do_spoil(self) -> str:
        """An entry in an agent's memory changes by itself."""
        agent = self._agent()
        if (
            agent.receiver is None
            or not len(view := agent.receiver.view)
            or agent.mended
            or agent.is_mending
        ):
            return "nothing"
        keys = sorted((h.value.kind, h.value.key) for h in view)
        kind, key = self.random.choice(keys)
        table, held = view._tables[kind], view._tables[kind][key]
        how = self.random.choice(("lost", "changed", "generation", "added"))
        if how == "lost" and len(keys) % 2:
            view._forget(held)  # as if its change had never come: only a digest tells
            agent.kernel.pop((kind, key), None)
        elif how == "lost":
            del table[key]
        elif how == "generation":
            table[key] = Held(held.value, held.generation + self.random.choice((-3, 5, 1 << 40)))
            if kind in DERIVED_KINDS and (kind, key) not in agent.corrupted:
                agent.latent.add((kind, key))
        elif how == "added":
            kind, key = self._add(agent)
        else:
            table[key] = Held(_spoiled(held.value), held.generation)
        if how == "lost" and len(keys) % 2:
            agent.latent.add((kind, key))  # the stream may bring it again
        elif how != "generation":
            agent.latent.discard((kind, key))
        agent.corrupted.add((kind, key))
        return f"{agent.name} {how} {kind.name} {key.hex()}"

    def _add(self, agent: Agent) -> ObjectKey:
        """Something that nobody has sent."""
        assert agent.receiver is not None
        value = EndpointObject(
            node_index=99,
            id=self.random.randint(1, 3),
            identity=300,
            addresses=AddressPair(ipv4=bytes((10, 9, 9, 9))),
            incarnation=5,
        )
        agent.receiver.view.endpoints[value.key] = Held(value, 7)
        return value.kind, value.key

    # --- the end ---------------------------------------------------------------------------------

    def settle(self) -> None:
        """Left in peace, everybody comes to the same end."""
        self._peace()
        end = self.now + PEACE_SECONDS
        mended_by = self.now + FOUND_SECONDS + MENDED_SECONDS
        while not self._is_settled():
            self.now += 0.25
            require(self.now < end, "rest: does not come to rest:", self._unsettled())
            self._serve_all()
            if self.now >= mended_by:
                for agent in self.agents:
                    mended = not (agent.wrong or agent.wild or agent.doubting)
                    require(mended, "repair: still spoiled:", agent.spoiled)
        for agent in self.agents:
            self._check_end(agent)

    def _peace(self) -> None:
        for agent in self.agents:
            if not agent.index:
                self._register(agent)
            if agent.receiver is None:
                agent.start(self.history)
        self._audits = 0

    def _serve_all(self) -> None:
        for replica in self.replicas:
            replica.watch(replica.history.revision)
            replica.cut(self.now)
            for left in replica.streams.copy():
                if not left.has_client:
                    replica.end(left)
        self._audits += 1
        for agent in self.agents:
            if agent.stream is None or not agent.stream.has_server:
                self._connect(agent, self._replica())
            if (stream := agent.stream) is None:
                continue
            stream.replica.serve(stream, 100, self.now)
            agent.receive(1000, self.now)
            agent.apply(self.histories)
            if self._audits % 4 == 0:
                agent.audit(self.now)
            agent.answer(self.now)
            self.check_addresses(agent)
        self.check()
        if self._audits % 4 == 0:
            for replica in self.replicas:
                replica.publish()
                replica.advance()
                self.check_watermark()
                replica.fanout.set_watermark(self.board.watermark)
                self._unfence(replica)

    def _is_settled(self) -> bool:
        return self._audits > 0 and not self._unsettled()

    def _unsettled(self) -> list[str]:
        found = []
        head = self.history.revision
        for agent in self.agents:
            stream = agent.stream
            if stream is None or not stream.has_server or stream.replica.fanout.scanned < head:
                found.append(f"{agent.name} has no stream")
            elif agent.revision != head or stream.replica.fanout.sender.effective(
                stream.session.reader
            ) < min(head, agent.revision):
                found.append(f"{agent.name} is at {agent.revision} of {head}")
            elif agent.wrong or agent.wild or agent.doubting:
                found.append(agent.spoiled)
            elif stream.session.reader.refused.keys() != agent.refused.keys():
                found.append(f"{agent.name} has a Nack under way")
        if self.history.fences:
            found.append(f"fenced: {sorted(self.history.fences)}")
        last = max((record.generation for record in self.history.records[-1:]), default=0)
        if self.board.watermark.live < last:
            found.append(f"the watermark is {self.board.watermark.live} of {head}")
        return found

    def _check_end(self, agent: Agent) -> None:
        assert agent.stream is not None
        assert agent.receiver is not None
        sender, reader = agent.stream.replica.fanout.sender, agent.stream.session.reader
        root = sender._writer.root(reader.scope, reader.node_index)
        require(agent.receiver.view.digest.root == root, "digest: differs at the end")
        view = {(h.value.kind, h.value.key): h.value for h in agent.receiver.view}
        wanted = agent.stream.wanted[agent.number] if agent.is_scoped else ()
        expected = self.history.content_at(agent.node, agent.revision, wanted)
        require(view == expected, "end: another view")
        require(reader.refused.keys() == agent.refused.keys(), "nack: refused differs")


def _spoiled(value: StreamObject) -> StreamObject:
    """Another value under the same key."""
    match value:
        case EndpointObject():
            return replace(value, identity=value.identity + 1)
        case PeerSet():
            return replace(value, identities=(*value.identities[1:], 700))
        case SubjectPolicy():
            return replace(value, ingress=DirectionPolicy(isolated=not value.ingress.isolated))
        case BlockObject():
            return replace(value, node_index=value.node_index + 1)
        case PoolObject():
            return replace(value, draining=not value.draining)
        case NodeObject():
            return replace(value, name=f"{value.name}x")
        case IdentityObject():
            return replace(value, namespace=f"{value.namespace}x")


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
