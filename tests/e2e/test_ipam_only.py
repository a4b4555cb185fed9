"""The IPAM-only mode between nodes: `ptp` on one, our own pods on the other."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.adding import Adder, BenchPod
from bench.echo import first_answer
from lab import cni, netns
from lab.cluster import Lab

PLUGINS = Path("/usr/lib/cni")
NODE, OTHER = "node-1", "node-2"

# Starting a lab may take its READY_SECONDS where the machine has much else to do.
pytestmark = pytest.mark.timeout(240)


@contextmanager
def added_by_ptp(lab: Lab, pod: BenchPod, binaries: Path) -> Iterator[list[str]]:
    """A pod whose interface `ptp` makes with our addresses; they are given."""

    def call(command: str) -> bytes:
        environment = pod.attachment.environment(command)
        document = pod.attachment.configuration()
        document |= {"type": "ptp", "name": "lan", "ipam": {"type": "deltaplane-ipam"}}
        with netns.entered(lab.topology.node(NODE).namespace):
            done = subprocess.run(
                [PLUGINS / "ptp"],
                env=environment | {"CNI_PATH": f"{binaries}:{PLUGINS}"},
                input=json.dumps(document).encode(),
                capture_output=True,
                check=False,
            )
        assert done.returncode == 0, done.stdout
        return done.stdout

    netns.write_sysctls(pod.netns, [("net/ipv6/conf/default/accept_dad", "0")])
    try:
        found = json.loads(call("ADD"))["ips"]
        yield [item["address"].partition("/")[0] for item in found]
    finally:
        call("DEL")


@pytest.mark.skipif(
    not (PLUGINS / "ptp").exists(), reason="Debian's containernetworking-plugins is not installed"
)
def test_pods_of_ptp_and_our_own_on_another_node_reach_each_other(lab: Lab, tmp_path: Path) -> None:
    adder = Adder(lab)
    with (
        adder.pods(NODE, 1, distinct=True) as [theirs],
        adder.pods(OTHER, 1, distinct=True) as [ours],
    ):
        (tmp_path / "deltaplane-ipam").symlink_to(ours.attachment.plugin)
        own = cni.add(ours.attachment).addresses
        with added_by_ptp(lab, theirs, tmp_path) as addresses:
            assert len(addresses) == len(own) == 2
            pairs = [(ours.netns, to) for to in addresses] + [(theirs.netns, to) for to in own]
            for number, (source, target) in enumerate(pairs, start=1):
                assert first_answer(source, target, number, 5.0) is not None, (source, target)
