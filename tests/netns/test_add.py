"""The plugin binary and a real agent: what ADD makes and DEL takes away."""

import json
from typing import Any

import pytest

from deltaplane.v1 import policy_pb2
from tests.netns.node import NODE_IPV4, NODE_IPV6, Node, run, until
from tests.netns.services_thread import Services


def ping(node: Node, target: str) -> bool:
    source = NODE_IPV6 if ":" in target else NODE_IPV4
    command = ("ping", "-I", source, "-c1", "-W1", target)
    return "1 received" in run("ip", "netns", "exec", node.namespace, *command, check=False)


def test_a_pod_gets_a_link_that_works_in_both_families(node: Node) -> None:
    node.start_ready()

    ipv4, ipv6 = node.add("web").addresses

    assert ping(node, ipv4)
    assert ping(node, ipv6)
    [link] = json.loads(node.in_pod("web", "ip", "-json", "address", "show", "dev", "eth0"))
    assert link["mtu"] == 1430
    found = {info["local"]: info for info in link["addr_info"] if info["scope"] == "global"}
    assert found[ipv4]["prefixlen"] == 32
    assert found[ipv6]["prefixlen"] == 128
    assert found[ipv6]["nodad"]
    neighbours = json.loads(node.in_pod("web", "ip", "-json", "neighbour", "show"))
    assert {n["dst"]: n["state"] for n in neighbours} == {
        "169.254.1.1": ["PERMANENT"],
        "fe80::1": ["PERMANENT"],
    }
    [host] = node.host_links()
    for family, target in (("-4", ipv4), ("-6", ipv6)):
        [route] = json.loads(node.ip("-json", family, "route", "show", target))
        assert route["dev"] == host
        assert json.loads(node.ip("-json", family, "route", "show", "type", "unreachable"))
    assert '"level": "error"' not in node.log()


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_the_result_speaks_the_callers_version(ready: Node, version: str) -> None:
    ready.services.apply_pod("web", ready.name, app="web")
    ready.new_pod_namespace("web")

    result = ready.cni("ADD", "web", version=version).document

    assert result["cniVersion"] == version
    [link] = [item for item in result["interfaces"] if "sandbox" in item]
    assert link["name"] == "eth0"
    assert link["sandbox"] == ready.pod_path("web")
    [live] = json.loads(ready.in_pod("web", "ip", "-json", "link", "show", "dev", "eth0"))
    assert link["mac"] == live["address"]
    assert all(("version" in ip) == (version in ("0.3.1", "0.4.0")) for ip in result["ips"])


def test_add_twice_is_refused_and_the_first_stays(ready: Node) -> None:
    ipv4, _ = ready.add("web").addresses

    again = ready.cni("ADD", "web")

    assert (again.code, again.document["code"]) == (1, 999)
    assert ping(ready, ipv4)
    assert len(ready.host_links()) == 1


def test_delete_takes_everything_away_and_may_be_repeated(ready: Node) -> None:
    first = ready.add("web").addresses

    for _ in range(2):
        assert ready.cni("DEL", "web").code == 0
        assert ready.host_links() == []
        assert ready.services.endpoints() == []
        assert "eth0" not in ready.in_pod("web", "ip", "link")

    # A released address rests; the next pod gets another one.
    assert not set(first) & set(ready.cni("ADD", "web").addresses)


def test_delete_of_an_unknown_container_succeeds(ready: Node) -> None:
    assert ready.cni("DEL", "nobody", netns="").code == 0
    assert ready.cni("DEL", "nobody", netns="/run/netns/not-there").code == 0


def test_delete_works_when_the_namespace_is_gone(ready: Node) -> None:
    ready.add("web")
    ready.delete_pod_namespace("web")

    assert ready.cni("DEL", "web").code == 0
    assert ready.services.endpoints() == []


def test_a_container_may_have_two_interfaces(ready: Node) -> None:
    first = ready.add("web")

    second = ready.cni("ADD", "web", ifname="net1")

    # One endpoint has one pod's identity; the registry takes both interfaces.
    assert second.code == 0, second.document
    assert not set(first.addresses) & set(second.addresses)
    assert ready.cni("DEL", "web", ifname="net1").code == 0
    assert ping(ready, first.addresses[0])
    assert len(ready.services.endpoints()) == 1


def test_garbage_collection_keeps_what_the_runtime_knows(ready: Node) -> None:
    ready.add("web")
    ready.add("old")
    valid: Any = [{"containerID": "container-web", "ifname": "eth0"}]

    refused = ready.cni("GC", "web")
    collected = ready.cni("GC", "web", **{"cni.dev/valid-attachments": valid})

    assert refused.document["code"] == 7
    assert collected.code == 0
    assert [endpoint.pod for endpoint in ready.services.endpoints()] == ["web"]
    assert len(ready.host_links()) == 1


def test_a_pod_whose_policy_is_new_is_closed_for_others_and_open_for_its_node(
    node: Node, services: Services
) -> None:
    services.deny_ingress("closed")
    node.start_ready()
    ipv4, _ = node.add("web").addresses
    node.add("client")

    denied = node.in_pod("client", "ping", "-c1", "-W1", ipv4, check=False)

    assert ping(node, ipv4)
    assert "1 received" not in denied
    [denial] = until(node.denials, "the denial is counted")
    assert denial.ingress
    # No rule allows it: the default denied as many packets.
    [counter] = node.rule_counters()
    assert (counter.policy, counter.ingress, counter.hits) == ("", True, denial.packets)
    assert counter.action == policy_pb2.RULE_ACTION_DENY


def test_policies_are_in_force_when_add_returns(node: Node) -> None:
    node.start_ready()
    node.add("client")

    for number in range(5):
        ipv4, ipv6 = node.add(f"web-{number}").addresses
        # The very first packet: no retry.
        for target in (ipv4, ipv6):
            assert "1 received" in node.in_pod("client", "ping", "-c1", "-W1", target)
    assert "interface_still_closed" not in node.log()
