"""An ADD that fails half-way leaves no address, link or registration behind."""

import json
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from tests.netns.node import Node, until
from tests.netns.services_thread import Services


def nothing_is_left(node: Node) -> None:
    assert node.host_links() == []
    assert node.services.endpoints() == []
    assert node.interfaces() == []


def test_registry_down(node: Node, services: Services) -> None:
    node.start_ready()
    services.apply_pod("web", node.name, app="web")
    node.new_pod_namespace("web")
    services.stop("registry")

    answer = node.cni("ADD", "web")

    assert (answer.code, answer.document["code"]) == (1, 11)
    assert node.host_links() == []
    assert node.interfaces() == []
    assert "eth0" not in node.in_pod("web", "ip", "link")
    # Once the registry is back, the same ADD works.
    services.start("registry")
    assert until(lambda: node.cni("ADD", "web").code == 0, "the registry is back")


def test_slicer_down_status_says_so(node: Node, services: Services) -> None:
    services.stop("slicer")
    node.start()

    def why() -> str:
        answer = node.cni("STATUS", "", netns="")
        assert answer.code == 1
        details: str = answer.document.get("details", "")
        return details

    until(lambda: str(services.sockets["slicer"]) in why(), "the reason is told")
    services.start("slicer")
    until(lambda: node.cni("STATUS", "", netns="").code == 0, "the slicer is back")


def test_registry_down_at_delete_is_remembered(node: Node, services: Services) -> None:
    node.start_ready()
    node.add("web")
    services.stop("registry")

    assert node.cni("DEL", "web").code == 0
    assert node.host_links() == []

    services.start("registry")
    until(lambda: services.endpoints() == [], "the release is replayed")


def test_no_pod_record(ready: Node) -> None:
    ready.new_pod_namespace("stranger")

    answer = ready.cni("ADD", "stranger")

    assert (answer.code, answer.document["code"]) == (1, 11)
    assert "no pod record" in answer.document["details"]
    nothing_is_left(ready)


def test_a_pod_record_that_comes_late_is_waited_for(ready: Node) -> None:
    ready.new_pod_namespace("late")
    late = threading.Timer(
        0.3, ready.services.apply_pod, args=("late", ready.name), kwargs={"app": "late"}
    )
    late.start()

    answer = ready.cni("ADD", "late")
    late.join()

    assert answer.code == 0, answer.document


def test_another_instance_of_the_pod(ready: Node) -> None:
    ready.services.apply_pod("web", ready.name, app="web")
    ready.new_pod_namespace("web")
    environment, config = ready.cni_call("ADD", "web")
    other = {**environment, "CNI_ARGS": environment["CNI_ARGS"].replace("uid-web", "uid-old")}

    answer = ready.call(other, config)

    assert answer.code == 1
    nothing_is_left(ready)


@pytest.mark.parametrize(
    ("netns", "code"), [("/run/netns/not-there", 3), ("/dev/null", 8), ("{own}", 8)]
)
def test_no_network_namespace(ready: Node, netns: str, code: int) -> None:
    ready.services.apply_pod("web", ready.name, app="web")

    answer = ready.cni("ADD", "web", netns=netns.format(own=f"/run/netns/{ready.namespace}"))

    assert (answer.code, answer.document["code"]) == (1, code)
    nothing_is_left(ready)


def test_the_interface_name_is_taken_in_the_pod(ready: Node) -> None:
    ready.services.apply_pod("web", ready.name, app="web")
    ready.new_pod_namespace("web")
    ready.in_pod("web", "ip", "link", "add", "eth0", "type", "bridge")

    answer = ready.cni("ADD", "web")

    assert (answer.code, answer.document["code"]) == (1, 999)
    assert "bridge" in ready.in_pod("web", "ip", "-details", "link", "show", "eth0")
    nothing_is_left(ready)


def test_pool_exhausted(node: Node, services: Services) -> None:
    services.create_pool("tiny4", "10.98.0.0/30", 30)
    services.create_pool("tiny6", "fd00:98::/126", 126)
    node.start_ready(pools="tiny4,tiny6")
    for number in range(4):
        node.add(f"pod-{number}")
    services.apply_pod("late", node.name, app="late")
    node.new_pod_namespace("late")

    answer = node.cni("ADD", "late")

    assert (answer.code, answer.document["code"]) == (1, 11)
    assert len(node.host_links()) == 4
    assert len(services.endpoints()) == 4
    status = node.cni("STATUS", "", netns="")
    assert status.document["code"] == 50


def test_agent_down(node: Node) -> None:
    node.new_pod_namespace("web")

    assert node.cni("ADD", "web").document["code"] == 11
    assert node.cni("STATUS", "web").document["code"] == 50
    assert node.cni("VERSION", "web").document["supportedVersions"][-1] == "1.1.0"


def test_only_root_may_call(ready: Node, shim: Path) -> None:
    # The mode is the first defence; this is about the second.
    mode = stat.S_IMODE(ready.cni_socket.stat().st_mode)
    ready.cni_socket.chmod(0o666)
    for folder in (*ready.cni_socket.parents, *shim.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            folder.chmod(0o755)
    environment, config = ready.cni_call("STATUS", "")

    # Not subprocess's user=: it forks, and gRPC's threads in this process do not survive a fork.
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", str(shim)],
        env={**environment, "PATH": "/usr/bin:/bin"},
        input=config,
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )

    # Whether the request was still written before the agent hung up is a matter of time.
    assert json.loads(done.stdout)["code"] == 50
    assert "cni_caller_refused" in ready.log()
    ready.cni_socket.chmod(mode)


def test_preflight_names_what_is_missing_and_touches_nothing(node: Node) -> None:
    command = node.command(uplink="nothing", pin_dir=str(node.directory / "pins"))

    done = subprocess.run(
        command, cwd=node.root, capture_output=True, text=True, timeout=30, check=False
    )

    assert done.returncode == 2
    assert "there is no link 'nothing'" in done.stderr
    assert "is in no BPF file system: mount -t bpf" in done.stderr
    assert not (node.directory / "state").exists()


def test_two_agents_on_one_state_directory(node: Node) -> None:
    node.start_ready()

    done = subprocess.run(
        node.command(listen="127.0.0.1:0"),
        cwd=node.root,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 1
    assert "another agent runs" in done.stderr
    assert node.cni("STATUS", "", netns="").code == 0
