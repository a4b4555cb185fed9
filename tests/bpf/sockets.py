"""Namespaces, a cgroup, and services whose backends are on the loopback of each namespace.

Nothing leaves a namespace: what is looked at is where a socket ends up, not how packets get there.
"""

import contextlib
import os
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nodeagent.dataplane import abi, cgroups
from nodeagent.dataplane.balancing import (
    NODE_PORT_IPV4,
    NODE_PORT_IPV6,
    Backend,
    Frontend,
    FrontendKey,
    Member,
    Slot,
)
from nodeagent.dataplane.kernel import KernelDataPlane
from nodeagent.dataplane.port import Mapping
from tests.bpf.network import inside, ip
from tests.bpf.packets import mapped

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
PORT, BACKEND_PORT, NODE_PORT = 80, 8080, 30080
REMOTE_NODE = 7


@dataclass(frozen=True)
class Kind:
    """How a program speaks: the family of its sockets, and what it calls an IPv4 address."""

    family: socket.AddressFamily
    servers: socket.AddressFamily
    prefix: str = ""

    @property
    def service(self) -> str:
        v4 = self.servers == socket.AF_INET
        return self.prefix + ("10.96.0.1" if v4 else "fd00:10:96::1")

    @property
    def node(self) -> str:
        return self.prefix + ("198.19.0.1" if self.servers == socket.AF_INET else "fd99::1")

    @property
    def loopback(self) -> str:
        return self.prefix + ("127.0.0.1" if self.servers == socket.AF_INET else "::1")

    @property
    def any_node(self) -> bytes:
        return NODE_PORT_IPV4 if self.servers == socket.AF_INET else NODE_PORT_IPV6

    def backend(self, number: int) -> str:
        """0..3; as servers are bound to it."""
        v4 = self.servers == socket.AF_INET
        return f"10.244.0.{11 + number}" if v4 else f"fd00:10:244::{11 + number}"

    def key(self, text: str) -> bytes:
        return mapped(text.removeprefix("::ffff:"))


KINDS = {
    "ipv4": Kind(socket.AF_INET, socket.AF_INET),
    "ipv6": Kind(socket.AF_INET6, socket.AF_INET6),
    "ipv4 in ipv6": Kind(socket.AF_INET6, socket.AF_INET, "::ffff:"),
}


@contextlib.contextmanager
def namespace(name: str) -> Iterator[str]:
    """With every address of a backend; services and nodes are routed, and nobody has them."""
    ip("netns", "add", name)
    try:
        ip("link", "set", "lo", "up", namespace=name)
        for kind in (KINDS["ipv4"], KINDS["ipv6"]):
            for number in range(4):
                text = kind.backend(number)
                ip("address", "add", text, "dev", "lo", namespace=name)
        ip("route", "add", "default", "dev", "lo", namespace=name)
        ip("-6", "route", "add", "default", "dev", "lo", namespace=name)
        yield name
    finally:
        ip("netns", "delete", name)


@contextlib.contextmanager
def cgroup(name: str) -> Iterator[Path]:
    """A cgroup below the root; whoever is still in it at the end goes back."""
    mount = cgroups.find_mount()
    assert mount is not None
    folder = mount / name
    folder.mkdir()
    try:
        yield folder
    finally:
        for process in (folder / "cgroup.procs").read_text().split():
            (mount / "cgroup.procs").write_text(process)
        folder.rmdir()


@contextlib.contextmanager
def member_of(folder: Path) -> Iterator[None]:
    """This process is in the cgroup; sockets made meanwhile stay there."""
    mount = cgroups.find_mount()
    assert mount is not None
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    home = next(line[3:] for line in lines if line.startswith("0::"))
    (folder / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (mount / home.lstrip("/") / "cgroup.procs").write_text(str(os.getpid()))


class Services:
    """What the agent would write, and sockets in one namespace."""

    def __init__(self, plane: KernelDataPlane, namespace: str) -> None:
        self.plane = plane
        self.namespace = namespace
        self.made: list[socket.socket] = []

    def elsewhere(self, namespace: str) -> "Services":
        """The same services, for sockets of another namespace."""
        other = Services(self.plane, namespace)
        other.made = self.made
        return other

    def publish(
        self,
        kind: Kind,
        protocol: int,
        backends: tuple[int, ...],
        *,
        list_id: int = 1,
        affinity: int = 0,
        check_source: bool = False,
    ) -> None:
        """The service's own address, and its port of every node."""
        places = [self.place(kind, number) for number in backends]
        self.plane.upsert_slots(
            [Slot(list_id=list_id, slot=n, backend=place) for n, place in enumerate(places)]
        )
        self.plane.upsert_members([Member(list_id=list_id, backend=place) for place in places])
        self.plane.upsert_frontends(
            [
                Frontend(
                    key=FrontendKey(address=address, protocol=protocol, port=port),
                    service=5,
                    list_id=list_id,
                    count=len(places),
                    affinity_seconds=affinity,
                    check_source=check_source,
                )
                for address, port in (
                    (kind.key(kind.service), PORT),
                    (kind.any_node, NODE_PORT),
                )
            ]
        )

    @staticmethod
    def place(kind: Kind, number: int) -> Backend:
        return Backend(address=kind.key(kind.backend(number)), port=BACKEND_PORT)

    def know_node(self, kind: Kind) -> None:
        mapping = Mapping(address=kind.key(kind.node), identity=REMOTE_NODE, node_index=2)
        self.plane.upsert_mappings([mapping])

    def open(self, family: socket.AddressFamily, protocol: int) -> socket.socket:
        with inside(self.namespace):
            made = socket.socket(
                family, socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
            )
        self.made.append(made)
        made.settimeout(2)
        return made

    def servers(self, kind: Kind, protocol: int) -> list[socket.socket]:
        """One at each of the four backends."""
        found = []
        for number in range(4):
            server = self.open(kind.servers, protocol)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((kind.backend(number), BACKEND_PORT))
            if protocol == TCP:
                server.listen(256)
            found.append(server)
        return found

    def connected(self, kind: Kind, protocol: int, where: tuple[str, int]) -> socket.socket:
        client = self.open(kind.family, protocol)
        client.connect(where)
        return client

    def counts(self) -> dict[str, int]:
        return {count.outcome: count.packets for count in self.plane.counters()}

    def reset(self) -> None:
        for made in self.made:
            made.close()
        self.made.clear()
        for kernel_map in self.plane._maps.values():
            if kernel_map.name not in (
                "outcomes",
                "settings",
                "applied",
                "frontend_ports",
                "itself_ports",
            ):
                kernel_map.delete([key for key, _ in kernel_map.entries()])

    def age_affinities(self, seconds: int) -> None:
        """As if that much time had passed since each was last used."""
        table = self.plane._maps["affinities"]
        for key, packed in list(table.entries()):
            value = abi.Affinity.unpack(packed)
            aged = value._replace(last_used=value.last_used - seconds * 10**9)
            table.update([(key, aged.pack())])


def reached(
    servers: list[socket.socket], patience: float = 2
) -> tuple[int, bytes, tuple[str, int]]:
    """Which server has a datagram waiting, what it says, and from whom. patience: seconds."""
    waiting, _, _ = select.select(servers, [], [], patience)
    assert waiting, "nobody was reached"
    data, client = waiting[0].recvfrom(64)
    return servers.index(waiting[0]), data, client
