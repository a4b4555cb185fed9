"""What a change costs the core of the slicer: view, spans, frames, barriers, acknowledgements.

One process, no gRPC and no etcd: the hot path alone, for a comparison before and after a change.
"""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from deltaplane.delta.changes import Change, Removal, Upsert
from deltaplane.delta.messages import Ack, Hello
from deltaplane.delta.reader import Reader
from deltaplane.delta.sender import Sender
from deltaplane.delta.tick import Tick
from deltaplane.delta.wire import ProtobufEncoder
from deltaplane.model.addresses import AddressPair
from deltaplane.model.identity import FIRST_IDENTITY
from deltaplane.model.objects import (
    DirectionPolicy,
    DirectionRule,
    EndpointObject,
    IdentityObject,
    Kind,
    NodeObject,
    PeerSet,
    SubjectPolicy,
)

DEPLOYMENT = 20
LARGE_SHARE = 5
"""One pod in so many belongs to the one large deployment."""

POLICY_EVERY = 10
TICK_SECONDS = 0.05
SEED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Fanned:
    """What was measured; CPU times of this process.

    Attributes:
        is_scoped: the agents are told of their span.
        snapshot_ms: of one agent's first view.
        change_us: of a change, all agents included.
        touched: agents that a tick concerns, on average.
        bytes_per_change: for each of all agents.
    """

    is_scoped: bool
    snapshot_ms: float
    change_us: float
    touched: float
    bytes_per_change: float


def fan_out(*, nodes: int, pods: int, ticks: int, per_tick: int, is_scoped: bool) -> Fanned:
    """Measures once: pods go and come back, two changes each."""
    drawn = random.Random(SEED)
    endpoints = _endpoints(nodes, nodes * pods, drawn)
    sender = Sender(
        lineage=b"L" * 16,
        server_id="bench",
        encoder=ProtobufEncoder(),
        revision=10,
        objects=[*_structure(nodes, endpoints), *(Upsert(e, 5) for e in endpoints)],
        is_scoped=is_scoped,
    )
    readers: list[Reader] = []
    started = time.process_time()
    for node in range(1, nodes + 1):
        hello = Hello(node=f"node-{node}", node_uid="uid", credit_bytes=1 << 40)
        readers.append(sender.connect(hello, node_index=node, now=0.0))
        _serve(sender, readers[-1], 0.0)
    snapshots = time.process_time() - started
    touched = size = 0
    started = time.process_time()
    for number, (revision, changes) in enumerate(_ticks(endpoints, ticks, per_tick, drawn)):
        events = tuple(change.generation for change in changes)
        tick = Tick(revision=revision, changes=changes, events=events, oldest_change_unix_ns=1)
        now = number * TICK_SECONDS
        sender.publish(tick, now=now, wall_ns=1)
        for reader in readers:
            if reader.is_due:
                touched += 1
                size += _serve(sender, reader, now)
    spent = time.process_time() - started
    total = ticks * per_tick
    return Fanned(
        is_scoped=is_scoped,
        snapshot_ms=snapshots / nodes * 1e3,
        change_us=spent / total * 1e6,
        touched=touched / ticks,
        bytes_per_change=size / total / nodes,
    )


def _serve(sender: Sender, reader: Reader, now: float) -> int:
    """What an agent that keeps up gets, acknowledged; its bytes."""
    size = 0
    while batch := sender.poll(reader, now):
        size += sum(map(len, batch))
    ack = Ack(applied_revision=reader.barrier_revision, received_revision=reader.barrier_revision)
    sender.receive(reader, ack, now=now)
    return size


def _endpoints(nodes: int, count: int, drawn: random.Random) -> list[EndpointObject]:
    large = count // LARGE_SHARE
    identities = [FIRST_IDENTITY] * large
    identities += [FIRST_IDENTITY + 1 + n // DEPLOYMENT for n in range(count - large)]
    drawn.shuffle(identities)
    return [
        EndpointObject(
            node_index=number % nodes + 1,
            id=number // nodes + 1,
            identity=identity,
            addresses=AddressPair(
                ipv4=b"\x0a" + number.to_bytes(3), ipv6=b"\xfd" + number.to_bytes(15)
            ),
            incarnation=5,
        )
        for number, identity in enumerate(identities)
    ]


def _structure(nodes: int, endpoints: list[EndpointObject]) -> Iterator[Change]:
    """Nodes, identities and policies: each tenth deployment lets the next one in."""
    for node in range(1, nodes + 1):
        addresses = AddressPair(ipv4=b"\xc6\x13" + node.to_bytes(2))
        yield Upsert(NodeObject(index=node, name=f"node-{node}", addresses=addresses), 1)
    numbers = sorted({endpoint.identity for endpoint in endpoints})
    for place, number in enumerate(numbers):
        yield Upsert(IdentityObject(id=number, namespace="load", labels=(f"app={number}",)), 2)
        if place % POLICY_EVERY:
            yield Upsert(SubjectPolicy(identity=number), 3)
            continue
        key = number.to_bytes(16)
        yield Upsert(PeerSet(set_key=key, identities=(numbers[(place + 1) % len(numbers)],)), 3)
        rules = (DirectionRule(peer_sets=(key,)),)
        ingress = DirectionPolicy(isolated=True, rules=rules, policies=("load/next",))
        yield Upsert(SubjectPolicy(identity=number, ingress=ingress), 3)


def _ticks(
    endpoints: list[EndpointObject], ticks: int, per_tick: int, drawn: random.Random
) -> Iterator[tuple[int, tuple[Change, ...]]]:
    revision = 10
    for _ in range(ticks):
        changes: list[Change] = []
        for place in drawn.sample(range(len(endpoints)), per_tick // 2):
            gone = endpoints[place]
            changes.append(
                Removal(
                    kind=Kind.ENDPOINT,
                    key=gone.key,
                    generation=revision + 1,
                    incarnation=gone.incarnation,
                )
            )
            revision += 2
            endpoints[place] = EndpointObject(
                node_index=gone.node_index,
                id=gone.id,
                identity=gone.identity,
                addresses=gone.addresses,
                incarnation=revision,
            )
            changes.append(Upsert(endpoints[place], revision))
        yield revision, tuple(changes)
