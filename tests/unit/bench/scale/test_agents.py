"""The simulated agents against what they are told: the real sender, and the two baselines."""

import random
from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest

from bench.scale import loads, records
from bench.scale.agents import Agent, EndpointAgent, SliceAgent
from bench.scale.applied import change_key, measure
from bench.scale.baselines import Endpoints, Slices, message
from bench.scale.commands import content_of, differences
from bench.scale.decoding import Level, decoder_of
from bench.scale.delta_agent import CREDIT_BYTES, DeltaAgent
from bench.scale.world import Shape, World
from deltaplane.delta.messages import Hello
from deltaplane.delta.reader import Reader
from deltaplane.delta.sender import Sender
from deltaplane.delta.span import span
from deltaplane.delta.tick import Tick
from deltaplane.delta.wire import ProtobufEncoder, decode_request
from deltaplane.policy.compiler import Compiler
from deltaplane.runtime.http2 import CallBroken
from deltaplane.store import keys
from deltaplane.store.port import Event
from deltaplane.v1 import registry_pb2
from services.slicer.facts import Facts
from services.slicer.wire import record_from_store
from tests.unit.bench.scale.stored import Stored

LINEAGE = bytes(range(16))


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 1
        return self.now


def decoder(mode: str, level: Level = Level.FULL) -> Any:
    return decoder_of(mode, level)


def truth_of(stored: Stored) -> dict[int, tuple[int, str, str]]:
    found = {}
    for item in stored.items:
        if item.key.startswith(keys.ENDPOINTS):
            one = registry_pb2.Endpoint.FromString(item.value)
            found[one.node_index << 32 | one.id] = content_of(one)
    return found


class Plane:
    """A slicer's core and its store."""

    def __init__(self, shape: Shape | None = None, *, is_scoped: bool = False) -> None:
        self.world = World(shape or Shape(3, 60))
        self.stored = Stored()
        self.facts = Facts(Compiler())
        self._take(self.stored.take(records.foundation(self.world)))
        pods = self.world.fill()
        operations = (op for pod in pods for op in records.create(self.world, pod))
        self._take(self.stored.take(operations))
        self.sender = Sender(
            lineage=LINEAGE,
            server_id="s",
            encoder=ProtobufEncoder(),
            revision=self.stored.revision,
            objects=self.facts.flush(self.stored.revision),
            is_scoped=is_scoped,
        )
        self.now = 0.0

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.key.startswith(keys.STATE):
                self.facts.apply(record_from_store(event))

    def write(self, changes: int) -> None:
        """Churns, and cuts a tick."""
        events = []
        for step in loads.churn(self.world, rate=changes, seconds=1):
            self._take(self.stored.take(step.operations))
            events.append(self.stored.revision)
        revision = self.stored.revision
        tick = Tick(
            revision=revision,
            changes=self.facts.flush(revision),
            events=tuple(events),
            oldest_change_unix_ns=1,
        )
        self.sender.publish(tick, now=self.now, wall_ns=1)

    def connect(self, agent: Agent) -> Reader:
        hello = decode_request(agent.hello())
        assert isinstance(hello, Hello)
        index = int(hello.node.removeprefix("node-"))
        return self.sender.connect(hello, node_index=index, now=self.now)

    def spanned(self, node: int) -> dict[int, tuple[int, str, str]]:
        """What a node should hold."""
        scope = span(self.sender.view, node)
        held = self.sender.view.endpoints.values()
        keys_ = {h.value.node_index << 32 | h.value.id for h in held if scope.holds(h.value, node)}
        return {key: value for key, value in truth_of(self.stored).items() if key in keys_}

    def exchange(self, agent: Agent, reader: Reader, *, limit: int = 1000) -> None:
        """Delivers what there is and takes what the agent says."""
        for _ in range(limit):
            self.now += 1.0
            batch = self.sender.poll(reader, self.now)
            for data in batch:
                agent.receive(data)
            reply = agent.poll(int(self.now * 1e9))
            if reply is not None:
                self.sender.receive(reader, decode_request(reply), now=self.now)
            if reader.barrier_revision == self.sender.head and reader.applied == self.sender.head:
                return
        raise AssertionError("the agent never acknowledged the head")


