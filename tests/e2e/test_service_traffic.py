"""Packets to services in a lab of two nodes in two zones, both families."""

import http.client
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.services import calling
from deltaplane import manifest
from deltaplane.cli import services
from deltaplane.model.addresses import format_address
from lab import Lab, manifests, netns
from lab.manifests import Manifests
from lab.probe import Call
from tests.e2e.conftest import Command, command_of
from tests.e2e.outside import WORLD, Addresses, call_from
from tests.e2e.traffic import opened
from tests.rolling.campaign import Rolling, roll

FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
FAMILY_OF = {4: socket.AF_INET, 16: socket.AF_INET6}
MANY = 24
"""Calls of which each of two backends gets one: it fails once in 8 million runs."""

NEAR, FAR, CLIENT, DISTANT = "default/near", "default/far", "default/client", "default/distant"
SERVERS = {NEAR, FAR}
GUARDED = {
    socket.AF_INET: ("198.51.100.8", "203.0.113.8"),
    socket.AF_INET6: ("2001:db8:1::8", "2001:db8::8"),
}
"""External address, and address of the load balancer."""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def lab(services_lab: Lab) -> Lab:
    return services_lab


@pytest.fixture
def command(lab: Lab) -> Command:
    return command_of(lab)


def addresses(lab: Lab, name: str) -> Addresses:
    """Cluster addresses of a service."""
    found = services.find(lab.client, f"default/{name}").cluster_ips
    return {FAMILY_OF[len(address)]: format_address(address) for address in found}


def node_address(lab: Lab, node: str, family: socket.AddressFamily) -> str:
    known = lab.topology.node(node)
    return known.uplink_ipv4 if family == socket.AF_INET else known.uplink_ipv6


def world(lab: Lab, host: str = "world") -> str:
    return f"dp-{lab.layout.lab}-{host}"


def routed(lab: Lab, host: str, address: str, node: str, family: socket.AddressFamily) -> None:
    """The host reaches an address by a node."""
    hop = node_address(lab, node, family)
    netns.ip_batch(world(lab, host), [f"route replace {address} via {hop}"])


def silent(answers: list[str]) -> bool:
    return set(answers) <= {"refused", "timeout"}


@pytest.mark.parametrize("source", [CLIENT, DISTANT, "node-1"])
@pytest.mark.parametrize("name", ["four", "six", "dual"])
def test_cluster_addresses(lab: Lab, source: str, name: str) -> None:
    who = lab.topology.node(source) if source.startswith("node") else lab.pod(source)
    for address in addresses(lab, name).values():
        assert set(lab.call(who, Call(address=address, port=80, times=MANY))) == SERVERS


@FAMILIES
def test_every_port_has_its_target_and_no_other_answers(
    lab: Lab, family: socket.AddressFamily
) -> None:
    client, address = lab.pod(CLIENT), addresses(lab, "dual")[family]
    for port, protocol in ((80, "TCP"), (81, "TCP"), (53, "UDP")):
        what = Call(address=address, port=port, protocol=protocol, times=MANY)
        assert set(lab.call(client, what)) == SERVERS
    assert silent(lab.call(client, Call(address=address, port=82)))
    assert silent(lab.call(client, Call(address=address, port=80, protocol="UDP")))


UNCONNECTED = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as client:
    client.settimeout(3)
    for _ in range(3):
        client.sendto(b"?", (sys.argv[1], 53))
        print(client.recvfrom(64)[1][0])
