"""Loaded programs on private maps, and a small world in them.

One load serves all tests (the verifier takes most of a second); every test begins with empty maps.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeagent.dataplane import abi, bpffs, testrun
from nodeagent.dataplane.config import Capacities, DataPlaneConfig
from nodeagent.dataplane.kernel import KernelDataPlane
from nodeagent.dataplane.port import (
    LocalEndpoint,
    Mapping,
    NextHop,
    PolicyEntry,
    PolicySet,
    PrefixEntry,
    Range,
    Subject,
)
from nodeagent.dataplane.testrun import Action
from tests.bpf.packets import address, mapped

SMALL = Capacities(
    mappings=1024,
    ranges=256,
    nodes=256,
    policy_entries=4096,
    policy_prefixes=1024,
    subjects=256,
    endpoints=64,
    connections=4096,
    fragments=256,
    denials=4096,
    frontends=256,
    slots=8192,
    members=1024,
    tables=16,
    sources=64,
    affinities=256,
    sockets=1024,
    translations=1024,
)
UPLINK, UPLINK_MTU = 7, 1500
NODE, OTHER_NODE = 1, 2

# Pod A is behind the link that programs run on: the loopback, which every namespace has.
LINK_A, LINK_B = 1, 12
A4, A6, A_ID = "10.244.0.10", "fd00:10:244::10", 300
B4, B6, B_ID = "10.244.0.11", "fd00:10:244::11", 301
# Pod R lives on the other node, pod S too, but this node was not told of S.
R4, R6, R_ID = "10.244.1.20", "fd00:10:244::1:20", 302
S4, S6 = "10.244.1.21", "fd00:10:244::1:21"
W4, W6 = "203.0.113.9", "2001:db8::9"
NODE4, NODE6 = "198.19.0.1", "fd99::1"
OTHER4, OTHER6 = "198.19.0.2", "fd99::2"
B_MACS = bytes.fromhex("0200000000b1 0200000000b0")


class World:
    """The plane, and shorthand for tests."""

    def __init__(self, plane: KernelDataPlane) -> None:
        self.plane = plane
        self._counts = self._read_counts()

    def _read_counts(self) -> dict[str, int]:
        return {count.outcome: count.packets for count in self.plane.counters()}

    def reset(self) -> None:
        for kernel_map in self.plane._maps.values():
            if kernel_map.name not in (
                "outcomes",
                "settings",
                "applied",
                "frontend_ports",
                "itself_ports",
            ):
                kernel_map.delete([key for key, _ in kernel_map.entries()])
        self.plane._set_keys.clear()

    def populate(self) -> None:
        """Two pods here, two there, nodes and blocks; everybody's policy is open."""
        plane = self.plane
        plane.set_node_index(NODE)
        mappings = [
            (A4, A_ID, NODE), (A6, A_ID, NODE), (B4, B_ID, NODE), (B6, B_ID, NODE),
            (R4, R_ID, OTHER_NODE), (R6, R_ID, OTHER_NODE),
            (NODE4, 7, NODE), (NODE6, 7, NODE), (OTHER4, 7, OTHER_NODE), (OTHER6, 7, OTHER_NODE),
        ]  # fmt: skip
        for text, identity, node in mappings:
            self.map(text, identity, node)
        blocks = [("10.244.0.0", 122, NODE), ("10.244.1.0", 122, OTHER_NODE),
                  ("fd00:10:244::", 112, NODE), ("fd00:10:244::1:0", 112, OTHER_NODE)]  # fmt: skip
        plane.upsert_ranges(
            [
                Range(address=mapped(text), length=length, identity=3, node_index=node)
                for text, length, node in blocks
            ]
        )
        plane.upsert_next_hops(
            [NextHop(node_index=OTHER_NODE, ipv4=address(OTHER4), ipv6=address(OTHER6))]
        )
        self.endpoint(LINK_A, A_ID, A4, A6)
        self.endpoint(LINK_B, B_ID, B4, B6)
        for identity in (A_ID, B_ID):
            self.subject(identity)

    def map(self, text: str, identity: int, node: int) -> None:
        self.plane.upsert_mappings(
            [Mapping(address=mapped(text), identity=identity, node_index=node)]
        )

    def map_raw(self, address: bytes, identity: int) -> None:
        """An address of no node; 16 bytes."""
        self.plane.upsert_mappings([Mapping(address=address, identity=identity, node_index=0)])

    def endpoint(self, link: int, identity: int, ipv4: str | None, ipv6: str | None) -> None:
        self.plane.upsert_local_endpoints(
            [
                LocalEndpoint(
                    ifindex=link,
                    endpoint_id=link,
                    identity=identity,
                    ipv4=address(ipv4) if ipv4 else None,
                    ipv6=address(ipv6) if ipv6 else None,
                    pod_mac=B_MACS[:6],
                    host_mac=B_MACS[6:],
                )
            ]
        )

    def subject(self, identity: int, ingress: int = 0, egress: int = 0, epoch: int = 1) -> None:
        self.plane.upsert_subjects(
            [Subject(identity=identity, ingress_set=ingress, egress_set=egress, epoch=epoch)]
        )

    def policy(
        self, set_id: int, *entries: PolicyEntry, prefixes: tuple[PrefixEntry, ...] = ()
    ) -> None:
        self.plane.write_policy_set(PolicySet(set_id=set_id, entries=entries, prefixes=prefixes))

    def run(self, program: str, frame: bytes, **context: Any) -> testrun.Run:
        return testrun.run(self.plane._loaded.programs[program], frame, **context)

    def outcome(self, program: str, frame: bytes, **context: int) -> str:
        """Runs a program; the one counter that moved, by exactly this packet."""
        return self.sent(program, frame, **context)[0]

    def sent(self, program: str, frame: bytes, **context: int) -> tuple[str, bytes]:
        """The same, and what became of the frame."""
        name, result = self._ran(program, frame, context)
        expected = {
            "pass_local": Action.REDIRECT,
            "pass_remote": Action.REDIRECT,
            "pass_outside": Action.REDIRECT,
        }.get(name, Action.SHOT if name.startswith("drop_") else Action.OK)
        assert result.action == expected
        return name, result.packet

    def told(self, program: str, frame: bytes, **context: int) -> tuple[str, bytes]:
        """The outcome of a packet that is dropped, and the ICMP error that its sender gets."""
        name, result = self._ran(program, frame, context)
        assert (name[:5], result.action) == ("drop_", Action.REDIRECT)
        return name, result.packet

    def _ran(self, program: str, frame: bytes, context: dict[str, int]) -> tuple[str, testrun.Run]:
        before = {count.outcome: (count.packets, count.bytes) for count in self.plane.counters()}
        result = self.run(program, frame, **context)
        moved = {
            count.outcome: (count.packets - before[count.outcome][0],
                            count.bytes - before[count.outcome][1])
            for count in self.plane.counters()
            if (count.packets, count.bytes) != before[count.outcome]
        }  # fmt: skip
        assert len(moved) == 1, moved
        ((name, grown),) = moved.items()
        assert grown == (1, len(frame))
        return name, result

    def entry(self) -> tuple[abi.ConnectionKey, abi.Connection]:
        """The only connection."""
        ((key, value),) = self.plane._maps["connections"].entries()
        return abi.ConnectionKey.unpack(key), abi.Connection.unpack(value)

    def connections(self) -> int:
        return sum(1 for _ in self.plane._maps["connections"].entries())


@pytest.fixture(scope="session")
def private_bpffs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An own bpffs: what tests pin is not seen by anybody else and goes with it."""
    mount = tmp_path_factory.mktemp("bpffs")
    bpffs.ensure(mount)
    yield mount
    for folder in mount.iterdir():
        bpffs.remove_pins(folder)
    assert bpffs.release(mount)


@pytest.fixture(scope="session")
def shared_plane(private_bpffs: Path) -> Iterator[KernelDataPlane]:
    config = DataPlaneConfig(
        uplink_ifindex=UPLINK,
        uplink_mtu=UPLINK_MTU,
        node_ipv4=address(NODE4),
        node_ipv6=address(NODE6),
    )
    plane = KernelDataPlane(private_bpffs / "shared", config=config, capacities=SMALL)
    yield plane
    plane.close()


@pytest.fixture
def world(shared_plane: KernelDataPlane) -> World:
    world = World(shared_plane)
    world.reset()
    world.populate()
    return world
