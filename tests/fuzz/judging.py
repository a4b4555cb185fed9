"""What must hold of every packet that a program has let through, whatever came before it.

Independent of the programs: the frame is read by `tests.fuzz.reading`, policy is asked of
`nodeagent.verdict`. What earlier packets have opened is not followed; a packet must be allowed by
the policy of one of the two directions.
"""

import struct
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from nodeagent.dataplane.port import PolicyEntry, PolicySet
from nodeagent.dataplane.testrun import Action, Run
from nodeagent.verdict import Judge, allows
from tests.bpf.conftest import A4, A6, B4, B6, NODE4, NODE6, OTHER4, OTHER6
from tests.bpf.packets import ICMP, ICMPV6, SCTP, TCP, UDP, header_is_sound
from tests.bpf.services import PORT, TARGET
from tests.bpf.sums import is_right
from tests.fuzz.reading import Packet, Reading, read

NAME = 24
"""Bytes of the name of a backend, which direct return puts in and takes out."""
LONGEST_ERROR = 14 + 1280

TOLD = ("drop_no_backend", "drop_too_big")
"""Outcomes after which the sender gets an ICMP error."""

PORTS = (PORT, TARGET)
EGRESS_SET, INGRESS_SET, CLOSED_SET = 2, 3, 4


def _entries(*, tcp: tuple[int | None, ...]) -> tuple[PolicyEntry, ...]:
    ported = [(TCP, port) for port in tcp]
    ported += [(protocol, port) for protocol in (UDP, SCTP) for port in PORTS]
    return (
        *(PolicyEntry(peer=0, protocol=protocol) for protocol in (ICMP, ICMPV6)),
        *(
            PolicyEntry(peer=0, protocol=protocol, port=port, port_bits=0 if port is None else 16)
            for protocol, port in ported
        ),
    )


EGRESS = PolicySet(set_id=EGRESS_SET, entries=_entries(tcp=(None,)), prefixes=())
INGRESS = PolicySet(set_id=INGRESS_SET, entries=_entries(tcp=PORTS), prefixes=())
_OUT, _IN = Judge(EGRESS), Judge(INGRESS)
ANYBODY = 300
"""An identity; the policies name none."""

OWN = tuple(map(ip_network, ("10.244.0.0/26", "fd00:10:244::/112", NODE4, NODE6)))
OTHERS = tuple(map(ip_network, ("10.244.1.0/26", "fd00:10:244::1:0/112", OTHER4, OTHER6)))
POD = tuple(map(ip_address, (A4, A6)))
CLOSED = tuple(map(ip_address, (B4, B6)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run.

    Attributes:
        wrapped: programs run with a tunnel.
        sender: it was wrapped by the other node.
        asked: this node itself has spoken to the pod of these addresses: the pod may answer.
    """

    program: str
    frame: bytes
    outcome: str
    run: Run
    wrapped: bool = False
    sender: bool = False
    asked: bool = False


def judge(case: Case) -> None:
    """Raises AssertionError."""
    packet = read(case.frame)
    _action(case, packet)
    _reading(case, packet)
    if case.outcome.startswith("pass_"):
        _source(case, packet)
        _policy(case, packet)
        _bytes(case)


def _action(case: Case, packet: Packet) -> None:
    action, size = case.run.action, len(case.run.packet)
    if not case.outcome.startswith("drop_"):
        # What is redirected may be told to the kernel as it is, where a run cannot redirect.
        assert action in (Action.OK, Action.REDIRECT), action
        assert size - len(case.frame) in (0, NAME, -NAME), size
    elif action is Action.REDIRECT:
        assert case.outcome in TOLD
        answer = read(case.run.packet)
        assert size <= LONGEST_ERROR, size
        assert answer.protocol in (ICMP, ICMPV6), answer
        assert answer.destination == packet.source, answer
    else:
        assert action is Action.SHOT, action


def _reading(case: Case, packet: Packet) -> None:
    """What cannot be read, or only on a link, goes no further than the program says."""
    if case.program == "from_entry":
        return  # the packet has been changed before it is read
    if packet.reading is Reading.SOUND:
        assert case.outcome not in ("pass_neighbour", "drop_malformed"), case.outcome
        return
    expected: set[str]
    is_near = packet.reading in (Reading.NEIGHBOUR, Reading.ROUTER)
    word = "drop_malformed" if packet.reading is Reading.MALFORMED else "drop_unsupported"
    match case.program:
        case "from_net":
            near = {"pass_neighbour", "drop_unsupported"}
            expected = near if is_near else {"pass_not_for_pod", word}
        case "from_tunnel":
            expected = {"drop_link_scope" if is_near else word} if case.sender else {SENDER}
        case "from_pod" if packet.reading is Reading.ROUTER:
            expected = {"drop_spoofed"}
        case _:
            expected = {"pass_neighbour" if is_near else word}
    assert case.outcome in expected, (case.outcome, packet)


SENDER = "drop_tunnel_sender"


def _source(case: Case, packet: Packet) -> None:
    """Nobody sends in another's name."""
    if packet.source is None or case.outcome in ("pass_neighbour", "pass_not_for_pod"):
        return
    match case.program:
        case "from_pod":
            assert packet.source in POD, packet
        case "from_net":
            assert not _is_in(packet.source, OWN), packet
            assert not case.wrapped or not _is_in(packet.source, OTHERS[:2]), packet
        case "from_tunnel":
            assert case.sender, packet
            assert _is_in(packet.source, OTHERS), packet
        case "from_entry":
            assert case.sender, packet
            assert not _is_in(packet.source, OWN + OTHERS), packet
        case _:
            pass


def _policy(case: Case, packet: Packet) -> None:
    if case.outcome in ("pass_neighbour", "pass_not_for_pod", "pass_from_host"):
        return
    there = read(case.run.packet)
    # Nothing may come to it, and nobody can ask in its name.
    assert there.destination not in CLOSED, there
    if case.asked or (packet.is_fragment and packet.dport is None):
        return  # its first one was judged
    assert any(_is_allowed(seen) for seen in (packet, there)), (case.program, case.outcome, packet)


def _is_allowed(packet: Packet) -> bool:
    """In one of the two directions, from or to the pod."""
    ports = {packet.dport or 0, packet.sport or 0}
    return any(
        allows(judge.ruling(ANYBODY, bytes(16), packet.protocol, port))
        for judge in (_OUT, _IN)
        for port in ports
    )


def _bytes(case: Case) -> None:
    """Sums that were right are right, if nothing was put in front."""
    there = case.run.packet
    if _is_sound(case.frame):
        assert _is_sound(there), there.hex()
    if len(there) == len(case.frame) and _sums(case.frame) and not read(case.frame).is_fragment:
        assert _sums(there), there.hex()


def _is_sound(frame: bytes) -> bool:
    try:
        return header_is_sound(frame)
    except struct.error:
        return False  # it is longer than the packet


def _sums(frame: bytes) -> bool:
    try:
        return is_right(frame)
    except (KeyError, IndexError, ValueError, struct.error):
        return False  # nothing that has sums, or not all of it


def _is_in(address: object, networks: tuple[object, ...]) -> bool:
    return any(address in network for network in networks)  # type: ignore[operator]
