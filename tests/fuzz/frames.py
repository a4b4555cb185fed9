"""Packets through the programs of the data path (BPF_PROG_TEST_RUN). Needs root.

Each packet must be counted as exactly one outcome, with its whole length; what else must hold says
`judging`: a parser that goes astray lets something through, or says nothing.
"""

import contextlib
import struct
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nodeagent.dataplane import bpffs
from nodeagent.dataplane.config import DataPlaneConfig
from nodeagent.dataplane.kernel import KernelDataPlane
from nodeagent.dataplane.testrun import Run
from tests.bpf.conftest import (
    A4,
    A6,
    A_ID,
    B4,
    B6,
    B_ID,
    LINK_A,
    NODE4,
    NODE6,
    OTHER4,
    OTHER6,
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
    SCTP,
    TCP,
    UDP,
    Flow,
    address,
    checksum,
    ethernet,
    extension,
    fragment_header,
    ipv4,
    ipv6,
    tcp,
    udp,
)
from tests.bpf.services import PORT, TARGET, Services, backend
from tests.bpf.sums import summed
from tests.fuzz import judging, wrapping
from tests.fuzz.judging import Case, judge
from tests.fuzz.reading import read
from tests.fuzz.wrapping import Wrapper

SHORTEST = {b"\x08\x00": 14 + 20, b"\x86\xdd": 14 + 40}
SHORTEST_ODD, LONGEST = 14 + 20, 2000
"""Bytes. The kernel itself refuses shorter and longer ones for a test run."""

NOBODY, KEPT = 81, 82
"""Ports of services: one that nobody answers for, one whose clients keep their backend."""
FIRST_LIST = 40
OUTERS = (OTHER4, OTHER6, NODE4, NODE6, W4, W6)
"""Who wraps: the other node, this one, somebody."""

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


def _truncated(frame: bytes) -> Iterator[bytes]:
    """At every length that the kernel takes."""
    shortest = SHORTEST.get(frame[12:14], SHORTEST_ODD)
    for size in range(shortest, len(frame)):
        yield frame[:size]


