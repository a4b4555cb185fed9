"""Connections: replies, re-evaluation after changes, beginnings and endings, the host's probes."""

import time

import pytest

from nodeagent.dataplane import abi
from nodeagent.dataplane.port import PolicyEntry, PrefixEntry
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
    OTHER_NODE,
    R4,
    R6,
    R_ID,
    W4,
    W6,
    World,
)  # fmt: skip
from tests.bpf.packets import (
    ACK,
    FIN,
    ICMP,
    RST,
    SYN,
    UDP,
    Flow,
    icmp,
    mapped,
)  # fmt: skip

OUT = [Flow(A4, R4), Flow(A6, R6)]
FAMILIES = pytest.mark.parametrize("out", OUT, ids=["v4", "v6"])
KINDS = pytest.mark.parametrize("kind", ["tcp", "udp", "sctp", "echo"])
EMPTY = 9


def pair(flow: Flow, kind: str) -> tuple[bytes, bytes]:
    """The first packet of a connection, and the answer to it."""
    back = flow.reversed()
    return {
        "tcp": (flow.tcp(), back.tcp(SYN | ACK)),
        "udp": (flow.udp(), back.udp()),
        "sctp": (flow.sctp(), back.sctp()),
        "echo": (flow.echo(), back.echo_reply()),
    }[kind]


def change(world: World, **fields: int) -> None:
    """Rewrites the only entry."""
    key, value = world.entry()
    # The machine may be younger than a lifetime; the clock wraps.
    fields["last_seen"] = fields.get("last_seen", value.last_seen) % 2**64
    world.plane._maps["connections"].update([(key.pack(), value._replace(**fields).pack())])


# replies


@FAMILIES
@KINDS
def test_answers_enter_an_isolated_pod(world: World, out: Flow, kind: str) -> None:
    world.subject(A_ID, ingress=EMPTY)
    first, answer = pair(out, kind)
    assert world.outcome("from_net", answer) == "drop_ingress_policy"
    assert world.outcome("from_pod", first) == "pass_remote"
    assert world.outcome("from_net", answer) == "pass_local"


@FAMILIES
@KINDS
def test_answers_leave_an_isolated_pod(world: World, out: Flow, kind: str) -> None:
    world.subject(A_ID, egress=EMPTY)
    first, answer = pair(out.reversed(), kind)
    assert world.outcome("from_pod", answer) == "drop_egress_policy"
    assert world.outcome("from_net", first) == "pass_local"
    assert world.outcome("from_pod", answer) == "pass_remote"


@pytest.mark.parametrize("flow", [Flow(A4, B4), Flow(A6, B6)], ids=["v4", "v6"])
@KINDS
def test_local_connection_is_judged_at_both_ends(world: World, flow: Flow, kind: str) -> None:
    world.subject(A_ID, ingress=EMPTY)
    world.subject(B_ID, egress=EMPTY)
    first, answer = pair(flow, kind)
    assert world.outcome("from_pod", first) == "pass_local"
    assert world.connections() == 2
    # Pod B moves behind the link that the test can send by.
    world.plane.delete_local_endpoints([LINK_A])
    world.endpoint(LINK_A, B_ID, B4, B6)
    world.endpoint(13, A_ID, A4, A6)
    assert world.outcome("from_pod", answer) == "pass_local"


@FAMILIES
def test_another_tuple_is_no_answer(world: World, out: Flow) -> None:
    world.subject(A_ID, ingress=EMPTY)
    world.run("from_pod", out.udp())
    back = out.reversed()
    for other in (
        Flow(back.src, back.dst, back.sport, 40001),
        Flow(back.src, back.dst, 81, back.dport),
        Flow(W4 if out.is_ipv4 else W6, back.dst, back.sport, back.dport),
    ):
        assert world.outcome("from_net", other.udp()) == "drop_ingress_policy"
    assert world.outcome("from_net", back.tcp(ACK)) == "drop_ingress_policy"


