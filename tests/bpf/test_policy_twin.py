"""The programs reach the verdicts of nodeagent.policy.verdict, whatever the tables hold."""

from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodeagent.dataplane.port import PolicyEntry, PolicySet, PrefixEntry, Verdict
from nodeagent.policy import verdict
from tests.bpf.conftest import A4, A6, A_ID, World
from tests.bpf.packets import SCTP, TCP, UDP, Flow, mapped

# Small enough that entries, prefixes and packets often meet.
CLASSES = (0x80000001, 0x80000002)
PEERS = {300: 300, 301: 301, 2: 2}
PORTS = (0, 1, 79, 80, 81, 8080, 32768, 65535)
SOURCES = {
    A4: ("10.9.0.1", "10.9.0.2", "10.9.1.1", "203.0.113.1"),
    A6: ("fd01::1", "fd01::2", "fd01:1::1", "2001:db8::1"),
}
NETWORKS = (
    ("::", (0, 8, 96, 104)),
    ("10.9.0.0", (96, 112, 120, 126)),
    ("10.9.0.1", (127, 128)),
    ("fd01::", (16, 32, 112)),
    ("fd01::1", (128,)),
)


def cut(address: bytes, length: int) -> bytes:
    """The address without host bits."""
    return (int.from_bytes(address) >> (128 - length) << (128 - length)).to_bytes(16)


@st.composite
def entries(draw: st.DrawFn) -> PolicyEntry:
    peer = draw(st.sampled_from((0, *PEERS, *CLASSES)))
    answer = draw(st.sampled_from(Verdict))
    protocol = draw(st.sampled_from((None, TCP, UDP, SCTP)))
    if protocol is None or draw(st.booleans()):
        return PolicyEntry(peer=peer, protocol=protocol, verdict=answer)
    bits = draw(st.integers(1, 16))
    port = draw(st.sampled_from(PORTS)) >> (16 - bits) << (16 - bits)
    return PolicyEntry(peer=peer, protocol=protocol, port=port, port_bits=bits, verdict=answer)


@st.composite
def prefix_entries(draw: st.DrawFn) -> PrefixEntry:
    text, lengths = draw(st.sampled_from(NETWORKS))
    length = draw(st.sampled_from(lengths))
    peer_class = draw(st.sampled_from((0, *CLASSES)))
    return PrefixEntry(address=cut(mapped(text), length), length=length, peer_class=peer_class)


def key_of(entry: PolicyEntry) -> tuple[int, int | None, int | None, int]:
    return entry.peer, entry.protocol, entry.port, entry.port_bits


def policy_sets(set_id: int) -> st.SearchStrategy[PolicySet]:
    return st.builds(
        PolicySet,
        set_id=st.just(set_id),
        entries=st.lists(entries(), max_size=8, unique_by=key_of).map(tuple),
        prefixes=st.lists(
            prefix_entries(), max_size=5, unique_by=lambda prefix: (prefix.address, prefix.length)
        ).map(tuple),
    )


@dataclass(frozen=True)
class Packet:
    pod: str
    remote: str
    identity: int
    protocol: int
    port: int

    def frame(self, *, egress: bool) -> bytes:
        ends = (self.pod, self.remote) if egress else (self.remote, self.pod)
        flow = Flow(*ends, dport=self.port)
        return {TCP: flow.tcp, UDP: flow.udp, SCTP: flow.sctp, 1: flow.echo}[self.protocol]()

    def expected(self, tables: PolicySet) -> Verdict:
        number = 58 if self.protocol == 1 and ":" in self.pod else self.protocol
        port = 0 if self.protocol == 1 else self.port
        return verdict(tables, self.identity, mapped(self.remote), number, port)


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    pod = draw(st.sampled_from((A4, A6)))
    return Packet(
        pod=pod,
        remote=draw(st.sampled_from(SOURCES[pod])),
        identity=draw(st.sampled_from(tuple(PEERS))),
        protocol=draw(st.sampled_from((TCP, UDP, SCTP, 1))),
        port=draw(st.sampled_from(PORTS)),
    )


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    ingress=policy_sets(1),
    egress=policy_sets(2),
    several=st.lists(packets(), min_size=1, max_size=12),
)
def test_kernel_and_twin_agree(
    world: World, ingress: PolicySet, egress: PolicySet, several: list[Packet]
) -> None:
    world.reset()
    world.populate()
    world.plane.write_policy_set(ingress)
    world.plane.write_policy_set(egress)
    world.subject(A_ID, ingress=1, egress=2)
    for packet in several:
        world.map(packet.remote, packet.identity, 0)
        for program, tables in (("to_pod", ingress), ("from_pod", egress)):
            connections = world.plane._maps["connections"]
            connections.delete([key for key, _ in connections.entries()])
            frame = packet.frame(egress=program == "from_pod")
            outcome = world.outcome(program, frame, ingress_ifindex=1)
            allowed = outcome.startswith("pass_")
            assert allowed == (packet.expected(tables) is Verdict.ALLOW), (program, packet)
