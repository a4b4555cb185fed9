"""A node is given back as it was; only then, and only by the command for it."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.dataplane import cgroups
from tests.netns.node import ROOT, Node

SYSCTLS = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """One without processes: programs of sockets may be put on it, and meet nobody."""
    mount = cgroups.find_mount()
    assert mount is not None
    folder = mount / f"dpt{os.getpid()}-uninstall"
    folder.mkdir()
    yield folder
    folder.rmdir()


def uninstall(node: Node) -> subprocess.CompletedProcess[str]:
    command = ["nodeagent.uninstall" if word == "nodeagent" else word for word in node.command()]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )


def settings(node: Node) -> list[str]:
    paths = [f"/proc/sys/net/{name}" for name in SYSCTLS]
    return node.in_node("cat", *paths).split()


def left_behind(node: Node) -> dict[str, object]:
    """What an agent has put on the node, of each kind."""
    filters = [
        line
        for hook in ("ingress", "egress")
        for line in node.in_node("tc", "filter", "show", "dev", "uplink", hook).splitlines()
    ]
    routes = [
        line
        for family in ("-4", "-6")
        for line in node.ip(family, "route", "show", "proto", "217").splitlines()
    ]
    found = {
        "filters": filters,
        "routes": routes,
        "links": node.host_links(),
        "tunnel": "dpvxlan" in node.ip("link", "show"),
        "direct": "dpdirect" in node.ip("link", "show"),
        "table": "table inet deltaplane" in node.in_node("nft", "list", "ruleset"),
        "pins": node.pins.exists(),
        "sockets": (node.pins / "links").exists(),
        "sysctls": settings(node) != ["0", "0"],
    }
    return {kind: what for kind, what in found.items() if what}


@pytest.mark.timeout(180)  # seven agents start, one after the other
def test_a_drained_node_is_given_back_as_it_was(node: Node, cgroup: Path) -> None:
    for name in SYSCTLS:
        node.in_node("sh", "-c", f"echo 0 > /proc/sys/net/{name}")
    node.start_ready(routing="vxlan", external_mode="dsr", cgroup=str(cgroup))
    node.add("web")
    running = uninstall(node)
    assert (running.returncode, "another agent runs" in running.stderr) == (1, True)
    node.stop(signal.SIGTERM)
    everything = set(left_behind(node))
    assert everything == {
        *("filters", "routes", "links", "pins", "sysctls"),
        *("tunnel", "direct", "table", "sockets"),
    }

    attached = uninstall(node)
    assert (attached.returncode, "shop/web" in attached.stderr) == (1, True), attached.stderr
    assert set(left_behind(node)) == everything

    node.start_ready(routing="vxlan", external_mode="dsr", cgroup=str(cgroup))
    assert node.cni("DEL", "web").code == 0
    node.stop(signal.SIGTERM)
    drained = uninstall(node)
    assert drained.returncode == 0, drained.stderr
    assert left_behind(node) == {}
    assert uninstall(node).returncode == 0, "it may be repeated"

    node.start_ready()
    node.add("next")
    assert "sockets" not in left_behind(node)


def test_what_somebody_else_has_changed_since_stays(node: Node) -> None:
    for name in SYSCTLS:
        node.in_node("sh", "-c", f"echo 0 > /proc/sys/net/{name}")
    node.start_ready()
    node.stop(signal.SIGTERM)
    node.in_node("sh", "-c", "echo 2 > /proc/sys/net/ipv6/conf/all/forwarding")
    mode = settings(node)[1]
    node.pins.joinpath("other-node").mkdir()
    node.ip("route", "add", "10.9.0.0/24", "via", "198.19.77.250")

    assert uninstall(node).returncode == 0

    assert settings(node) == ["0", mode]
    assert [path.name for path in node.pins.iterdir()] == ["other-node"]
    assert "10.9.0.0/24" in node.ip("route", "show")
