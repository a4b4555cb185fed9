"""What a doctor concludes from what it was told. Pure.

A verdict is about one thing, and says what to do unless all is well.
"""

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from deltaplane.v1 import agent_pb2, ipam_pb2, registry_pb2, slicer_pb2

SILENT_SECONDS = 10.0
"""An agent that is behind says something sooner. One that is not may have nothing to say."""

FULL_PERCENT = 90
"""Of a pool's blocks: little is left for new nodes."""

SOON = timedelta(days=30)
"""A certificate that ends sooner should have been renewed by now, and one of a short life when less
than a quarter of it is left: what renews itself does so at a third."""


APART_SECONDS = 1.0
"""Clocks that are kept right are within milliseconds of each other."""

FAR_APART_SECONDS = 300.0
"""Certificates are dated back by so much: whose clock is further behind refuses new ones."""


class Health(enum.StrEnum):
    """How something is."""

    WELL = "well"
    DOUBTFUL = "doubtful"
    ILL = "ill"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One finding.

    Attributes:
        about: "cluster", or the node.
        check: what was looked at, a word or two.
        seen: what was found.
        advice: what to do; empty if all is well.
    """

    about: str
    check: str
    health: Health
    seen: str
    advice: str = ""

    def as_record(self) -> dict[str, str]:
        """As it is printed."""
        return {
            "about": self.about,
            "check": self.check,
            "health": str(self.health),
            "seen": self.seen,
            "advice": self.advice,
        }


CLUSTER = "cluster"


def is_late(agent: slicer_pb2.AgentStatus, head: int) -> bool:
    """Whether an agent is behind the slicer's revision and says nothing.

    What came this moment to an agent that had long had nothing to say makes it look so, too: ask
    again before it is believed.
    """
    return agent.effective_revision < head and agent.silent_seconds > SILENT_SECONDS


def nodes(
    known: registry_pb2.ListNodesResponse, streams: slicer_pb2.ListAgentsResponse
) -> Iterator[Verdict]:
    """Whether the agent of each registered node keeps up."""
    connected = {agent.node: agent for agent in streams.agents}
    fenced = {fence.node for fence in known.fences}
    for node in known.nodes:
        agent = connected.get(node.name)
        if agent is None:
            yield Verdict(
                about=node.name,
                check="stream",
                health=Health.ILL,
                seen="no agent is connected"
                + (", the node is fenced" if node.name in fenced else ""),
                advice="look at the agent's log; delete the node if it is gone for good: "
                f"deltaplane node delete {node.name}",
            )
        elif agent.nacked_objects or is_late(agent, streams.head_revision):
            yield Verdict(
                about=node.name,
                check="stream",
                health=Health.ILL,
                seen=f"{agent.nacked_objects} objects refused, at revision "
                f"{agent.effective_revision} of {streams.head_revision}, "
                f"heard {agent.silent_seconds:.0f} s ago",
                advice="look at the agent's log and at `deltaplane get nodes`",
            )
        else:
            seen = f"agrees with revision {agent.effective_revision}"
            yield Verdict(about=node.name, check="stream", health=Health.WELL, seen=seen)


def pools(known: Iterable[ipam_pb2.PoolStatus]) -> Iterator[Verdict]:
    """Whether pools have blocks left."""
    found = list(known)
    if not found:
        yield Verdict(
            about=CLUSTER,
            check="pools",
            health=Health.ILL,
            seen="there is no pool: no pod gets an address",
            advice="deltaplane pool create --help",
        )
    for status in found:
        claimed, total = status.blocks_claimed, status.blocks_total
        is_full = claimed * 100 >= total * FULL_PERCENT
        yield Verdict(
            about=CLUSTER,
            check=f"pool {status.pool.name}",
            health=Health.DOUBTFUL if is_full else Health.WELL,
            seen=f"{claimed} of {total} blocks are claimed",
            advice="grow it, or make another one: docs/howto/running-out-of-addresses.md"
            if is_full
            else "",
        )


def agent(status: agent_pb2.GetStatusResponse, version: str) -> Iterator[Verdict]:
    """What an agent says about itself. version: ours."""
    about = status.node
    if not status.connected:
        yield Verdict(
            about=about,
            check="agent",
            health=Health.ILL,
            seen="it has no stream: its kernel stays as it is",
            advice="see whether the node reaches a slicer",
        )
    if status.held_entries:
        yield Verdict(
            about=about,
            check="brake",
            health=Health.ILL,
            seen=f"it holds {status.held_entries} of {status.held_of} entries back",
            advice="docs/howto/nodes.md, “a node is braked”",
        )
    for text in status.refused:
        yield Verdict(
            about=about,
            check="objects",
            health=Health.ILL,
            seen=text,
            advice="what is refused stays closed; see the agent's log",
        )
    if status.version != version:
        yield Verdict(
            about=about,
            check="version",
            health=Health.DOUBTFUL,
            seen=f"the agent is {status.version}, this command {version}",
            advice="fine while an upgrade is under way: docs/howto/upgrade.md",
        )
    if status.connected and not status.held_entries and not status.refused:
        seen = f"{status.interfaces} interfaces, revision {status.applied_revision}"
        yield Verdict(about=about, check="agent", health=Health.WELL, seen=seen)


def certificate(about: str, name: str, lasts: tuple[datetime, datetime], now: datetime) -> Verdict:
    """Whether a certificate lasts. lasts: from when, until when."""
    starts, ends = lasts
    left = ends - now
    health = Health.WELL
    if left <= timedelta():
        health = Health.ILL
    elif left < min(SOON, (ends - starts) / 4):
        health = Health.DOUBTFUL
    return Verdict(
        about=about,
        check="certificate",
        health=health,
        seen=f"{name} ends {ends:%Y-%m-%d %H:%M} UTC",
        advice="" if health is Health.WELL else "issue another one: docs/howto/certificates.md",
    )


def clock(about: str, *, synchronised: bool, error_seconds: float) -> Verdict:
    """Whether somebody keeps the machine's clock right; certificates and logs need it."""
    return Verdict(
        about=about,
        check="time",
        health=Health.WELL if synchronised else Health.DOUBTFUL,
        seen=f"the clock is synchronised to {error_seconds:.1g} s"
        if synchronised
        else "nobody synchronises the clock",
        advice="" if synchronised else "run an NTP client: certificates are judged by this clock",
    )