@FAMILIES
def test_echo_request_is_no_answer_to_an_echo_request(world: World, out: Flow) -> None:
    world.subject(A_ID, ingress=EMPTY)
    world.run("from_pod", out.echo(5))
    assert world.outcome("from_net", out.reversed().echo(5)) == "drop_ingress_policy"
    assert world.outcome("from_net", out.reversed().echo_reply(6)) == "drop_ingress_policy"
    assert world.outcome("from_net", out.reversed().echo_reply(5)) == "pass_local"


def test_identifier_of_an_echo_is_no_port_of_a_policy(world: World) -> None:
    world.policy(10, PolicyEntry(peer=R_ID, protocol=ICMP, port=5, port_bits=16))
    world.subject(A_ID, ingress=10)
    assert world.outcome("from_net", Flow(R4, A4).echo_reply(5)) == "drop_ingress_policy"


@FAMILIES
def test_icmp_that_asks_nothing_has_no_connection(world: World, out: Flow) -> None:
    world.subject(A_ID, ingress=EMPTY)
    world.run("from_pod", out.echo(0))
    frame = out.reversed().frame(out.icmp_protocol, icmp(200, 0))
    assert world.outcome("from_net", frame) == "drop_ingress_policy"


@FAMILIES
def test_syn_is_never_an_answer(world: World, out: Flow) -> None:
    world.subject(A_ID, ingress=EMPTY)
    world.run("from_pod", out.tcp())
    assert world.outcome("from_net", out.reversed().tcp(SYN)) == "drop_ingress_policy"


# re-evaluation


@FAMILIES
@KINDS
def test_new_epoch_ends_what_is_no_longer_allowed(world: World, out: Flow, kind: str) -> None:
    first, answer = pair(out, kind)
    world.run("from_pod", first)
    assert world.outcome("from_net", answer) == "pass_local"
    world.policy(10, PolicyEntry(peer=R_ID + 1))
    world.subject(A_ID, egress=10, epoch=2)
    # The answer comes first: what counts is the direction in which the connection began.
    assert world.outcome("from_net", answer) == "drop_ingress_policy"
    assert world.connections() == 0
    assert world.outcome("from_pod", first) == "drop_egress_policy"


@FAMILIES
def test_answers_cannot_revive_a_tcp_connection_that_ended(world: World, out: Flow) -> None:
    world.run("from_pod", out.tcp())
    world.run("from_net", out.reversed().tcp(SYN | ACK))
    world.subject(A_ID, egress=EMPTY, epoch=2)
    for _ in range(3):
        world.run("from_net", out.reversed().tcp(ACK))
        assert world.outcome("from_pod", out.tcp(ACK)) == "drop_egress_policy"


@FAMILIES
@KINDS
def test_new_epoch_keeps_what_is_still_allowed(world: World, out: Flow, kind: str) -> None:
    first, answer = pair(out, kind)
    world.run("from_pod", first)
    world.policy(10, PolicyEntry(peer=R_ID))
    world.subject(A_ID, ingress=EMPTY, egress=10, epoch=2)
    assert world.outcome("from_net", answer) == "pass_local"
    assert world.entry()[1].epoch == 2
    assert world.outcome("from_pod", first) == "pass_remote"


@FAMILIES
def test_same_epoch_asks_no_policy(world: World, out: Flow) -> None:
    world.run("from_pod", out.udp())
    world.subject(A_ID, egress=EMPTY, epoch=1)
    assert world.outcome("from_pod", out.udp()) == "pass_remote"


