"""Packets through the programs of the data path (BPF_PROG_TEST_RUN). Needs root.

Each packet must be counted as exactly one outcome, with its whole length, and the action must be
the outcome's: a parser that goes astray lets something through, or says nothing.
"""

import contextlib
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from nodeagent.dataplane import bpffs
from nodeagent.dataplane.config import DataPlaneConfig
from nodeagent.dataplane.kernel import KernelDataPlane
from nodeagent.dataplane.port import PolicyEntry
from nodeagent.dataplane.testrun import Action
from tests.bpf.conftest import (
    A4,
    A6,
    B4,
    B6,
    B_ID,
    LINK_A,
    NODE4,
    NODE6,
    R4,
    R6,
    SMALL,
    UPLINK,
    UPLINK_MTU,
    W4,
    W6,
    World,
)
from tests.bpf.packets import (
    AUTHENTICATION,
    DESTINATION,
    FRAGMENT,
    HOP_BY_HOP,
    ROUTING,
    TCP,
    UDP,
    Flow,
    address,
    ethernet,
    extension,
    fragment_header,
    ipv4,
    ipv6,
    tcp,
    udp,
)
from tests.bpf.services import PORT, Services, backend

PROGRAMS = ("from_pod", "to_pod", "from_net")
SHORTEST, LONGEST = 14 + 40, 2000
"""Bytes. The kernel itself refuses shorter and longer ones for a test run, some by their type."""

CLUSTER4, CLUSTER6 = "10.96.0.1", "fd00:96::1"


def _flows() -> Iterator[Flow]:
    for family in ((A4, B4, R4, W4, NODE4, CLUSTER4), (A6, B6, R6, W6, NODE6, CLUSTER6)):
        here, beside, there, world, node, cluster = family
        yield from (Flow(here, to) for to in (beside, there, world, node, cluster, here))
        yield from (Flow(source, here) for source in (beside, there, world, node))


def _odd() -> Iterator[bytes]:
    """Fragments, options, extension headers, other protocols."""
    segment = tcp(1, 2)
    for options in (b"\x01" * 4, b"\x83\x07\x04" + bytes(5), b"\x07\x27\x04" + bytes(37)):
        yield ethernet(0x0800, ipv4(A4, B4, TCP, segment, options=options))
    for kind in (HOP_BY_HOP, ROUTING, DESTINATION):
        chain = extension(TCP) + segment
        yield ethernet(0x86DD, ipv6(A6, B6, kind, chain))
        yield ethernet(0x86DD, ipv6(A6, R6, kind, extension(kind) * 3 + chain))
    yield ethernet(0x86DD, ipv6(A6, B6, AUTHENTICATION, extension(UDP, bytes(10)) + udp(1, 2)))
    for offset in (0, 8, 1480):
        head = fragment_header(UDP, offset, 9, more=offset < 1480)
        yield ethernet(0x86DD, ipv6(A6, R6, FRAGMENT, head + udp(1, 2, bytes(64))))
    yield ethernet(0x0806, struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + bytes(40))
    yield ethernet(0x8100, bytes(60))


class FramesTarget:
    """First byte: which program. The rest: the frame."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="dp-fuzz-")))
        bpffs.ensure(folder)
        self._stack.callback(bpffs.release, folder)
        config = DataPlaneConfig(
            uplink_ifindex=UPLINK,
            uplink_mtu=UPLINK_MTU,
            node_ipv4=address(NODE4),
            node_ipv6=address(NODE6),
        )
        pins = folder / "fuzz"
        self._stack.callback(bpffs.remove_pins, pins)
        plane = KernelDataPlane(pins, config=config, capacities=SMALL)
        self._stack.callback(plane.close)
        self._world = World(plane)
        self._world.populate()
        self._world.policy(1, PolicyEntry(peer=B_ID, protocol=TCP, port=80, port_bits=16))
        self._world.subject(B_ID, ingress=1, epoch=2)
        for text, target in ((CLUSTER4, R4), (CLUSTER6, R6)):
            for protocol in (TCP, UDP):
                Services(plane).put(text, protocol, backend(target), outside=True)
        self._before = self._counts()

    def seeds(self) -> Sequence[bytes]:
        """Sound packets of every kind, for every program."""
        frames = [
            frame
            for flow in _flows()
            for frame in (
                flow.tcp(),
                flow.udp(payload=bytes(40)),
                flow.sctp(),
                flow.echo(),
                flow.icmp_error(flow.reversed().ip(TCP, tcp(PORT, 9))),
            )
        ]
        return [
            bytes((number,)) + frame
            for frame in (*frames, *_odd())
            for number in range(len(PROGRAMS))
        ]

    def words(self) -> Sequence[bytes]:
        """Addresses, types, lengths, numbers of headers."""
        places = (A4, B4, R4, W4, NODE4, CLUSTER4, A6, B6, R6, W6, NODE6, CLUSTER6)
        heads = (bytes((kind,)) for kind in (0, 1, 6, 17, 43, 44, 51, 58, 59, 60, 132))
        types = (b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x81\x00", b"\x45", b"\x60", b"\x4f")
        return (*map(address, places), *heads, *types, b"\xff\xff", b"\0\0")

    def feed(self, data: bytes) -> None:
        """One packet."""
        if len(data) < 1 + SHORTEST:
            return
        program = PROGRAMS[data[0] % len(PROGRAMS)]
        frame = data[1 : 1 + LONGEST]
        context = {} if program == "to_pod" else {"ingress_ifindex": LINK_A}
        run = self._world.run(program, frame, **context)
        now = self._counts()
        moved = {
            name: (count[0] - self._before[name][0], count[1] - self._before[name][1])
            for name, count in now.items()
            if count != self._before[name]
        }
        self._before = now
        assert list(moved.values()) == [(1, len(frame))], moved
        (outcome,) = moved
        # What is redirected may be told to the kernel as it is, where a test run cannot redirect.
        wanted = {Action.SHOT} if outcome.startswith("drop_") else {Action.OK, Action.REDIRECT}
        assert run.action in wanted, (outcome, run.action)

    def _counts(self) -> dict[str, tuple[int, int]]:
        return {
            count.outcome: (count.packets, count.bytes) for count in self._world.plane.counters()
        }

    def close(self) -> None:
        """Unloads the programs."""
        self._stack.close()
