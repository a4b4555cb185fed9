"""What a process of simulated agents is asked for: one JSON object a line in, one a line out.

The answers are the same whether the agents read raw HTTP/2 (`fleet`) or use grpc.aio (`control`).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from bench.scale.applied import Log, Measured, measure
from deltaplane.v1 import slicer_pb2 as pb

Truth = Mapping[int, tuple[int, str, str]]
"""What the store has of each endpoint: identity and both addresses in hex, by endpoint key."""

WRONG_AT_MOST = 5
"""Differences that are spelt out."""


class Watched(Protocol):
    """What the answers need of an agent; see `bench.scale.agents.Agent`."""

    log: Log
    in_sync_ns: int
    snapshots: int
    messages: int
    acks: int

    def endpoints(self) -> Iterator[tuple[int, Any]]:
        """All that it holds, by endpoint key."""
        ...


def content_of(endpoint: Any) -> tuple[int, str, str]:  # noqa: ANN401 - three generated types
    """An endpoint in the form of a truth."""
    pair = endpoint if isinstance(endpoint, pb.EndpointUpsert) else endpoint.addresses
    return endpoint.identity, (pair.ipv4 or b"").hex(), (pair.ipv6 or b"").hex()


def differences(
    held: Iterable[tuple[int, Any]], truth: Truth, required: Iterable[int] | None
) -> list[str]:
    """What an agent holds and the store does not, or the other way round.

    Args:
        held: by endpoint key.
        truth: the store.
        required: what it has to hold of the truth at least; None: all of it.
    """
    found = []
    seen = set()
    for key, endpoint in held:
        seen.add(key)
        expected = truth.get(key)
        if expected is None:
            found.append(f"{key:#x} is held and gone")
        elif tuple(expected) != content_of(endpoint):
            found.append(f"{key:#x} is {content_of(endpoint)} instead of {expected}")
    needed = truth if required is None else required
    return found + [f"{key:#x} is missing" for key in needed if key not in seen]


def stats(agents: Sequence[Watched], *, received: int) -> dict[str, object]:
    """Counters since the process began. received: bytes of all connections, HTTP/2 included."""
    return {
        "agents": len(agents),
        "in_sync": sum(agent.in_sync_ns > 0 for agent in agents),
        "last_in_sync_ns": max((agent.in_sync_ns for agent in agents), default=0),
        "in_sync_ns": sorted(agent.in_sync_ns for agent in agents),
        "snapshots": sum(agent.snapshots for agent in agents),
        "messages": sum(agent.messages for agent in agents),
        "acks": sum(agent.acks for agent in agents),
        "bytes": received,
        "applied": sum(
            len(came) + len(went) for agent in agents for _, came, went in agent.log.entries
        ),
    }


def measured_to_json(found: Measured) -> dict[str, object]:
    """For `measured_from_json`."""
    return {
        "spread": list(found.spread.counts.items()),
        "from_begin": list(found.from_begin.counts.items()),
        "last": list(found.last.items()),
        "agents": list(found.agents.items()),
    }


def measured_from_json(data: Mapping[str, Any]) -> Measured:
    """Reads what `measured_to_json` made."""
    found = Measured()
    found.spread.merge(dict(data["spread"]))
    found.from_begin.merge(dict(data["from_begin"]))
    found.last, found.agents = dict(data["last"]), dict(data["agents"])
    return found


def answer(agents: Mapping[int, Watched], command: Mapping[str, Any]) -> dict[str, object] | None:
    """Answers what needs nothing but the agents, by node index; None: it is another command."""
    match command["do"]:
        case "clear":
            for agent in agents.values():
                agent.log.entries.clear()
            return {}
        case "measure":
            read = json.loads(Path(command["file"]).read_text(encoding="utf-8"))
            times = {change: (begun, answered) for change, begun, answered in read}
            return measured_to_json(measure([agent.log for agent in agents.values()], times))
        case "verify":
            return _verify(agents, command)
        case _:
            return None


def _verify(agents: Mapping[int, Watched], command: Mapping[str, Any]) -> dict[str, object]:
    read = json.loads(Path(command["file"]).read_text(encoding="utf-8"))
    truth = {int(key): tuple(value) for key, value in read["truth"].items()}
    required = read["required"]
    wrong: list[str] = []
    checked = [node for node in command["nodes"] if node in agents]
    held = 0
    for node in checked:
        mine = list(agents[node].endpoints())
        held += len(mine)
        needs = None if required is None else required[str(node)]
        wrong += [f"node {node}: {text}" for text in differences(mine, truth, needs)]
    return {
        "checked": len(checked),
        "held": held,
        "differences": len(wrong),
        "examples": wrong[:WRONG_AT_MOST],
    }