@FAMILIES
@pytest.mark.parametrize("replies", [False, True])
def test_peer_address_with_a_new_owner_is_judged_anew(
    world: World, out: Flow, *, replies: bool
) -> None:
    world.policy(10, PolicyEntry(peer=R_ID))
    world.subject(A_ID, ingress=EMPTY, egress=10)
    world.run("from_pod", out.udp())
    world.map(out.dst, R_ID + 1, OTHER_NODE)
    if replies:
        assert world.outcome("from_net", out.reversed().udp()) == "drop_ingress_policy"
    else:
        assert world.outcome("from_pod", out.udp()) == "drop_egress_policy"
    assert world.connections() == 0


@FAMILIES
def test_own_address_with_a_new_owner_is_judged_anew(world: World, out: Flow) -> None:
    world.run("from_pod", out.udp())
    world.endpoint(LINK_A, A_ID + 50, A4, A6)
    world.subject(A_ID + 50, egress=EMPTY, epoch=1)
    assert world.outcome("from_pod", out.udp()) == "drop_egress_policy"


@FAMILIES
def test_reevaluation_uses_the_prefix_of_the_original_direction(world: World, out: Flow) -> None:
    world.run("from_pod", out.udp())
    block = PrefixEntry(address=mapped(out.dst), length=128, peer_class=0x80000001, outside_class=0)
    allowed = PolicyEntry(peer=0x80000001, protocol=UDP, port=80, port_bits=16)
    world.policy(10, allowed, prefixes=(block,))
    world.subject(A_ID, ingress=EMPTY, egress=10, epoch=2)
    assert world.outcome("from_net", out.reversed().udp()) == "pass_local"


@FAMILIES
def test_closing_an_identity_ends_its_connections(world: World, out: Flow) -> None:
    world.run("from_pod", out.udp())
    world.plane.delete_subjects([A_ID])
    assert world.outcome("from_pod", out.udp()) == "drop_closed"
    assert world.connections() == 0


# beginnings and endings


@FAMILIES
def test_packets_of_a_connection_are_counted_and_timed(world: World, out: Flow) -> None:
    for _ in range(3):
        world.run("from_pod", out.udp())
    world.run("from_net", out.reversed().udp())
    key, value = world.entry()
    assert (key.saddr, key.daddr) == (mapped(out.src), mapped(out.dst))
    assert (key.sport, key.dport, key.protocol, key.side) == (40000, 80, UDP, abi.Side.EGRESS)
    assert (value.subject, value.peer, value.epoch, value.packets) == (A_ID, R_ID, 1, 4)
    age = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - value.last_seen
    assert 0 <= age < 60e9


@FAMILIES
@pytest.mark.parametrize(
    ("shown", "seconds"),
    [
        ({"original": 1, "reply": 0}, 60),
        ({"original": 1, "reply": 1}, 8000),
        ({"original": 3, "reply": 1}, 8000),
        ({"original": 3, "reply": 3}, 10),
        ({"original": 5, "reply": 1}, 10),
        ({"original": 1, "reply": 5}, 10),
    ],
    ids=["unanswered", "open", "half closed", "closed", "reset", "refused"],
)
def test_tcp_entry_counts_for_its_lifetime(
    world: World, out: Flow, shown: dict[str, int], seconds: int
) -> None:
    world.subject(A_ID, ingress=EMPTY)
    world.run("from_pod", out.tcp())
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    answer = out.reversed().tcp(ACK)
    change(world, **shown, last_seen=now - (seconds - 5) * 10**9)
    assert world.outcome("from_net", answer) == "pass_local"
    change(world, **shown, last_seen=now - (seconds + 5) * 10**9)
    assert world.outcome("from_net", answer) == "drop_ingress_policy"


@FAMILIES
def test_entry_from_another_processors_future_counts(world: World, out: Flow) -> None:
    world.subject(A_ID, ingress=EMPTY)
    world.run("from_pod", out.tcp())
    change(world, last_seen=time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 10**9)
    assert world.outcome("from_net", out.reversed().tcp(ACK)) == "pass_local"


