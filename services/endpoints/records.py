"""What the registry keeps, as values. Syntax is checked where messages are read: `wire`."""

import enum
from dataclasses import dataclass

from deltaplane.model.addresses import AddressPair
from deltaplane.model.ports import NamedPort


class State(enum.IntEnum):
    """What an endpoint can do. Numbers of deltaplane.v1.Endpoint.State."""

    WAITING_FOR_POD = 1
    READY = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who holds an interface, as the CNI runtime names it."""

    network: str
    container_id: str
    interface: str
    attempt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A registered node. index: 1 or more, 0 before registration."""

    name: str
    uid: str
    addresses: AddressPair
    boot_id: str = ""
    index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod record. labels and annotations: ascending (key, value), before the identity filter."""

    namespace: str
    name: str
    uid: str
    node: str
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    named_ports: tuple[NamedPort, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A node's wish to register an endpoint. pod_uid: empty when the runtime gave none."""

    node: str
    node_uid: str
    id: int
    namespace: str
    pod: str
    pod_uid: str
    owner: Owner
    addresses: AddressPair
    traceparent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A registered endpoint.

    Attributes:
        request: what the node asked for; node_uid is empty when read from a record.
        node_index: cluster-wide number of the node.
        identity: Reserved.INIT while the state is WAITING_FOR_POD.
        state: what it can do.
    """

    request: Request
    node_index: int
    identity: int
    state: State