def delta_agent() -> DeltaAgent:
    return DeltaAgent("node-1", "uid-node-1", decoder("delta"), Clock())


def test_an_agent_follows_the_real_sender() -> None:
    plane, agent = Plane(), delta_agent()
    reader = plane.connect(agent)
    plane.exchange(agent, reader)
    for changes in (2, 50, 4):
        plane.write(changes)
        plane.exchange(agent, reader)
    assert differences(agent.endpoints(), truth_of(plane.stored), None) == []
    assert agent.acks == 4


def test_a_laggard_that_comes_back_goes_on_without_a_snapshot() -> None:
    plane, agent = Plane(), delta_agent()
    plane.exchange(agent, plane.connect(agent))
    plane.write(40)
    plane.write(40)
    plane.exchange(agent, plane.connect(agent))
    assert agent.snapshots == 1
    assert differences(agent.endpoints(), truth_of(plane.stored), None) == []


def test_every_change_is_noted_with_its_time() -> None:
    plane, agent = Plane(), delta_agent()
    reader = plane.connect(agent)
    plane.exchange(agent, reader)
    before = set(plane.world.pods)
    plane.write(20)
    plane.exchange(agent, reader)
    after = set(plane.world.pods)
    expected = {change_key(key, gone=False) for key in after - before}
    expected |= {change_key(key, gone=True) for key in before - after}
    found = measure([agent.log], dict.fromkeys(expected, (0, 0)))
    assert found.agents == dict.fromkeys(expected, 1)


def test_credit_is_given_back_in_full() -> None:
    plane, agent = Plane(), delta_agent()
    reader = plane.connect(agent)
    plane.exchange(agent, reader)
    plane.write(100)
    plane.exchange(agent, reader)
    assert reader.credit == CREDIT_BYTES


def test_an_ack_waits_for_its_interval() -> None:
    plane, agent = Plane(), delta_agent()
    reader = plane.connect(agent)
    plane.exchange(agent, reader)
    first = int(plane.now * 1e9)
    plane.write(2)
    for data in plane.sender.poll(reader, plane.now + 2):
        agent.receive(data)
    assert agent.due_ns() == first + 100_000_000
    assert agent.poll(first + 99_999_999) is None
    assert agent.poll(first + 100_000_000) is not None
    assert agent.due_ns() is None


def test_a_gap_between_frames_is_seen() -> None:
    plane, agent = Plane(), delta_agent()
    reader = plane.connect(agent)
    plane.exchange(agent, reader)
    plane.write(2)
    plane.sender.poll(reader, plane.now + 2)  # lost
    plane.write(2)
    frame, _barrier = plane.sender.poll(reader, plane.now + 4)
    with pytest.raises(CallBroken):
        agent.receive(frame)
    plane.exchange(agent, plane.connect(agent))
    assert agent.snapshots == 2
    assert differences(agent.endpoints(), truth_of(plane.stored), None) == []


@pytest.mark.parametrize("level", list(Level))
def test_what_agents_share_changes_nothing(level: Level) -> None:
    plane, shared = Plane(), decoder("delta", level)
    agents = [DeltaAgent(f"node-{index}", "uid", shared, Clock()) for index in (1, 2)]
    readers = []
    for agent in agents:
        readers.append(plane.connect(agent))
        plane.exchange(agent, readers[-1])
    assert bool(shared.reused) == (level is not Level.FULL)
    plane.write(20)
    for agent, reader in zip(agents, readers, strict=True):
        plane.exchange(agent, reader)
        assert differences(agent.endpoints(), truth_of(plane.stored), None) == []


