"""Which addresses pods get, when they get them again, and what is left of a lost journal."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from deltaplane.v1 import registry_pb2
from tests.netns.node import CniAnswer, Node, until
from tests.netns.services_thread import Services


def journal(node: Node) -> Path:
    return node.directory / "state/journal.db"


def add_later(node: Node, pod: str) -> CniAnswer:
    """ADD as kubelet does it: again while the answer is 11."""

    def attempt() -> CniAnswer | None:
        answer = node.cni("ADD", pod)
        assert answer.code == 0 or answer.document["code"] == 11, answer.document
        return answer if answer.code == 0 else None

    found: CniAnswer = until(attempt, "the ADD works", 20)
    return found


def test_a_released_address_is_used_again_when_all_nodes_have_acknowledged(
    node: Node, services: Services
) -> None:
    services.create_pool("tiny4", "10.98.0.0/30", 30)
    services.create_pool("tiny6", "fd00:98::/126", 126)
    node.start_ready(pools="tiny4,tiny6")
    addresses = [node.add(f"pod-{number}").addresses for number in range(4)]
    services.apply_pod("late", node.name, app="late")
    node.new_pod_namespace("late")
    services.stop("slicer")
    assert node.cni("DEL", "pod-2").code == 0

    refused = node.cni("ADD", "late")
    services.start("slicer")
    answer = add_later(node, "late")

    assert refused.document["code"] == 11
    assert "1 quarantined until every live node has acknowledged" in refused.document["details"]
    assert answer.addresses == addresses[2]
    assert len(services.endpoints()) == 4


def test_pods_get_the_pool_and_the_address_that_they_ask_for(
    node: Node, services: Services
) -> None:
    services.create_pool("tiny4", "10.98.0.0/28", 28)
    node.start_ready(pools="pods4,pods6")
    inside = node.add("first").addresses[0]
    outside = "10.99.0.200" if not inside.startswith("10.99.0.2") else "10.99.0.9"
    asked = {
        "pool": {"deltaplane.dev/ipv4-pool": "tiny4"},
        "address": {"deltaplane.dev/ip-addresses": outside},
        "nowhere": {"deltaplane.dev/ip-addresses": "192.0.2.1"},
        "no-pool": {"deltaplane.dev/ipv6-pool": "nobody"},
    }
    for pod, annotations in asked.items():
        services.apply_pod(pod, node.name, annotations=annotations, app=pod)
        node.new_pod_namespace(pod)

    assert node.cni("ADD", "pool").addresses[0].startswith("10.98.0.")
    assert add_later(node, "address").addresses[0] == outside
    refused = {pod: node.cni("ADD", pod).document for pod in ("nowhere", "no-pool")}

    assert "192.0.2.1" in refused["nowhere"]["details"]
    assert '"nobody"; there are pods6' in refused["no-pool"]["details"]
    assert sorted(e.pod for e in services.endpoints()) == ["address", "first", "pool"]
    assert len(node.host_links()) == 3
    # The address of its own has a route of its own, and both of them work.
    assert "1 received" in node.in_pod("first", "ping", "-c1", "-W2", outside)


def forget(path: Path) -> None:
    path.unlink()


def damage(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


@pytest.mark.parametrize("lose", [forget, damage])
def test_a_lost_journal_is_rebuilt(
    node: Node, services: Services, lose: Callable[[Path], None]
) -> None:
    node.start_ready()
    ipv4, _ = node.add("web").addresses
    node.add("client")
    node.stop(signal.SIGKILL)
    lose(journal(node))
    services.stop("registry")

    node.start()
    unknown = node.cni("DEL", "web")
    assert (unknown.code, unknown.document["code"]) == (1, 11)
    assert "1 received" in node.in_pod("client", "ping", "-c1", "-W1", ipv4)
    services.start("registry")
    until(lambda: node.cni("STATUS", "", netns="").code == 0, "the agent is ready")

    assert "1 received" in node.in_pod("client", "ping", "-c1", "-W1", ipv4)
    assert sorted(interface.pod for interface in node.interfaces()) == ["client", "web"]
    assert node.cni("DEL", "web").code == 0
    assert [endpoint.pod for endpoint in services.endpoints()] == ["client"]
    services.apply_pod("next", node.name, app="next")
    node.new_pod_namespace("next")
    assert ipv4 not in add_later(node, "next").addresses
    assert max(interface.id for interface in node.interfaces()) > 65_536


def test_a_node_that_was_deleted_loses_its_addresses(node: Node, services: Services) -> None:
    node.start_ready()
    ipv4, _ = node.add("web").addresses
    node.add("client")
    made = node.cni_call("CHECK", "web")
    node.stop(signal.SIGKILL)
    request = registry_pb2.DeleteNodeRequest(name=node.name)
    services.registry(lambda stub: stub.DeleteNode(request))
    until(lambda: not services.endpoints(), "the endpoints of the node are gone")

    node.start_ready()
    until(lambda: "interface_lost" in node.log(), "the agent knows")

    assert services.endpoints() == []
    ping = node.in_pod("client", "ping", "-c1", "-W1", ipv4, check=False)
    assert "1 received" not in ping
    environment, config = made
    previous = {"cniVersion": "1.1.0", "interfaces": [], "ips": []}
    checked = node.call(environment, json.dumps(json.loads(config) | {"prevResult": previous}))
    assert f"does not own {ipv4}" in checked.document["details"]
    assert node.cni("DEL", "web").code == 0
    assert len(node.host_links()) == 1