"""


@FAMILIES
def test_udp_answers_come_from_the_service(
    lab: Lab, command: Command, family: socket.AddressFamily
) -> None:
    address = addresses(lab, "dual")[family]
    done = command("lab", "exec", CLIENT, "--", sys.executable, "-c", UNCONNECTED, address)
    assert done.stdout.split() == [address] * 3, done.stderr


def test_names_lead_to_services_and_pods(command: Command) -> None:
    script = "for name in web web.default.svc.cluster.local peers db-1.peers alias; do "
    script += "for v in 4 6; do curl -$v -s -m 5 http://$name || echo none; done; done"
    done = command("lab", "exec", CLIENT, "--", "sh", "-c", script)
    answers = done.stdout.split()
    assert len(answers) == 10, done.stderr
    assert set(answers) <= {"default/db-0", "default/db-1"}
    assert answers[6:8] == ["default/db-1", "default/db-1"]


@FAMILIES
@pytest.mark.parametrize("node", ["node-1", "node-2"])
def test_node_ports_from_inside(lab: Lab, family: socket.AddressFamily, node: str) -> None:
    where = node_address(lab, node, family)
    for who in (lab.pod(CLIENT), lab.pod(DISTANT), lab.topology.node("node-1")):
        assert set(lab.call(who, Call(address=where, port=30081, times=MANY))) == SERVERS
    udp = Call(address=where, port=30053, protocol="UDP", times=MANY)
    assert set(lab.call(lab.pod(CLIENT), udp)) == SERVERS


@FAMILIES
@pytest.mark.parametrize("node", ["node-1", "node-2"])
def test_node_ports_from_outside(lab: Lab, family: socket.AddressFamily, node: str) -> None:
    where = node_address(lab, node, family)
    for port, protocol in ((30080, "TCP"), (30081, "TCP"), (30053, "UDP")):
        what = Call(address=where, port=port, protocol=protocol, times=MANY)
        assert set(call_from(world(lab), what)) == SERVERS


@FAMILIES
def test_external_addresses(lab: Lab, family: socket.AddressFamily) -> None:
    for address in GUARDED[family]:
        routed(lab, "world", address, "node-2", family)
        what = Call(address=address, port=80, times=MANY)
        assert set(call_from(world(lab), what)) == SERVERS
    external, balancer = GUARDED[family]
    what = Call(address=external, port=80, times=MANY)
    assert set(lab.call(lab.pod(CLIENT), what)) == SERVERS
    # Source ranges are for everybody.
    assert silent(lab.call(lab.pod(CLIENT), Call(address=balancer, port=80)))


@FAMILIES
def test_source_ranges_are_for_the_balancers_address(
    lab: Lab, family: socket.AddressFamily
) -> None:
    external, balancer = GUARDED[family]
    for address in (external, balancer):
        routed(lab, "stranger", address, "node-1", family)
    assert silent(call_from(world(lab, "stranger"), Call(address=balancer, port=80)))
    open_to_all = Call(address=external, port=80)
    assert set(call_from(world(lab, "stranger"), open_to_all)) <= SERVERS
    on_node = Call(address=node_address(lab, "node-1", family), port=30100)
    assert set(call_from(world(lab, "stranger"), on_node)) <= SERVERS


@FAMILIES
def test_a_client_keeps_its_backend(lab: Lab, family: socket.AddressFamily) -> None:
    inside = Call(address=addresses(lab, "sticky")[family], port=80, times=MANY)
    outside = Call(address=node_address(lab, "node-1", family), port=30090, times=MANY)
    for who in (CLIENT, DISTANT):
        (answer,) = set(lab.call(lab.pod(who), inside))
        assert answer in SERVERS
    (answer,) = set(call_from(world(lab), outside))
    assert answer in SERVERS


@FAMILIES
def test_internal_traffic_may_stay_on_the_node(lab: Lab, family: socket.AddressFamily) -> None:
    what = Call(address=addresses(lab, "inner")[family], port=80, times=3)
    assert lab.call(lab.pod(CLIENT), what) == [NEAR] * 3
    assert silent(lab.call(lab.pod(DISTANT), what))


@FAMILIES
def test_external_traffic_may_stay_on_the_node_and_keep_its_source(
    lab: Lab, family: socket.AddressFamily
) -> None:
    here, there = (node_address(lab, node, family) for node in ("node-1", "node-2"))
    assert call_from(world(lab), Call(address=here, port=30070, times=3)) == [NEAR] * 3
    assert silent(call_from(world(lab), Call(address=there, port=30070)))
    # Clients in the cluster are no outsiders.
    assert lab.call(lab.pod(DISTANT), Call(address=there, port=30070, times=3)) == [NEAR] * 3

    listener = opened(lab.pod_namespace(lab.pod(NEAR)), family, socket.SOCK_STREAM)
    with listener, opened(world(lab), family, socket.SOCK_STREAM) as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", 7100))
        listener.listen()
        client.connect((here, 30071))
        connection, (peer, *_) = listener.accept()
        connection.close()
    assert peer == WORLD[family]


@FAMILIES
def test_nodes_say_whether_they_have_backends(lab: Lab, family: socket.AddressFamily) -> None:
    def status(node: str) -> int:
        address = node_address(lab, node, family)
        with netns.entered(world(lab)):
            connection = http.client.HTTPConnection(address, 31000, timeout=5)
            connection.connect()
        connection.request("GET", "/")
        code = connection.getresponse().status
        connection.close()
        return code

    assert (status("node-1"), status("node-2")) == (200, 503)


@FAMILIES
def test_pods_that_are_not_ready(lab: Lab, family: socket.AddressFamily) -> None:
    client = lab.pod(CLIENT)
    assert silent(lab.call(client, Call(address=addresses(lab, "late")[family], port=80)))
    early = Call(address=addresses(lab, "early")[family], port=80, times=3)
    assert lab.call(client, early) == ["default/unready"] * 3


@FAMILIES
def test_hints_keep_clients_in_their_zone(lab: Lab, family: socket.AddressFamily) -> None:
    what = Call(address=addresses(lab, "close")[family], port=80, times=MANY)
    assert set(lab.call(lab.pod(CLIENT), what)) == {NEAR}
    assert set(lab.call(lab.pod(DISTANT), what)) == {FAR}


@FAMILIES
def test_a_pod_reaches_itself_through_its_service(lab: Lab, family: socket.AddressFamily) -> None:
    what = Call(address=addresses(lab, "self")[family], port=80, times=3)
    assert lab.call(lab.pod(CLIENT), what) == [CLIENT] * 3
    # Also where no socket is hooked: by a process that is in no control group of the lab.
    assert call_from(lab.pod_namespace(lab.pod(CLIENT)), what) == [CLIENT] * 3


@FAMILIES
def test_slices_that_somebody_else_makes(lab: Lab, family: socket.AddressFamily) -> None:
    with opened(world(lab), family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", 7777))
        listener.listen()
        found: list[str] = []
        what = Call(address=addresses(lab, "manual")[family], port=80)
        caller = threading.Thread(target=lambda: found.extend(lab.call(lab.pod(CLIENT), what)))
        caller.start()
        connection, _ = listener.accept()
        connection.sendall(b"somebody/else\n")
        caller.join()
        connection.close()
    assert found == ["somebody/else"]


POOL = """
apiVersion: v1
kind: Service
metadata: {name: pool}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {app: pool}
  ports: [{name: tcp, port: 80, targetPort: 9000}, {name: udp, port: 53, protocol: UDP}]
