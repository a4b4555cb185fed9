"""`python -m bench datapath` on real nodes: what it measures goes through the programs."""

from pathlib import Path

import pytest

from bench.datapath.comparing import PLAIN
from bench.datapath.generator import Load, build
from bench.datapath.measuring import FAMILIES, Plan, measure
from bench.datapath.network import NODES, judged
from lab import netns
from nodeagent.dataplane import bpffs
from nodeagent.dataplane.config import DataPlaneConfig
from nodeagent.dataplane.kernel import KernelDataPlane

BURST = 64
"""Of load.c."""


def outcomes(pins: Path) -> dict[str, int]:
    plane = KernelDataPlane(pins, config=DataPlaneConfig())
    try:
        return {count.outcome: count.packets for count in plane.counters() if count.packets}
    finally:
        plane.close()


@pytest.mark.serial
def test_every_load_comes_to_figures_and_leaves_nothing() -> None:
    before = netns.names(), Path("/proc/self/mountinfo").read_text()
    plan = Plan(name="dpbtest", rounds=2, seconds=0.1, entries=[10])

    found = measure(plan, progress=lambda _: None)

    assert {(turns.load, turns.family) for turns in found} == {
        (load, family) for load in Load for family in FAMILIES
    }
    for turns in found:
        assert [set(round_) for round_ in turns.rounds] == [{PLAIN, 10}] * 2
        samples = [sample for round_ in turns.rounds for sample in round_.values()]
        assert sum(sample.failures for sample in samples) == 0
        # Others use the processors, too: one turn may come to nothing.
        assert sum(sample.count for sample in samples) > 0
    assert (netns.names(), Path("/proc/self/mountinfo").read_text()) == before


def test_packets_of_the_judged_nodes_pass_the_programs(tmp_path: Path) -> None:
    generator = build(tmp_path)
    mount = tmp_path / "bpffs"
    mount.mkdir()
    bpffs.ensure(mount)
    try:
        with judged("dpbtest", mount, entries=100) as network:
            samples = [generator.run(network, Load.UDP, family, 0.1) for family in FAMILIES]
            seen = [outcomes(mount / network.node(node)) for node in NODES]
    finally:
        bpffs.release(mount)

    assert [sample.failures for sample in samples] == [0, 0]
    # Bursts go both ways in turn; nothing is counted before the load is warm.
    one_way = sum(sample.count // 2 for sample in samples) * BURST
    for counts in seen:
        assert counts["pass_remote"] >= one_way
        assert counts["pass_local"] >= one_way
        # Multicast is what a pod's kernel says by itself, to routers and listeners.
        dropped = {outcome for outcome in counts if outcome.startswith("drop_")}
        assert dropped <= {"drop_link_scope"}
        assert counts.get("drop_link_scope", 0) < BURST
