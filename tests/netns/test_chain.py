"""The conflist of deploy/cni as a runtime runs it: ours, then bandwidth."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.netns.node import ROOT, CniAnswer, Node
from tests.netns.services_thread import Services

CONFLIST = ROOT / "deploy/cni/10-deltaplane.conflist"
PLUGINS = Path("/usr/lib/cni")
RUNTIME: Mapping[str, Any] = {
    "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
    "bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 1_000_000},
}
SKIP_MESSAGE = "Debian's containernetworking-plugins is not installed"
needs_plugins = pytest.mark.skipif(not (PLUGINS / "bandwidth").exists(), reason=SKIP_MESSAGE)


class Chain:
    """A runtime's view of the conflist (CNI specification, section 4)."""

    def __init__(self, node: Node) -> None:
        self._node = node
        document = json.loads(CONFLIST.read_text())
        self.version: str = document["cniVersion"]
        self._name = document["name"]
        self._plugins = document["plugins"]

    def run(self, command: str, pod: str, previous: Any = None) -> CniAnswer:
        """One command along the chain; DEL from its end, the first error ends the others."""
        plugins = self._plugins[::-1] if command == "DEL" else self._plugins
        last = CniAnswer(0, {}, 0.0)
        for plugin in plugins:
            last = self._call(command, pod, plugin, previous)
            if last.code:
                return last
            if command == "ADD":
                previous = last.document
        return last

    def _call(self, command: str, pod: str, plugin: dict[str, Any], previous: Any) -> CniAnswer:
        wanted = {key: RUNTIME[key] for key in plugin.get("capabilities", {})}
        environment, stdin = self._node.cni_call(command, pod, version=self.version)
        document = {**json.loads(stdin), **plugin, "name": self._name}
        ours = plugin["type"] == self._node.shim.name
        if ours:
            document |= {
                "agentSocket": str(self._node.cni_socket),
                "spoolDir": str(self._node.spool),
            }
        if wanted:
            document["runtimeConfig"] = wanted
        if previous is not None:
            document["prevResult"] = previous
        binary = self._node.shim if ours else PLUGINS / plugin["type"]
        done = subprocess.run(
            ["ip", "netns", "exec", self._node.namespace, str(binary)],
            env={**environment, "PATH": os.environ["PATH"]},
            input=json.dumps(document),
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        found = json.loads(done.stdout) if done.stdout.strip() else {}
        return CniAnswer(done.returncode, found, 0.0)


@needs_plugins
def test_host_ports_and_bandwidth_behind_ours(node: Node, services: Services) -> None:
    node.start_ready()
    chain = Chain(node)
    for name in ("web", "other"):
        services.apply_pod(name, node.name, app="web")
        node.new_pod_namespace(name)

    added = chain.run("ADD", "web")

    assert added.code == 0, added.document
    refused = chain.run("ADD", "other")
    assert "host port 8080/TCP leads to" in refused.document["details"]
    assert "tbf" in node.in_node("tc", "qdisc", "show")
    assert [link["name"] for link in added.document["interfaces"]] == [*node.host_links(), "eth0"]
    checked = chain.run("CHECK", "web", added.document)
    assert checked.code == 0, checked.document

    for _ in range(2):
        deleted = chain.run("DEL", "web", added.document)
        assert deleted.code == 0, deleted.document
    assert node.host_links() == []
    assert chain.run("ADD", "other").code == 0
    assert chain.run("DEL", "other").code == 0
    assert services.endpoints() == []


@needs_plugins
def test_check_along_the_chain_sees_a_lost_address(node: Node, services: Services) -> None:
    node.start_ready()
    chain = Chain(node)
    services.apply_pod("web", node.name, app="web")
    node.new_pod_namespace("web")
    added = chain.run("ADD", "web").document

    node.in_pod("web", "ip", "-4", "address", "flush", "dev", "eth0")

    assert chain.run("CHECK", "web", added).document["code"] == 100
    assert chain.run("DEL", "web", added).code == 0


def test_the_conflist_names_what_the_shim_and_the_agent_take_for_granted() -> None:
    document = json.loads(CONFLIST.read_text())
    first = document["plugins"][0]
    assert (first["type"], first["agentSocket"]) == ("deltaplane-cni", "/run/deltaplane/agent.sock")
    source = (ROOT / "nodeagent/cni/shim/deltaplane-cni.c").read_text()
    assert f'DEFAULT_SPOOL  "{first["spoolDir"]}"' in source