class FramesTarget:
    """First byte: which program, and whether sums are made right. The rest: the frame."""

    programs: Sequence[str] = ("from_pod", "to_pod", "from_net")
    wrapped = False

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="dp-fuzz-")))
        bpffs.ensure(folder)
        self._stack.callback(bpffs.release, folder)
        pins = folder / "fuzz"
        self._stack.callback(bpffs.remove_pins, pins)
        plane = KernelDataPlane(pins, config=self.config(), capacities=SMALL)
        self._stack.callback(plane.close)
        self._world = World(plane)
        self._world.populate()
        self._policies(plane)
        self._serve(Services(plane))
        self._before = self._counts()
        self._asked: set[object] = set()

    def config(self) -> DataPlaneConfig:
        """Of the programs."""
        return DataPlaneConfig(
            uplink_ifindex=UPLINK,
            uplink_mtu=UPLINK_MTU,
            node_ipv4=address(NODE4),
            node_ipv6=address(NODE6),
        )

    def _serve(self, services: Services) -> None:
        """Each list has a number of its own, as the agent gives them: a list is of one family."""
        number = FIRST_LIST
        for text, target, own in ((CLUSTER4, R4, A4), (CLUSTER6, R6, A6)):
            for protocol in (TCP, UDP, SCTP):
                port = PORT if protocol == SCTP else TARGET
                there = backend(target, port), backend(own, port)
                services.put(text, protocol, *there, outside=True, list_id=number)
                services.put(text, protocol, port=NOBODY, outside=True, list_id=number + 1)
                services.put(
                    text, protocol, *there, port=KEPT, outside=True, affinity=60, list_id=number + 2
                )
                number += 3

    def _policies(self, plane: KernelDataPlane) -> None:
        """Pod A's are those of `judging`; nothing comes to pod B."""
        for made in (judging.EGRESS, judging.INGRESS):
            plane.write_policy_set(made)
        self._world.subject(A_ID, ingress=judging.INGRESS_SET, egress=judging.EGRESS_SET, epoch=2)
        self._world.subject(B_ID, ingress=judging.CLOSED_SET, epoch=2)

    def seeds(self) -> Sequence[bytes]:
        """Sound packets of every kind, for every program, and cut ones."""
        frames = [
            frame
            for flow in _flows()
            for frame in (
                flow.tcp(),
                flow.udp(payload=bytes(40)),
                flow.sctp(),
                flow.echo(),
                flow.icmp_error(flow.reversed().ip(TCP, tcp(PORT, 9))),
                flow.icmp_error(flow.reversed().ip(UDP, udp(TARGET, 9, bytes(20)))),
            )
        ]
        cut = [part for frame in (*frames[:6], *_odd()) for part in list(_truncated(frame))[::9]]
        return [
            bytes((number,)) + self.head(len(frame)) + frame
            for frame in (*frames, *_odd(), *cut)
            for number in range(len(self.programs))
        ]

    def head(self, number: int) -> bytes:
        """What comes in front of the frame of a seed."""
        del number
        return b""

    def words(self) -> Sequence[bytes]:
        """Addresses, types, lengths, numbers of headers."""
        places = (A4, B4, R4, W4, NODE4, CLUSTER4, A6, B6, R6, W6, NODE6, CLUSTER6)
        heads = (bytes((kind,)) for kind in (0, 1, 6, 17, 43, 44, 51, 58, 59, 60, 132))
        types = (b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x81\x00", b"\x45", b"\x60", b"\x4f")
        ports = (port.to_bytes(2) for port in (PORT, TARGET, NOBODY, KEPT))
        return (*map(address, places), *heads, *types, *ports, b"\xff\xff", b"\0\0")

    def feed(self, data: bytes) -> None:
        """One packet."""
        if len(data) < 1:
            return
        program = self.programs[data[0] % 16 % len(self.programs)]
        head, frame = self.split(data[1:])
        if len(frame) < SHORTEST.get(frame[12:14], SHORTEST_ODD):
            return
        frame = _mended(frame[:LONGEST]) if data[0] & 128 else frame[:LONGEST]
        run, sender = self.run(program, head, frame)
        now = self._counts()
        moved = {
            name: (count[0] - self._before[name][0], count[1] - self._before[name][1])
            for name, count in now.items()
            if count != self._before[name]
        }
        self._before = now
        assert list(moved.values()) == [(1, len(frame))], moved
        (outcome,) = moved
        packet = read(frame)
        pair = packet.protocol, frozenset((packet.source, packet.destination))
        if outcome == "pass_from_host":
            self._asked.add(pair)
        judge(
            Case(
                program=program,
                frame=frame,
                outcome=outcome,
                run=run,
                wrapped=self.wrapped,
                sender=sender,
                asked=pair in self._asked,
            )
        )

    def split(self, data: bytes) -> tuple[bytes, bytes]:
        """What decides about the run, and the frame."""
        return b"", data

    def run(self, program: str, head: bytes, frame: bytes) -> tuple[Run, bool]:
        """Runs it; whether the other node has wrapped it."""
        del head
        context = {} if program == "to_pod" else {"ingress_ifindex": LINK_A}
        return self._world.run(program, frame, **context), False

    def _counts(self) -> dict[str, tuple[int, int]]:
        return {
            count.outcome: (count.packets, count.bytes) for count in self._world.plane.counters()
        }

    def close(self) -> None:
        """Unloads the programs."""
        self._stack.close()


class WrappedTarget(FramesTarget):
    """With a tunnel and the link of direct return. After the first byte: by whom it was wrapped."""

    programs = ("from_tunnel", "from_entry", "from_net", "from_pod")
    wrapped = True

    def __init__(self) -> None:
        super().__init__()
        self._wrapper = self._stack.enter_context(Wrapper(self._world.plane._loaded.programs))

    def config(self) -> DataPlaneConfig:
        """Of the programs."""
        return replace(super().config(), tunnel_ifindex=8, direct_ifindex=9, hands_over=True)

    def seeds(self) -> Sequence[bytes]:
        """Also packets that name their backend, as entry nodes hand them over."""
        named = []
        for source, target, own in ((W4, CLUSTER4, A4), (W6, CLUSTER6, A6)):
            for frame in (Flow(source, target).tcp(), Flow(source, target).udp(payload=bytes(40))):
                place = name(frame, own)
                named += [b"\1" + outer + place for outer in (b"\0\1", b"\1\1")]
                named += [b"\1\0\1" + place[:size] for size in range(60, len(place), 3)]
        return [*super().seeds(), *named]

    def head(self, number: int) -> bytes:
        """The other node mostly, in either family."""
        return bytes((number % 2 if number % 9 else number % 6, 1 if number % 7 else 2))

    def split(self, data: bytes) -> tuple[bytes, bytes]:
        """Two bytes decide."""
        return data[:2], data[2:]

    def run(self, program: str, head: bytes, frame: bytes) -> tuple[Run, bool]:
        """Runs it; whether the other node has wrapped it."""
        if program not in wrapping.PROGRAMS:
            return super().run(program, b"", frame)
        outer = OUTERS[head[0] % len(OUTERS)]
        right = wrapping.PROGRAMS.index(program) + 1
        vni = right if head[1] % 8 else head[1]
        run = self._wrapper.run(program, frame, source=outer, vni=vni)
        return run, outer in OUTERS[:2] and vni == right


def name(frame: bytes, backend_address: str) -> bytes:
    """A frame as an entry node hands it over: it names its backend."""
    raw, port = address(backend_address), TARGET.to_bytes(2)
    if len(raw) == 4:
        return b"\x02\0" + raw + b"\x02\0\0\0" + port + frame[12:]
    option = bytes((frame[20], 2, 0x1E, 20, 0, 0)) + port + raw
    length = (int.from_bytes(frame[18:20]) + len(option)).to_bytes(2)
    return frame[:18] + length + bytes((DESTINATION,)) + frame[21:54] + option + frame[54:]


def _mended(frame: bytes) -> bytes:
    """With the right checksums, if it has some."""
    try:
        if frame[12:14] == b"\x08\x00":
            size = (frame[14] & 15) * 4
            head = frame[14:24] + bytes(2) + frame[26 : 14 + size]
            frame = frame[:24] + checksum(head).to_bytes(2) + frame[26:]
        return summed(frame)
    except (KeyError, IndexError, ValueError, struct.error):
        return frame
