"""CHECK against the kernel: what ADD made, and each way of losing it."""

from typing import Any

import pytest

from tests.netns.node import Node


def check(node: Node, previous: dict[str, Any], **changes: Any) -> tuple[int, str]:
    answer = node.cni("CHECK", "web", prevResult=previous | changes)
    return answer.document.get("code", 0), answer.document.get("details", "")


def test_check_accepts_what_add_made_in_every_version(ready: Node) -> None:
    added = ready.add("web").document
    for version in ("0.4.0", "1.0.0", "1.1.0"):
        answer = ready.cni("CHECK", "web", version=version, prevResult=added)
        assert (answer.code, answer.document) == (0, {})
    ready.in_pod("web", "ip", "route", "add", "198.18.0.0/15", "dev", "eth0")
    assert check(ready, added) == (0, "")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (("ip", "-4", "address", "flush", "dev", "eth0"), "lost 10.99.0."),
        (("ip", "-6", "route", "delete", "default"), "::/0"),
        (("ip", "link", "set", "eth0", "address", "02:00:00:00:00:01"), "not the one"),
        (("ip", "link", "delete", "eth0"), "eth0 in the pod is gone"),
    ],
)
def test_check_names_what_is_gone(ready: Node, damage: tuple[str, ...], words: str) -> None:
    added = ready.add("web").document

    ready.in_pod("web", *damage)

    code, details = check(ready, added)
    assert code == 100
    assert words in details


def test_check_sees_the_nodes_end(ready: Node) -> None:
    added = ready.add("web").document
    [host] = ready.host_links()
    ready.ip("link", "set", host, "alias", "mine")
    assert "our mark" in check(ready, added)[1]

    ready.ip("link", "delete", host)

    assert "on the node is gone" in check(ready, added)[1]


def test_check_of_what_was_never_added(ready: Node) -> None:
    added = ready.add("web").document
    assert ready.cni("CHECK", "web").document["code"] == 7
    assert check(ready, added, ips="x")[0] == 6
    assert (
        ready.cni("CHECK", "web", netns="/run/netns/none", prevResult=added).document["code"] == 100
    )
    assert ready.cni("DEL", "web").code == 0
    assert check(ready, added)[0] == 3


def test_a_previous_result_comes_first_in_ours(ready: Node) -> None:
    ready.services.apply_pod("web", ready.name, app="web")
    netns = ready.new_pod_namespace("web")
    ready.in_pod("web", "ip", "link", "add", "first0", "type", "veth", "peer", "name", "first1")
    previous = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "first0", "sandbox": netns}],
        "ips": [{"interface": 0, "address": "192.0.2.1/24"}],
        "dns": {"nameservers": ["192.0.2.53"]},
    }

    answer = ready.cni("ADD", "web", prevResult=previous)

    document = answer.document
    assert answer.code == 0
    assert [link["name"] for link in document["interfaces"]][::2] == ["first0", "eth0"]
    assert [ip["interface"] for ip in document["ips"]] == [0, 2, 2]
    assert document["dns"] == previous["dns"]
    assert check(ready, document)[0] == 0
