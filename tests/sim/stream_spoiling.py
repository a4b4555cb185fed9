"""An entry in an agent's memory is lost, becomes another, or comes by itself."""

import random
from dataclasses import replace

from deltaplane.delta.changes import ObjectKey
from deltaplane.delta.view import Held, View
from deltaplane.model.addresses import AddressPair
from deltaplane.model.objects import (
    BackendObject,
    BlockObject,
    DirectionPolicy,
    EndpointObject,
    IdentityObject,
    NodeObject,
    PeerSet,
    PoolObject,
    ServiceObject,
    StreamObject,
    SubjectPolicy,
)
from tests.sim.stream_agent import Agent


def spoil(agent: Agent, chance: random.Random) -> str:
    """An entry in the memory of an agent changes by itself; what happened, for people."""
    if (
        agent.receiver is None
        or not len(view := agent.receiver.view)
        or agent.mended
        or agent.is_mending
    ):
        return "nothing"
    keys = sorted((h.value.kind, h.value.key) for h in view)
    kind, key = chance.choice(keys)
    table, held = view._tables[kind], view._tables[kind][key]
    how = chance.choice(("lost", "changed", "generation", "added"))
    if how == "lost" and len(keys) % 2:
        view._forget(held)  # as if its change had never come: only a digest tells
        agent.kernel.pop((kind, key), None)
    elif how == "lost":
        del table[key]
    elif how == "generation":
        wrong = Held(held.value, held.generation + chance.choice((-3, 5, 1 << 40)))
        table[key] = agent.misdated[kind, key] = wrong
    elif how == "added":
        kind, key = _add(view, chance)
    else:
        table[key] = Held(_spoiled(held.value), held.generation)
    agent.corrupted.add((kind, key))
    return f"{agent.name} {how} {kind.name} {key.hex()}"


def _add(view: View, chance: random.Random) -> ObjectKey:
    """Something that nobody has sent."""
    value = EndpointObject(
        node_index=99,
        id=chance.randint(1, 3),
        identity=300,
        addresses=AddressPair(ipv4=bytes((10, 9, 9, 9))),
        incarnation=5,
    )
    view.endpoints[value.key] = Held(value, 7)
    return value.kind, value.key


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
        case IdentityObject() | ServiceObject():
            return replace(value, namespace=f"{value.namespace}x")
        case BackendObject():
            return replace(value, node_index=value.node_index + 1)
