"""Whatever stops the agent: what is there goes on, what was half done is undone, nothing is
forgotten.
"""

import signal
import subprocess
import time

from tests.netns.node import NODE_IPV4, Node, run, until
from tests.netns.services_thread import Services


def test_kill_and_restart_lose_no_packet_between_pods(node: Node) -> None:
    node.start_ready()
    ipv4, _ = node.add("web").addresses
    node.add("client")
    flood = subprocess.Popen(
        [
            "ip",
            "netns",
            "exec",
            f"{node.namespace}-client",
            "ping",
            "-q",
            "-i",
            "0.002",
            "-c",
            "1500",
            ipv4,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )

    node.stop(signal.SIGKILL)
    node.start_ready()

    output, _ = flood.communicate(timeout=20)
    assert "1500 received" in output, output


def test_pods_of_before_the_restart_can_be_deleted(node: Node, services: Services) -> None:
    node.start_ready()
    first = node.add("web").addresses
    node.stop(signal.SIGKILL)
    node.start_ready()

    second = node.add("next").addresses
    assert not set(first) & set(second)
    assert node.cni("DEL", "web").code == 0

    assert len(node.host_links()) == 1
    assert [endpoint.pod for endpoint in services.endpoints()] == ["next"]


def test_a_graceful_stop_leaves_the_data_path(node: Node) -> None:
    node.start_ready()
    ipv4, _ = node.add("web").addresses
    node.add("client")

    assert node.stop(signal.SIGTERM) == 0

    assert "1 received" in node.in_pod("client", "ping", "-c1", "-W1", ipv4)
    run("ip", "netns", "exec", node.namespace, "ping", "-I", NODE_IPV4, "-c1", "-W1", ipv4)


def test_killed_in_the_middle_of_add(node: Node, services: Services) -> None:
    """The pod has no record: ADD makes the link, registers, and waits. There it is killed."""
    node.start_ready()
    node.new_pod_namespace("web")
    environment, config = node.cni_call("ADD", "web")
    waiting = subprocess.Popen(
        [str(node.shim)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert waiting.stdin is not None
    waiting.stdin.write(config)
    waiting.stdin.close()
    until(lambda: node.host_links() and services.endpoints(), "the ADD is half done")

    node.stop(signal.SIGKILL)
    assert waiting.stdout is not None
    assert '"code":11' in waiting.stdout.read()
    waiting.stdout.close()
    assert waiting.wait(10) == 1
    assert len(node.host_links()) == 1

    node.start_ready()
    until(lambda: not node.host_links() and not services.endpoints(), "the rest is undone")
    assert node.interfaces() == []
    services.apply_pod("web", node.name, app="web")
    assert node.cni("ADD", "web").code == 0


def test_a_restart_while_the_registry_is_away_changes_nothing(
    node: Node, services: Services
) -> None:
    node.start_ready()
    ipv4, _ = node.add("web").addresses
    node.add("client")
    node.stop(signal.SIGKILL)
    services.stop("slicer", "registry", "ipam")

    node.start()
    assert node.cni("DEL", "unknown", netns="").code == 0
    assert "1 received" in node.in_pod("client", "ping", "-c1", "-W1", ipv4)
    assert node.cni("DEL", "web").code == 0
    assert len(node.host_links()) == 1

    services.start("registry", "ipam", "slicer")
    until(lambda: [e.pod for e in services.endpoints()] == ["client"], "the release is replayed")


def test_a_link_of_ours_that_nobody_knows_is_removed_and_others_stay(node: Node) -> None:
    node.start_ready()
    node.stop(signal.SIGTERM)
    uid = (node.directory / "state" / "node.uid").read_text().strip()
    # dpddd: of an agent whose state directory is gone. Its name is free again, so it was deleted.
    lost = "6f1c1a52-7f0e-4c0a-9a57-0d6f5f1f7d11"
    for name, alias in (
        ("dpfff", f"deltaplane/{uid}/4095"),
        ("dpeee", "deltaplane/other/1"),
        ("dpddd", f"deltaplane/{lost}/1"),
    ):
        node.ip("link", "add", name, "type", "bridge")
        node.ip("link", "set", name, "alias", alias)
    node.ip("link", "add", "dpbbb", "type", "bridge")

    node.start_ready()

    assert sorted(node.host_links()) == ["dpbbb", "dpeee"]


def test_label_changes_while_the_agent_is_down_are_caught_up(
    node: Node, services: Services
) -> None:
    node.start_ready()
    node.add("web")
    [before] = node.interfaces()
    node.stop(signal.SIGKILL)
    services.apply_pod("web", node.name, app="renamed")

    node.start_ready()

    def identity() -> int:
        [interface] = node.interfaces()
        return interface.identity

    until(lambda: identity() not in (0, before.identity), "the new identity is in force")


def test_a_restart_is_quick(node: Node) -> None:
    started = time.monotonic()
    node.start_ready()
    first = time.monotonic() - started
    node.stop(signal.SIGTERM)

    started = time.monotonic()
    node.start_ready()

    # On a machine that has much else to do a start of any kind takes longer.
    assert time.monotonic() - started < max(10, 3 * first)
