"""The programs reach the rulings of nodeagent.verdict, whatever the tables hold.

Packets cost a tenth of what a table costs, and a table a tenth of what Hypothesis takes to shrink
one: seeded dice, many packets per table, all counters compared at its end.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

import pytest

from deltaplane.model.identity import Reserved
from deltaplane.model.tiers import Action, Tier
from nodeagent.dataplane import testrun
from nodeagent.dataplane.port import Decisions, PolicyEntry, PolicySet, PrefixEntry, Subject
from nodeagent.verdict import NOTHING, PORT_BITS, Judge, allows, decision
from tests.bpf.conftest import A4, A6, A_ID, LINK_A, World
from tests.bpf.packets import ICMP, ICMPV6, SCTP, TCP, UDP, Flow, icmp, mapped

SEEDS = range(16)
TABLES, PACKETS = 20, 170
"""Of each seed, and of each table and direction: 108,800 packets."""

# Small enough that entries, prefixes and packets often meet.
CLASSES = (0x80000001, 0x80000002, 0x80000003)
PEERS = (300, 301, *(Reserved.WORLD, Reserved.OTHER_POD, Reserved.UNKNOWN, Reserved.REMOTE_NODE))
PORTS = (0, 1, 79, 80, 81, 8080, 32768, 65535)
ECHO, ECHO_REPLY = {ICMP: 8, ICMPV6: 128}, {ICMP: 0, ICMPV6: 129}
OTHER_TYPES = {ICMP: (3, 11, 13), ICMPV6: (1, 3, 139)}
REMOTES = {
    A4: ("10.9.0.{}", "10.9.1.{}", "203.0.113.{}"),
    A6: ("fd01::{}", "fd01:1::{}", "2001:db8::{}"),
}
NETWORKS = (
    ("::", (0, 8, 96, 104)),
    ("10.9.0.0", (96, 112, 120, 126)),
    ("10.9.0.1", (127, 128)),
    ("203.0.113.0", (121, 125)),
    ("fd01::", (16, 32, 112)),
    ("fd01::1", (128,)),
)
INGRESS, EGRESS, AUDIT_INGRESS, AUDIT_EGRESS = range(1, 5)


Frames = dict[str, bytes]
"""By program."""


@dataclass(frozen=True)
class Packet:
    """protocol, port: what the policy goes by. counted: also if it is allowed."""

    identity: int
    remote: bytes
    protocol: int
    port: int
    frames: Frames
    counted: bool = True


def both_ways(pod: str, remote: str, make: Callable[[Flow], bytes], port: int = 0) -> Frames:
    return {
        "from_pod": make(Flow(pod, remote, dport=port)),
        "to_pod": make(Flow(remote, pod, dport=port)),
    }


def of_type(flow: Flow, *, protocol: int, kind: int) -> bytes:
    return flow.frame(protocol, icmp(kind, 5))


def packets() -> list[Packet]:
    found = []
    for pod, patterns in REMOTES.items():
        icmp_protocol = ICMP if pod == A4 else ICMPV6
        for number, identity in enumerate(PEERS, start=1):
            for pattern in patterns:
                remote = pattern.format(number)
                common = (identity, mapped(remote))
                for protocol, make in ((TCP, Flow.tcp), (UDP, Flow.udp), (SCTP, Flow.sctp)):
                    for port in PORTS:
                        frames = both_ways(pod, remote, make, port)
                        found.append(Packet(*common, protocol, port, frames))
                # Of another identifier than the requests: an answer to nothing begins nothing.
                frames = both_ways(pod, remote, lambda flow: flow.echo_reply(6))
                kind = ECHO_REPLY[icmp_protocol]
                found.append(Packet(*common, icmp_protocol, kind, frames, counted=False))
                for kind in (ECHO[icmp_protocol], *OTHER_TYPES[icmp_protocol]):
                    make_icmp = partial(of_type, protocol=icmp_protocol, kind=kind)
                    frames = both_ways(pod, remote, make_icmp)
                    found.append(Packet(*common, icmp_protocol, kind, frames))
    return found


ALL = packets()


def cut(address: bytes, length: int) -> bytes:
    """The address without host bits."""
    return (int.from_bytes(address) >> (128 - length) << (128 - length)).to_bytes(16)


def decisions(dice: Random) -> Decisions:
    actions = {tier: tuple(Action) for tier in Tier} | {Tier.NORMAL: (Action.ALLOW, Action.DENY)}
    admin, normal, baseline = (
        decision(dice.randint(0, 5), dice.choice(actions[tier])) if dice.random() < 0.5 else 0
        for tier in Tier
    )
    return admin, normal, baseline


def entry(dice: Random) -> PolicyEntry:
    peer = dice.choice((0, *PEERS, *CLASSES))
    said = decisions(dice) if dice.random() < 0.9 else NOTHING
    protocol = dice.choice((None, TCP, UDP, SCTP, ICMP, ICMPV6))
    if protocol is None or dice.random() < 0.4:
        return PolicyEntry(peer=peer, protocol=protocol, decisions=said)
    types = (*ECHO.values(), *ECHO_REPLY.values(), 3, 13)
    ports = types if protocol in (ICMP, ICMPV6) else PORTS
    bits = dice.randint(1, PORT_BITS)
    port = dice.choice(ports) >> (PORT_BITS - bits) << (PORT_BITS - bits)
    return PolicyEntry(peer=peer, protocol=protocol, port=port, port_bits=bits, decisions=said)


def prefix(dice: Random) -> PrefixEntry:
    text, lengths = dice.choice(NETWORKS)
    length = dice.choice(lengths)
    return PrefixEntry(
        address=cut(mapped(text), length),
        length=length,
        peer_class=dice.choice((0, *CLASSES)),
        outside_class=dice.choice((0, *CLASSES)),
    )


def policy_set(dice: Random, set_id: int) -> PolicySet:
    entries = [entry(dice) for _ in range(dice.randint(0, 14))]
    prefixes = [prefix(dice) for _ in range(dice.randint(0, 6))]
    by_key = {(e.peer, e.protocol, e.port, e.port_bits): e for e in entries}
    by_network = {(p.address, p.length): p for p in prefixes}
    return PolicySet(
        set_id=set_id, entries=tuple(by_key.values()), prefixes=tuple(by_network.values())
    )


def clear(world: World, *names: str) -> None:
    for name in names:
        kernel_map = world.plane._maps[name]
        kernel_map.delete([key for key, _ in kernel_map.entries()])


@dataclass(frozen=True)
class Tables:
    """The sets in force, and what they ought to count."""

    sets: dict[int, PolicySet]
    audited: bool

    def __post_init__(self) -> None:
        self.judges.update({number: Judge(each) for number, each in self.sets.items()})

    judges: dict[int, Judge] = field(default_factory=dict)
    rulings: Counter[tuple[int, int]] = field(default_factory=Counter)
    denied: Counter[tuple[bool, bool]] = field(default_factory=Counter)

    def judge(self, packet: Packet, number: int) -> bool:
        """Whether a packet passes the set with this number."""
        asked = (packet.identity, packet.remote, packet.protocol, packet.port)
        ruling = self.judges[number].ruling(*asked)
        if not allows(ruling):
            self.rulings[number, ruling] += 1
            self.denied[number == INGRESS, False] += 1
            return False
        if packet.counted:
            self.rulings[number, ruling] += 1
            again = self.judges[number + 2].ruling(*asked)
            if self.audited and not allows(again):
                self.rulings[number + 2, again] += 1
                self.denied[number == INGRESS, True] += 1
        return True


def put_in_force(world: World, tables: Tables) -> None:
    for each in tables.sets.values():
        world.plane.write_policy_set(each)
    subject = Subject(
        identity=A_ID,
        ingress_set=INGRESS,
        egress_set=EGRESS,
        audit_ingress_set=tables.audited * AUDIT_INGRESS,
        audit_egress_set=tables.audited * AUDIT_EGRESS,
        epoch=1,
    )
    world.plane.upsert_subjects([subject])
    clear(world, "connections", "rules", "denials")


@pytest.mark.parametrize("seed", SEEDS)
def test_kernel_and_twin_agree(world: World, seed: int) -> None:
    for remote, identity in {packet.remote: packet.identity for packet in ALL}.items():
        world.map_raw(remote, identity)
    dice = Random(seed)
    programs = world.plane._loaded.programs
    for _ in range(TABLES):
        sets = {number: policy_set(dice, number) for number in range(1, 5)}
        tables = Tables(sets, dice.random() < 0.5)
        put_in_force(world, tables)
        for program, number in (("to_pod", INGRESS), ("from_pod", EGRESS)):
            for packet in dice.sample(ALL, PACKETS):
                frame = packet.frames[program]
                run = testrun.run(programs[program], frame, ingress_ifindex=LINK_A)
                passed = run.action is not testrun.Action.SHOT
                assert passed == tables.judge(packet, number), (program, packet, tables)
        counted = {(c.set_id, c.ruling): c.hits for c in world.plane.rule_counts()}
        assert counted == tables.rulings
        found: Counter[tuple[bool, bool]] = Counter()
        for denial in world.plane.denials():
            found[denial.ingress, denial.audit] += denial.packets
        assert found == tables.denied
