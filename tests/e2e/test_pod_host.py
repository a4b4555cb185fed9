"""Pod hosts and probes in one namespace of our own: who answers, and how silence is told."""

import json
import socket
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deltaplane.errors import Invalid
from lab import netns, podhost, pods, topology
from lab.dns import message
from lab.layout import ROOT, Layout
from lab.pods import SERVES, Phase, Pod, Port
from lab.prober import Probe, run
from tests.e2e.conftest import fresh_name

WEB = Pod(
    namespace="shop",
    name="web",
    uid="u",
    node="node-1",
    ports=(Port("TCP", 80), Port("UDP", 53)),
    phase=Phase.RUNNING,
)


@pytest.fixture
def host() -> Iterator[Layout]:
    """A pod host with one pod, whose namespace has a loopback and a black hole."""
    layout = Layout(lab=fresh_name())
    namespace = topology.pod_namespace(layout.lab, WEB.uid)
    layout.node("node-1").folder.mkdir(parents=True)
    netns.create(namespace)
    process = None
    try:
        netns.ip_batch(namespace, ["link set lo up", "addr add 192.0.2.1/24 dev lo"])
        netns.ip_batch(namespace, ["link add hole type veth peer name end"])
        netns.ip_batch(namespace, ["link set hole up", "link set end up"])
        netns.ip_batch(namespace, ["route add 198.51.100.1/32 dev hole"])
        netns.ip_batch(namespace, ["neigh add 198.51.100.1 lladdr 02:00:00:00:00:01 dev hole"])
        pods.save(layout.pods, [WEB])
        process = subprocess.Popen(
            [sys.executable, "-m", "lab.podhost", "--lab", layout.lab, "--node", "node-1"],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "ready"
        yield layout
    finally:
        if process is not None:
            process.terminate()
            assert process.wait(5) == 0
            assert process.stdout is not None
            process.stdout.close()
        netns.delete(namespace)
        remove(layout.folder)


def remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    if not any(ROOT.iterdir()):
        ROOT.rmdir()


def probe(
    layout: Layout, address: str, port: int, protocol: str, expect: str = "shop/web"
) -> Probe:
    return Probe(
        netns=topology.pod_namespace(layout.lab, WEB.uid),
        address=address,
        port=port,
        protocol=protocol,
        expect=expect,
    )


def ask(layout: Layout, *probes: Probe) -> list[str]:
    fields = ("netns", "address", "port", "protocol", "expect")
    request = {
        "op": "probe",
        "timeout": 0.3,
        "tries": 2,
        "probes": [{field: getattr(item, field) for field in fields} for item in probes],
    }
    outcomes: list[str] = podhost.ask(layout.node("node-1").podhost_socket, request, seconds=10)[
        "outcomes"
    ]
    return outcomes


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "192.0.2.1"])
def test_every_port_answers_on_both_families(host: Layout, address: str) -> None:
    assert ask(host, probe(host, address, 80, "TCP"), probe(host, address, 53, "UDP")) == [
        "allowed",
        "allowed",
    ]


def test_closed_ports_refuse_and_dropped_packets_time_out(host: Layout) -> None:
    outcomes = ask(
        host,
        probe(host, "127.0.0.1", 81, "TCP"),
        probe(host, "127.0.0.1", 54, "UDP"),
        probe(host, "198.51.100.1", 80, "TCP"),
        probe(host, "198.51.100.1", 53, "UDP"),
        probe(host, "203.0.113.1", 80, "TCP"),
    )

    assert outcomes == ["refused", "refused", "timeout", "timeout", "refused"]


def test_the_wrong_pod_is_not_taken_for_the_right_one(host: Layout) -> None:
    outcomes = ask(
        host,
        probe(host, "127.0.0.1", 80, "TCP", expect="shop/other"),
        probe(host, "::1", 53, "UDP", expect="shop/other"),
    )

    assert outcomes == ["wrong: 'shop/web' answered"] * 2


def test_sync_follows_the_state_file(host: Layout) -> None:
    control = host.node("node-1").podhost_socket
    pods.save(host.pods, [replace(WEB, name="new", ports=(Port("TCP", 8080),))])

    assert podhost.ask(control, {"op": "sync"}, seconds=5) == {"listeners": 1}

    assert ask(
        host,
        probe(host, "127.0.0.1", 80, "TCP"),
        probe(host, "127.0.0.1", 8080, "TCP", expect="shop/new"),
    ) == ["refused", "allowed"]