@pytest.mark.parametrize("reconnects", [False, True])
def test_an_agent_follows_its_span(*, reconnects: bool) -> None:
    plane, agent = Plane(Shape(6, 10), is_scoped=True), delta_agent()
    reader = plane.connect(agent)
    plane.exchange(agent, reader)
    sizes = set()
    for _ in range(40):
        plane.write(4)
        if reconnects:
            reader = plane.connect(agent)
        plane.exchange(agent, reader)
        expected = plane.spanned(1)
        assert differences(agent.endpoints(), expected, None) == []
        assert expected.keys() >= plane.world.spanned(1)
        sizes.add(len(expected))
    assert agent.snapshots == 1
    # With and without the other deployment: the span has changed on the way.
    assert max(sizes) > 20 > min(sizes), sizes


@pytest.mark.parametrize("mode", ["endpoint", "slice"])
def test_a_baseline_agent_ends_with_what_the_store_has(mode: str) -> None:
    plane, numbers = Plane(), count(1)
    endpoints = [item for item in plane.stored.items if item.key.startswith(keys.ENDPOINTS)]
    feed: Endpoints | Slices = Slices() if mode == "slice" else Endpoints()
    feed.load(endpoints)
    agent: EndpointAgent | SliceAgent = (
        SliceAgent(decoder("slice"), Clock())
        if mode == "slice"
        else EndpointAgent(decoder("endpoint"), Clock())
    )
    agent.hello()
    agent.receive(message(feed.objects(), 0))
    agent.receive(message([], 0, complete=True))
    before = set(plane.world.pods)
    for step in loads.churn(plane.world, rate=100, seconds=2):
        events = plane.stored.take(step.operations)
        feed.take([event for event in events if event.key.startswith(keys.ENDPOINTS)], step.at)
        for event in feed.changes(step.at):
            agent.receive(message([event], next(numbers)))
    for event in feed.changes(float("inf")):
        agent.receive(message([event], next(numbers)))
    assert differences(agent.endpoints(), truth_of(plane.stored), None) == []
    came = {change_key(key, gone=False) for key in set(plane.world.pods) - before}
    assert measure([agent.log], dict.fromkeys(came, (0, 0))).agents == dict.fromkeys(came, 1)


def test_slices_are_full_before_a_new_one_begins_and_wait_half_a_second() -> None:
    plane, slices = Plane(), Slices()
    slices.load([item for item in plane.stored.items if item.key.startswith(keys.ENDPOINTS)])
    assert len(list(slices.objects())) == 2  # 180 endpoints of one namespace
    events = plane.stored.take(records.create(plane.world, plane.world.create(0)))
    slices.take(events[:1], 10.0)
    assert slices.due_at() == 10.5
    assert slices.changes(10.4) == []
    (sent,) = slices.changes(10.5)
    members = registry_pb2.ListEndpointsResponse.FromString(sent.kv.value).endpoints
    assert len(members) == 81
    assert slices.due_at() is None


def test_an_empty_slice_goes() -> None:
    plane, slices = Plane(), Slices()
    slices.load([item for item in plane.stored.items if item.key.startswith(keys.ENDPOINTS)])
    agent = SliceAgent(decoder("slice"), Clock())
    agent.receive(message(slices.objects(), 0, complete=True))
    pods = list(plane.world.pods.values())
    random.Random(0).shuffle(pods)
    for pod in pods:
        events = plane.stored.take(records.delete(plane.world, pod))
        slices.take([event for event in events if event.key.startswith(keys.ENDPOINTS)], 0.0)
    agent.receive(message(slices.changes(1.0), 1))
    assert list(slices.objects()) == []
    assert list(agent.endpoints()) == []


def test_differences_are_seen() -> None:
    plane, agent = Plane(), delta_agent()
    plane.exchange(agent, plane.connect(agent))
    truth = truth_of(plane.stored)
    missing, changed = sorted(truth)[:2]
    assert len(differences(agent.endpoints(), {**truth, 1: (1, "", "")}, None)) == 1
    assert len(differences(agent.endpoints(), {**truth, changed: (1, "", "")}, None)) == 1
    del truth[missing]
    assert len(differences(agent.endpoints(), truth, None)) == 1
    assert differences([], truth, []) == []
    assert len(differences([], truth, [changed])) == 1
