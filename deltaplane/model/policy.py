"""Network policies as the Kubernetes API means them, after validation and defaulting."""

from dataclasses import dataclass

from deltaplane.model.addresses import Prefix
from deltaplane.model.ports import MAX_PORT, Protocol
from deltaplane.model.selector import LabelSelector


@dataclass(frozen=True, slots=True)
class IPBlock:
    """Addresses of a prefix but for exceptions inside it.

    Attributes:
        cidr: the prefix.
        except_: prefixes that are left out; each lies inside cidr and is smaller.

    Raises:
        ValueError: an exception is not a strict part of cidr.
    """

    cidr: Prefix
    except_: tuple[Prefix, ...] = ()

    def __post_init__(self) -> None:
        for hole in self.except_:
            if not self.cidr.contains(hole) or hole.length == self.cidr.length:
                message = f"except {hole} is not a strict part of {self.cidr}"
                raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPeer:
    """One peer of a rule.

    Attributes:
        pod_selector: None: not given (with a namespace_selector: every pod of those namespaces).
        namespace_selector: None: the policy's own namespace.
        ip_block: excludes the selectors.

    Raises:
        ValueError: nothing is given, or ip_block together with a selector.
    """

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = None

    def __post_init__(self) -> None:
        has_selector = self.pod_selector is not None or self.namespace_selector is not None
        if has_selector == (self.ip_block is not None):
            message = "a peer is either an ipBlock or one or two selectors"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPort:
    """Ports of one protocol.

    Attributes:
        protocol: transport protocol.
        port: a number 1..65535, the name of a port of the destination pod, or None for every port.
        end_port: last port of a range that starts at the number, or None.
    """

    protocol: Protocol = Protocol.TCP
    port: int | str | None = None
    end_port: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.port, int) and not 1 <= self.port <= MAX_PORT:
            message = f"port {self.port} is outside 1..{MAX_PORT}"
            raise ValueError(message)
        if self.end_port is not None and not (
            isinstance(self.port, int) and self.port <= self.end_port <= MAX_PORT
        ):
            message = f"endPort {self.end_port} needs a numeric port that is not above it"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
    """(any of peers) and (any of ports); an empty tuple means all."""

    peers: tuple[PolicyPeer, ...] = ()
    ports: tuple[PolicyPort, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPolicy:
    """A NetworkPolicy v1.

    Attributes:
        namespace: where it lives and where it selects pods.
        name: unique in the namespace.
        pod_selector: its subjects.
        applies_to_ingress: isolates its subjects for ingress.
        applies_to_egress: isolates its subjects for egress.
        ingress: what may come in.
        egress: what may go out.
        audit: it is judged as if it were not there; what it would deny is counted.
    """

    namespace: str
    name: str
    pod_selector: LabelSelector
    applies_to_ingress: bool
    applies_to_egress: bool
    ingress: tuple[PolicyRule, ...] = ()
    egress: tuple[PolicyRule, ...] = ()
    audit: bool = False

    @property
    def reference(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"