def skew(about: str, *, asked_ms: int, told_ms: int, answered_ms: int) -> Verdict | None:
    """Whether a node's clock agrees with ours; None: its agent is too old to say.

    Its clock was read between the question and the answer, both read from ours: what it is beyond
    either of them it is wrong, or we are.

    Args:
        about: the node.
        asked_ms: our clock before the question, in milliseconds since 1970.
        told_ms: its clock; 0: not told.
        answered_ms: our clock after the answer.
    """
    if not told_ms:
        return None
    apart = max(asked_ms - told_ms, told_ms - answered_ms, 0) / 1000
    health = Health.WELL
    if apart > APART_SECONDS:
        health = Health.ILL if apart > FAR_APART_SECONDS else Health.DOUBTFUL
    side = "behind" if told_ms < asked_ms else "ahead of"
    return Verdict(
        about=about,
        check="clock",
        health=health,
        seen="it agrees with this machine's"
        if health is Health.WELL
        else f"it is {apart:.1f} s {side} this machine's",
        advice=""
        if health is Health.WELL
        else "run an NTP client on both: certificates are judged by clocks, logs and traces "
        "compared by them; addresses and policies need none",
    )


def missing(about: str, lacks: Sequence[tuple[str, str]]) -> Iterator[Verdict]:
    """What the machine lacks: (what, how to get it)."""
    for what, how in lacks:
        yield Verdict(
            about=about, check="kernel", health=Health.ILL, seen=f"{what} is missing", advice=how
        )
    if not lacks:
        yield Verdict(
            about=about, check="kernel", health=Health.WELL, seen="it has all that is needed"
        )


def pins(about: str, schemas: Mapping[str, int], wanted: str) -> Verdict:
    """Which maps are pinned: schema → how many; wanted: the one that this version uses."""
    if not schemas.get(wanted):
        return Verdict(
            about=about,
            check="pins",
            health=Health.ILL,
            seen=f"no map of {wanted} is pinned"
            + (f", but of {', '.join(schemas)}" if schemas else ""),
            advice="start the agent: it makes them; without them packets are not judged",
        )
    others = [name for name in schemas if name != wanted]
    return Verdict(
        about=about,
        check="pins",
        health=Health.DOUBTFUL if others else Health.WELL,
        seen=f"{schemas[wanted]} maps of {wanted}"
        + (f", and of {', '.join(others)}" if others else ""),
        advice="an agent of another version has left them: they cost memory, nobody reads them"
        if others
        else "",
    )


def worst(verdicts: Iterable[Verdict]) -> Health:
    """The worst of all."""
    order = list(Health)
    return max((item.health for item in verdicts), key=order.index, default=Health.WELL)
