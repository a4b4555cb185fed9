"""Filters on links: where they are, that they are replaced, and what stops them."""

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from nodeagent.dataplane import tc
from nodeagent.dataplane.kernel import KernelDataPlane
from tests.bpf.network import inside, ip

LOOPBACK = 1


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"dpt{os.getpid()}-attach"
    ip("netns", "add", name)
    yield name
    ip("netns", "delete", name)


def filters(namespace: str, hook: str) -> list[dict[str, Any]]:
    listing = subprocess.run(
        ("tc", "-n", namespace, "-j", "filter", "show", "dev", "lo", hook),
        check=True, capture_output=True, timeout=10,
    ).stdout  # fmt: skip
    return [entry for entry in json.loads(listing) if "options" in entry]


def test_pod_link_gets_both_programs_and_keeps_one_of_each(
    namespace: str, shared_plane: KernelDataPlane
) -> None:
    with inside(namespace):
        for _ in range(3):
            shared_plane.attach_pod(LOOPBACK)
    for hook, name in (("ingress", "from_pod"), ("egress", "to_pod")):
        (found,) = filters(namespace, hook)
        assert (found["pref"], found["options"]["bpf_name"]) == (1, name)
        assert (found["options"]["handle"], found["options"]["direct-action"]) == ("0x1", True)


def test_another_program_takes_the_place(namespace: str, shared_plane: KernelDataPlane) -> None:
    with inside(namespace):
        shared_plane.attach_pod(LOOPBACK)
        (before,) = filters(namespace, "ingress")
        shared_plane.attach_uplink(LOOPBACK)
    (after,) = filters(namespace, "ingress")
    assert after["options"]["bpf_name"] == "from_net"
    assert after["options"]["prog"]["id"] != before["options"]["prog"]["id"]


def test_qdisc_of_somebody_else_is_used(namespace: str, shared_plane: KernelDataPlane) -> None:
    subprocess.run(
        ("tc", "-n", namespace, "qdisc", "add", "dev", "lo", "clsact"), check=True, timeout=10
    )
    with inside(namespace):
        shared_plane.attach_uplink(LOOPBACK)
    assert len(filters(namespace, "ingress")) == 1


def test_link_that_is_gone_is_an_error(namespace: str, shared_plane: KernelDataPlane) -> None:
    with inside(namespace), pytest.raises(OSError, match="tc") as caught:
        shared_plane.attach_pod(4711)
    assert caught.value.errno == errno.ENODEV


def test_descriptor_that_is_no_program_is_an_error(namespace: str) -> None:
    with inside(namespace), open(os.devnull, "rb") as file, pytest.raises(OSError) as caught:  # noqa: PT011, PTH123
        tc.attach(LOOPBACK, {tc.Hook.INGRESS: ("x", file.fileno())})
    assert caught.value.errno == errno.EINVAL
    assert filters(namespace, "ingress") == []