"""
MEMBER = """
---
apiVersion: v1
kind: Pod
metadata: {{name: {}, labels: {{app: pool}}}}
spec:
  containers:
    - name: c
      ports: [{{containerPort: 9000}}, {{containerPort: 53, protocol: UDP}}]
"""


def members(*names: str, service: bool = False) -> Manifests:
    text = (POOL if service else "") + "".join(MEMBER.format(name) for name in names)
    return manifests.sort(manifest.parse(text, source="pool"))


@pytest.fixture
def pool(lab: Lab) -> Iterator[Addresses]:
    lab.wait_enforced(lab.apply(members("one", "two", service=True)))
    yield addresses(lab, "pool")
    gone = [pod.name for pod in lab.pods if pod.labels.get("app") == "pool"]
    lab.delete(members(*gone, service=True))


def test_terminating_pods_are_the_last_resort(lab: Lab, pool: Addresses) -> None:
    client = lab.pod(CLIENT)
    for address in pool.values():
        answers = lab.call(client, Call(address=address, port=80, times=MANY))
        assert set(answers) == {"default/one", "default/two"}
    family = socket.AF_INET
    with opened(lab.pod_namespace(client), family, socket.SOCK_STREAM) as kept:
        kept.connect((pool[family], 80))
        served_by = kept.recv(64).strip().decode()
        other = ({"default/one", "default/two"} - {served_by}).pop()

        lab.terminate([lab.pod(served_by)])

        for address in pool.values():
            answers = lab.call(client, Call(address=address, port=80, times=MANY))
            assert set(answers) == {other}
        # Who has a connection keeps it.
        kept.sendall(b"still there?")
        assert kept.recv(64) == b"still there?"
    lab.terminate([lab.pod(other)])
    for address in pool.values():
        answers = lab.call(client, Call(address=address, port=80, times=MANY))
        assert set(answers) == {"default/one", "default/two"}


@FAMILIES
def test_datagrams_leave_a_backend_that_is_gone(
    lab: Lab, pool: Addresses, family: socket.AddressFamily
) -> None:
    """On one connected socket, which does not notice."""
    with opened(lab.pod_namespace(lab.pod(CLIENT)), family, socket.SOCK_DGRAM) as client:
        client.connect((pool[family], 53))

        def served_by() -> str:
            client.send(b"?")
            return client.recv(64).split()[0].decode()

        first = served_by()
        assert served_by() == first
        (other,) = {"default/one", "default/two"} - {first}

        lab.wait_enforced(lab.delete(members(first.rpartition("/")[2])))

        assert served_by() == other


def test_a_rolling_update_refuses_nobody(lab: Lab, tmp_path: Path) -> None:
    """In short; `make soak-rolling` is the long one."""
    rolling = Rolling(lab, size=3)
    rolled = roll(rolling, calling.build(tmp_path), world(lab), count=1, interval_us=2000)
    assert rolled.replaced == 3
    for way, calls in rolled.calls.items():
        assert {call.target for call in calls} == {0, 1}, way
        assert not [call for call in calls if call.failed]
