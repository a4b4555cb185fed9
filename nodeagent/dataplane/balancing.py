"""What the agent asks of the kernel for services: values of the maps, and the calls.

Addresses are 16 bytes, IPv4 as IPv4-mapped. A *list* is the backends of one service port, one
family and one scope; the agent numbers lists. Lists for clients inside the cluster have no holes:
a client takes any slot below `count`. Lists for clients outside may have holes: a *table* says
which slot a hash leads to.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

NODE_PORT_IPV4 = bytes(10) + b"\xff\xff" + bytes(4)
NODE_PORT_IPV6 = bytes(16)
"""Addresses of frontends that every node has: the unspecified ones."""

Port = tuple[int, int]
"""(IP protocol number, number 1..65535)."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class FrontendKey:
    """Where clients connect to.

    Attributes:
        address: 16 bytes; NODE_PORT_IPV4 or NODE_PORT_IPV6: the port of every node's own
            addresses of that family.
        protocol: IP protocol number.
        port: 1..65535.
    """

    address: bytes
    protocol: int
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontend:
    """One entry of `frontends`.

    Attributes:
        key: see FrontendKey.
        service: number of the service.
        list_id: of clients inside the cluster.
        count: slots of that list; 0: refused.
        outside_list: of clients outside; 0: this is no frontend for them.
        outside_count: backends of that list; 0: refused.
        affinity_seconds: 0: none.
        check_source: clients outside must lie in a source range of the service.
        local: what comes from outside stays here and keeps its source.
    """

    key: FrontendKey
    service: int
    list_id: int
    count: int
    outside_list: int = 0
    outside_count: int = 0
    affinity_seconds: int = 0
    check_source: bool = False
    local: bool = False


class Backend(NamedTuple):
    """Address (16 bytes) and port of a backend; a tuple, for there are tens of thousands."""

    address: bytes
    port: int


class Slot(NamedTuple):
    """A place in a list, from 0 on."""

    list_id: int
    slot: int
    backend: Backend


class Member(NamedTuple):
    """A backend that a client which had it may keep: see bpf/include/abi.h."""

    list_id: int
    backend: Backend


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRange:
    """A prefix (16 bytes, 0..128 bits) whose addresses may use a service's load balancer."""

    service: int
    address: bytes
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceCount:
    """How often clients of a service were given a backend, and how often there was none.

    A connection counts once, and so do datagrams that belong together.
    """

    service: int
    given: int
    refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Balancing:
    """Everything the kernel holds of services, dumped at once.

    Attributes:
        tables: list → slots, by hash, 16 bits each as the machine has them.
    """

    frontends: frozenset[Frontend]
    slots: frozenset[Slot]
    members: frozenset[Member]
    sources: frozenset[SourceRange]
    tables: dict[int, bytes]


class BalancingPlane(Protocol):
    """The maps of services. The rules of port.DataPlane apply: upserts replace, absent is fine."""

    def upsert_frontends(self, frontends: Sequence[Frontend]) -> None:
        """Writes frontends; atomic for each."""
        ...

    def delete_frontends(self, keys: Sequence[FrontendKey]) -> None:
        """Removes frontends."""
        ...

    def upsert_slots(self, slots: Sequence[Slot]) -> None:
        """Writes places of lists."""
        ...

    def delete_slots(self, places: Sequence[tuple[int, int]]) -> None:
        """Removes places (list, slot)."""
        ...

    def upsert_members(self, members: Sequence[Member]) -> None:
        """Says that clients may keep these backends."""
        ...

    def delete_members(self, members: Sequence[Member]) -> None:
        """Says that they may not."""
        ...

    def upsert_sources(self, sources: Sequence[SourceRange]) -> None:
        """Writes source ranges."""
        ...

    def delete_sources(self, sources: Sequence[SourceRange]) -> None:
        """Removes source ranges."""
        ...

    def write_tables(self, tables: Iterable[tuple[int, bytes]]) -> None:
        """Puts tables in force, in the place of older ones: atomic for each.

        Where several go at once the kernel waits for one grace period, 8 to 16 ms.

        Args:
            tables: list and slots, 16 bits each; parts of abi.TABLE_PART_SLOTS, one or more.
        """
        ...

    def delete_tables(self, list_ids: Iterable[int]) -> None:
        """Removes tables."""
        ...

    def forget_backends(self, gone: Sequence[tuple[int, Backend]]) -> int:
        """Ends what is remembered of UDP and SCTP towards backends that are gone.

        The next packet is given another one. UDP sockets of the node's own namespace that are
        connected to one are ended: see netlink.diag.

        Args:
            gone: (protocol, backend); of other protocols nothing is forgotten.

        Returns:
            How many entries went.
        """
        ...

    def service_counts(self) -> tuple[ServiceCount, ...]:
        """Reads the counters; services that nobody has asked for are left out."""
        ...

    def delete_service_counts(self, services: Iterable[int]) -> None:
        """Removes the counters of services that are gone."""
        ...

    def balancing(self) -> Balancing:
        """Reads everything back."""
        ...