@FAMILIES
@pytest.mark.parametrize(("reply", "seconds"), [(0, 60), (1, 180)])
def test_udp_entry_counts_for_its_lifetime(
    world: World, out: Flow, reply: int, seconds: int
) -> None:
    world.subject(A_ID, ingress=EMPTY)
    world.run("from_pod", out.udp())
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    change(world, reply=reply, last_seen=now - (seconds - 5) * 10**9)
    assert world.outcome("from_net", out.reversed().udp()) == "pass_local"
    change(world, reply=reply, last_seen=now - (seconds + 5) * 10**9)
    assert world.outcome("from_net", out.reversed().udp()) == "drop_ingress_policy"


@FAMILIES
def test_flags_of_both_directions_are_kept_apart(world: World, out: Flow) -> None:
    world.run("from_pod", out.tcp())
    world.run("from_net", out.reversed().tcp(SYN | ACK))
    world.run("from_pod", out.tcp(FIN | ACK))
    assert (world.entry()[1].original, world.entry()[1].reply) == (3, 1)
    world.run("from_net", out.reversed().tcp(RST))
    assert (world.entry()[1].original, world.entry()[1].reply) == (3, 5)


@FAMILIES
def test_syn_on_a_closed_entry_begins_anew(world: World, out: Flow) -> None:
    world.run("from_pod", out.tcp())
    change(world, original=3, reply=3)
    world.run("from_pod", out.tcp())
    value = world.entry()[1]
    assert (value.original, value.reply, value.packets) == (1, 0, 1)


# the node's own stack

PROBES = [Flow(NODE4, A4), Flow(NODE6, A6)]


@pytest.mark.parametrize("probe", PROBES, ids=["v4", "v6"])
@KINDS
@pytest.mark.parametrize("identity", [A_ID, 0], ids=["isolated", "closed"])
def test_probes_and_their_answers_always_pass(
    world: World, probe: Flow, kind: str, identity: int
) -> None:
    world.endpoint(LINK_A, identity, A4, A6)
    world.subject(A_ID, ingress=EMPTY, egress=EMPTY)
    first, answer = pair(probe, kind)
    assert world.outcome("from_pod", answer).startswith("drop_")
    assert world.outcome("to_pod", first) == "pass_from_host"
    assert world.outcome("from_pod", answer) == "pass_stack"
    world.subject(A_ID, ingress=EMPTY, egress=EMPTY, epoch=2)
    assert world.outcome("from_pod", answer) == "pass_stack"


@pytest.mark.parametrize("probe", PROBES, ids=["v4", "v6"])
def test_probes_connection_is_followed_to_its_end(world: World, probe: Flow) -> None:
    world.run("to_pod", probe.tcp())
    world.run("from_pod", probe.reversed().tcp(SYN | ACK))
    world.run("to_pod", probe.tcp(FIN | ACK))
    value = world.entry()[1]
    assert (value.original, value.reply, value.from_host) == (3, 1, 1)
    assert (value.peer, value.packets) == (abi.Identity.HOST, 3)


def test_answers_of_the_host_pass(world: World) -> None:
    world.subject(A_ID, ingress=EMPTY)
    assert world.outcome("from_pod", Flow(A4, NODE4).udp()) == "pass_stack"
    assert world.outcome("to_pod", Flow(NODE4, A4, 80, 40000).udp()) == "pass_from_host"
    assert world.entry()[1].reply == 1


def test_others_cannot_ride_on_a_probe(world: World) -> None:
    world.subject(A_ID, ingress=EMPTY, egress=EMPTY)
    probe = Flow(NODE4, A4)
    world.run("to_pod", probe.udp())
    # The same tuple, but it came in by a link: not this node's stack.
    assert world.outcome("to_pod", probe.udp(), ingress_ifindex=1) == "drop_ingress_policy"
    world.run("to_pod", probe.udp())
    world.map(NODE4, R_ID, OTHER_NODE)
    assert world.outcome("from_pod", probe.reversed().udp()) == "drop_egress_policy"