def test_a_pod_that_does_not_run_is_not_served(host: Layout) -> None:
    pods.save(host.pods, [replace(WEB, phase=Phase.ADDING)])

    assert podhost.ask(host.node("node-1").podhost_socket, {"op": "sync"}, seconds=5) == {
        "listeners": 0
    }


def test_what_it_cannot_do_is_an_answer_and_it_goes_on(host: Layout) -> None:
    control = host.node("node-1").podhost_socket
    pods.save(host.pods, [replace(WEB, uid="unknown")])

    with pytest.raises(Invalid, match="No such file"):
        podhost.ask(control, {"op": "sync"}, seconds=5)
    with pytest.raises(Invalid, match="unknown request"):
        podhost.ask(control, {"op": "dance"}, seconds=5)
    pods.save(host.pods, [WEB])
    assert podhost.ask(control, {"op": "sync"}, seconds=5) == {"listeners": 2}


def test_nobody_at_the_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(podhost.Unreachable, match="nobody"):
        podhost.ask(tmp_path / "nobody", {"op": "sync"}, seconds=1)


async def test_a_namespace_that_is_gone_is_an_outcome() -> None:
    gone = Probe(netns="dp-gone", address="::1", port=1, protocol="TCP", expect="x/y")

    (outcome,) = await run([gone], timeout=0.1, tries=1)

    assert outcome.startswith("wrong: ")


def call(layout: Layout, port: int, times: int = 1, **fields: object) -> list[str]:
    made = {"netns": topology.pod_namespace(layout.lab, WEB.uid), "address": "127.0.0.1"}
    request = {
        "op": "call",
        "call": {**made, "port": port, "protocol": "TCP", **fields},
        "times": times,
        "timeout": 0.5,
    }
    reply = podhost.ask(layout.node("node-1").podhost_socket, request, seconds=10)
    answers: list[str] = reply["answers"]
    return answers


def test_calls_say_who_answers(host: Layout) -> None:
    assert call(host, 80, times=3) == ["shop/web"] * 3
    assert call(host, 53, protocol="UDP") == ["shop/web"]
    assert call(host, 81) == ["refused"]


def test_a_pod_may_speak_http_instead(host: Layout) -> None:
    control = host.node("node-1").podhost_socket
    pods.save(host.pods, [replace(WEB, annotations={SERVES: "http"})])
    podhost.ask(control, {"op": "sync"}, seconds=5)

    assert call(host, 80, times=2, http=True) == ["shop/web"] * 2
    with (
        netns.entered(topology.pod_namespace(host.lab, WEB.uid)),
        urllib.request.urlopen("http://127.0.0.1/any/path", timeout=5) as answer,
    ):
        assert (answer.status, answer.read()) == (200, b"shop/web\n")


def test_a_pod_may_be_the_name_server(host: Layout) -> None:
    ports = (Port("UDP", 53), Port("TCP", 53))
    pods.save(host.pods, [replace(WEB, annotations={SERVES: "dns"}, ports=ports)])
    podhost.ask(host.node("node-1").podhost_socket, {"op": "sync"}, seconds=5)
    pods.replace_file(host.names, json.dumps({"a.cluster.local": {"A": ["10.96.0.1"]}}).encode())
    head = struct.pack(">6H", 7, 0, 1, 0, 0, 0)
    query = head + message.encode_name(message.parse_name("a.cluster.local")) + b"\0\1\0\1"

    with netns.entered(topology.pod_namespace(host.lab, WEB.uid)):
        client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        stream = socket.create_connection(("127.0.0.1", 53), timeout=5)
    with client, stream:
        client.settimeout(5)
        client.sendto(query, ("::1", 53))
        assert client.recv(512)[-4:] == bytes([10, 96, 0, 1])
        stream.sendall(struct.pack(">H", len(query)) + query)
        with stream.makefile("rb") as answers:
            (length,) = struct.unpack(">H", answers.read(2))
            assert answers.read(length)[-4:] == bytes([10, 96, 0, 1])


def test_a_pod_that_is_ending_still_serves(host: Layout) -> None:
    pods.save(host.pods, [replace(WEB, phase=Phase.TERMINATING)])
    podhost.ask(host.node("node-1").podhost_socket, {"op": "sync"}, seconds=5)

    assert call(host, 80) == ["shop/web"]
