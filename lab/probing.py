"""All questions of a probe and the rows it ends with. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.pods import Phase, Pod

PROBED = ("TCP", "UDP")
"""SCTP ports are left out: few kernels have SCTP sockets."""


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Question:
    """May one pod reach one port of another by one family?

    Attributes:
        source: "namespace/pod" that asks.
        destination: "namespace/pod" that is asked.
        port: 1..65535.
        protocol: "TCP" or "UDP".
        family: "ipv4" or "ipv6".
        address: address of the destination.
        source_uid: UID of the source pod: names its network namespace.
        node: node of the source pod.
        http: the port speaks HTTP.
    """

    source: str
    destination: str
    port: int
    protocol: str
    family: str
    address: str
    source_uid: str
    node: str
    http: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One answer."""

    source: str
    destination: str
    port: int
    protocol: str
    family: str
    allowed: bool

    def as_json(self) -> dict[str, str | int | bool]:
        """The row as `lab probe -o json` prints it."""
        return {
            "from": self.source,
            "to": self.destination,
            "port": self.port,
            "protocol": self.protocol,
            "family": self.family,
            "allowed": self.allowed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What a probe found.

    Attributes:
        rows: ordered by source, destination, port, protocol, family.
        rounds: how often everything was asked.
        seconds: how long it took.
        stable: the last two rounds agreed.
        wrong: answers that came from somebody else, for people; empty when all is well.
    """

    rows: tuple[Row, ...]
    rounds: int
    seconds: float
    stable: bool
    wrong: tuple[str, ...]

    @property
    def allowed(self) -> int:
        """Number of rows that are allowed."""
        return sum(row.allowed for row in self.rows)


def questions(pods: Sequence[Pod]) -> tuple[Question, ...]:
    """Every ordered pair of running pods, each port and family of the second, in row order.

    The name server is left out: it does not say who it is.
    """
    running = [pod for pod in pods if pod.phase is Phase.RUNNING and pod.serves != "dns"]
    return tuple(
        sorted(
            Question(
                source=source.reference,
                destination=destination.reference,
                port=port,
                protocol=protocol,
                family="ipv6" if ":" in address else "ipv4",
                address=address,
                source_uid=source.uid,
                node=source.node,
                http=protocol == "TCP" and destination.serves == "http",
            )
            for source in running
            for destination in running
            if source != destination
            for protocol, port in {(port.protocol, port.number) for port in destination.ports}
            if protocol in PROBED
            for address in destination.addresses
        )
    )


def rows(asked: Sequence[Question], outcomes: Mapping[Question, str]) -> tuple[Row, ...]:
    """The rows of one round."""
    return tuple(
        Row(
            source=question.source,
            destination=question.destination,
            port=question.port,
            protocol=question.protocol,
            family=question.family,
            allowed=outcomes[question] == "allowed",
        )
        for question in asked
    )


def wrong(outcomes: Mapping[Question, str]) -> tuple[str, ...]:
    """Answers that came from somebody else."""
    return tuple(
        f"{question.source} -> {question.destination} {question.protocol}/{question.port}"
        f" ({question.family}): {outcome}"
        for question, outcome in sorted(outcomes.items())
        if outcome.startswith("wrong")
    )
