import pytest

from bench.datapath import world
from nodeagent.dataplane.port import PolicySet, Verdict
from nodeagent.verdict import verdict


def test_addresses_and_identities_of_a_node_are_distinct() -> None:
    mappings = list(world.mappings())
    assert len({m.address for m in mappings}) == len(mappings) == 2 * 200 * 51
    assert len({world.identity(7, ordinal) for ordinal in range(50)}) == 50


def test_a_pod_lies_in_a_block_of_its_node() -> None:
    for node in (1, 2, world.NODES):
        for block, address in zip(world.blocks(node), world.pod(node, 49), strict=True):
            assert block.contains(address)


@pytest.mark.parametrize("entries", [1, 100, 10_000])
def test_a_set_has_exactly_so_many_entries(entries: int) -> None:
    made = world.policy_set(1, world.identity(2), entries)
    keys = {(e.peer, e.protocol, e.port) for e in made.entries}
    assert len(keys) == len(made.entries) == entries
    assert len({(p.address, p.length) for p in made.prefixes}) == len(made.prefixes)
    assert len(made.prefixes) == (entries - 1) // world.CLASS_EVERY


@pytest.mark.parametrize("entries", [1, 100, 10_000])
def test_a_set_lets_the_peer_pass_and_not_everybody(entries: int) -> None:
    made = world.policy_set(1, world.identity(2), entries)
    assert _allows(made, world.identity(2))
    assert not _allows(made, world.identity(2, 7))


def _allows(made: PolicySet, peer: int) -> bool:
    (address, _) = world.pod(2)
    return verdict(made, peer, address, world.TCP, 7000) is Verdict.ALLOW
