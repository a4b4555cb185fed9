"""The IPAM-only mode under Debian's `ptp` and `bridge`: addresses from our blocks, their links."""

import ipaddress
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deltaplane.v1 import registry_pb2
from tests.netns.node import CniAnswer, Node, until
from tests.netns.services_thread import Services

PLUGINS = Path("/usr/lib/cni")
pytestmark = pytest.mark.skipif(
    not (PLUGINS / "ptp").exists(), reason="Debian's containernetworking-plugins is not installed"
)

MAIN: dict[str, dict[str, Any]] = {
    "ptp": {"type": "ptp"},
    "bridge": {"type": "bridge", "bridge": "segment", "isGateway": True},
}


class Delegating:
    """A runtime that calls a main plugin, which calls us."""

    def __init__(self, node: Node, main: str) -> None:
        self._node = node
        self._main = main
        ours = node.shim.with_name("deltaplane-ipam")
        if not ours.exists():
            os.link(node.shim, ours)

    def call(self, command: str, pod: str, *, args: str | None = None, **config: Any) -> CniAnswer:
        environment, stdin = self._node.cni_call(command, pod, version="1.0.0")
        document = json.loads(stdin) | MAIN[self._main] | {"name": f"lan-{self._main}"}
        document |= {"ipam": {"type": "deltaplane-ipam"}, **config}
        variables = dict(environment) | {"CNI_PATH": f"{self._node.shim.parent}:{PLUGINS}"}
        if args is not None:
            variables["CNI_ARGS"] = args
        done = subprocess.run(
            ["ip", "netns", "exec", self._node.namespace, str(PLUGINS / self._main)],
            env={**os.environ, **variables},
            input=json.dumps(document),
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        return CniAnswer(done.returncode, json.loads(done.stdout or "{}"), 0.0)

    def direct(
        self, command: str, pod: str, *, netns: str | None = None, **config: Any
    ) -> CniAnswer:
        """Calls our binary as the main plugin would, for a container that is no pod."""
        environment, stdin = self._node.cni_call(command, pod, netns=netns)
        document = json.loads(stdin) | MAIN[self._main] | {"name": f"lan-{self._main}"}
        document |= {"ipam": {"type": "deltaplane-ipam"}, **config}
        return self._node.call({**environment, "CNI_ARGS": ""}, json.dumps(document))

    def add(self, pod: str, *, args: str | None = None) -> CniAnswer:
        self._node.new_pod_namespace(pod)
        for name in ("all", "default"):
            # Else the plugin waits for duplicate address detection.
            path = f"/proc/sys/net/ipv6/conf/{name}/accept_dad"
            self._node.in_pod(pod, "sh", "-c", f"echo 0 > {path}")
        answer = self.call("ADD", pod, args=args)
        assert answer.code == 0, (answer.document, self._node.log()[-3000:])
        return answer


@pytest.fixture
def ready(node: Node) -> Node:
    """A node that can add pods."""
    node.in_node("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad")
    node.start_ready()
    return node


def ping(node: Node, pod: str, address: str) -> bool:
    done = node.in_pod(pod, "ping", "-c1", "-W2", address, check=False)
    return " 0% packet loss" in done


def endpoints(services: Services) -> set[str]:
    """Names of the pods that the registry knows endpoints of."""
    request = registry_pb2.ListEndpointsRequest()
    answer = services.registry(lambda stub: stub.ListEndpoints(request))
    return {endpoint.pod for endpoint in answer.endpoints}


def held(node: Node) -> set[str]:
    """Containers that hold addresses."""
    return {item.owner.container_id for item in node.interfaces()}


def interfaces(answer: CniAnswer) -> list[Any]:
    return [ipaddress.ip_interface(item["address"]) for item in answer.document["ips"]]


@pytest.mark.parametrize("main", list(MAIN))
def test_pods_of_another_plugin_reach_each_other_and_ours(
    ready: Node, services: Services, main: str
) -> None:
    runtime = Delegating(ready, main)
    for pod in ("one", "two"):
        services.apply_pod(pod, ready.name, app=pod)
    first, second = runtime.add("one"), runtime.add("two")
    ours = ready.add("web")

    assert len(first.addresses) == 2
    blocks = [found.network for found in interfaces(first)]
    # Both from one block, whose second address is the gateway; our own pods are in another block.
    assert [found.network for found in interfaces(second)] == blocks
    gateways = [item["gateway"] for item in first.document["ips"]]
    assert gateways == [str(block[1]) for block in blocks]
    assert not any(
        ipaddress.ip_address(address) in block for address in ours.addresses for block in blocks
    )
    for address in (*second.addresses, *gateways, *ours.addresses):
        assert ping(ready, "one", address), address
    for address in first.addresses:
        assert ping(ready, "web", address), address
    # The registry knows them by their pods: other nodes map them.
    assert endpoints(services) == {"one", "two", "web"}

    for pod in ("one", "two"):
        assert runtime.call("DEL", pod).code == 0
        assert runtime.call("DEL", pod).code == 0
    assert endpoints(services) == {"web"}
    assert {item.pod for item in ready.interfaces()} == {"web"}


def test_without_a_pod_nobody_else_is_told_and_the_address_is_free_at_once(
    ready: Node, services: Services
) -> None:
    runtime = Delegating(ready, "bridge")
    found = []
    for turn in range(20):
        # More often than the block has addresses: what is given back is handed out again.
        pod = f"turn-{turn}"
        answer = runtime.direct("ADD", pod, netns="/proc/self/ns/net")
        assert answer.code == 0, answer.document
        found.append(interfaces(answer)[0])
        assert endpoints(services) == set()
        assert runtime.direct("DEL", pod, netns="").code == 0
    [block] = {address.network for address in found}
    # All but the gateway and the edges, one after the other.
    assert {address.ip for address in found} == set(block.hosts()) - {block[1]}


def test_check_and_gc_know_what_is_held(ready: Node) -> None:
    runtime = Delegating(ready, "bridge")
    added = runtime.direct("ADD", "kept")
    runtime.direct("ADD", "stale")
    assert runtime.direct("STATUS", "", netns="").code == 0
    assert runtime.direct("CHECK", "kept", prevResult=added.document).code == 0
    wrong = json.loads(json.dumps(added.document))
    wrong["ips"] = wrong["ips"][1:]
    assert runtime.direct("CHECK", "kept", prevResult=wrong).document["code"] == 100

    valid: dict[str, Any] = {
        "cni.dev/valid-attachments": [{"containerID": "container-kept", "ifname": "eth0"}]
    }
    # A GC of the main mode leaves them alone, even one for a network of the same name.
    assert ready.cni("GC", "", netns="", name="lan-bridge", **valid).code == 0
    assert held(ready) == {"container-kept", "container-stale"}
    assert runtime.direct("GC", "", netns="", **valid).code == 0
    assert held(ready) == {"container-kept"}
    assert runtime.direct("CHECK", "stale", prevResult=added.document).document["code"] == 100


def test_an_agent_that_is_killed_remembers_and_one_that_is_away_is_made_up_for(
    ready: Node, services: Services
) -> None:
    runtime = Delegating(ready, "bridge")
    services.apply_pod("named", ready.name, app="named")
    named = runtime.add("named")
    nameless = runtime.add("nameless", args="")
    ready.stop(signal.SIGKILL)

    assert runtime.call("DEL", "named").code == 0, "spooled"
    assert runtime.direct("ADD", "third").document["code"] == 11

    ready.start_ready()
    until(lambda: not endpoints(services), "the DEL is made up for")
    third = runtime.direct("ADD", "third")
    assert third.code == 0, third.document
    assert interfaces(third)[0].network == interfaces(named)[0].network
    # Neither the one that is held nor the gateway's.
    taken = {*nameless.addresses, *(item["gateway"] for item in named.document["ips"])}
    assert not taken & set(third.addresses)
    assert ping(ready, "nameless", nameless.document["ips"][0]["gateway"])
