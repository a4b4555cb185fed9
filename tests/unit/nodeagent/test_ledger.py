"""Stories of the ledger: which addresses it hands out, and when again."""

from dataclasses import replace

import pytest

from deltaplane.errors import Conflict, Exhausted
from deltaplane.model.addresses import Prefix, parse_address
from nodeagent import ledger as core
from nodeagent.restoring import rebuild
from tests.unit.nodeagent.ledgers import ONLY4, POOLS, A, B, Node, attachment, fixed


def test_never_used_addresses_go_first_and_then_the_lowest_revision() -> None:
    node = Node().add_blocks()
    node.see(5)
    for number in (1, 2, 3):
        node.begin(number)
    node.erase(2, revision=30)
    node.erase(1, revision=40)
    node.erase(3, revision=20)
    node.see(50)
    given = [node.begin(number).record.addresses.ipv4 for number in (4, 5, 6, 7)]
    assert [address[3] for address in given if address] == [3, 2, 1, 0]


def test_a_released_address_waits_for_the_watermark_of_its_lineage() -> None:
    node = Node().add_blocks()
    node.see(5)
    for number in range(1, 5):
        node.begin(number)
    node.erase(1, revision=30)

    node.see(29, head=90)
    with pytest.raises(Exhausted) as caught:
        node.begin(9)
    assert str(caught.value) == (
        "no IPv4 address is free: pool pods4: 1 blocks, 3 held, 0 reserved, 0 claimed by other "
        "nodes, 1 quarantined until every live node has acknowledged revision 30 (now at 29)"
    )
    # Another etcd: its revision 100 says nothing about our revision 30.
    node.see(100, head=120, lineage=B)
    with pytest.raises(Exhausted, match="revision 120"):
        node.begin(9)
    node.see(120, lineage=B)
    assert node.begin(9).record.addresses.ipv4 == parse_address("10.0.0.0")


@pytest.mark.parametrize(("strict", "past"), [(True, ()), (False, ("10.0.0.0", "fd00::"))])
def test_a_fenced_node_is_waited_for_only_if_that_is_asked_for(
    strict: bool, past: tuple[str, ...]
) -> None:
    node = Node(strict=strict).add_blocks()
    node.see(5)
    for number in range(1, 5):
        node.begin(number)
    node.erase(1, revision=30)
    node.see(40, strict=20)
    if strict:
        with pytest.raises(Exhausted, match="every registered node"):
            node.begin(9)
        node.see(40, strict=30)
    assert node.begin(9).past_fence == tuple(map(parse_address, past))


@pytest.mark.parametrize(
    ("lineage", "revision", "head", "stamped"),
    [
        # No stream yet: what the registry answered may be newer than what a slicer has scanned.
        (b"", 30, 25, 30),
        (b"", 30, 90, 90),
        # From an etcd that is gone.
        (b"", 9_000_000_000, 25, 25),
        # Below what all have passed before it was released: the registry has another etcd.
        (A, 3, 25, 25),
    ],
)
def test_revisions_of_no_known_lineage_get_one_at_the_next_barrier(
    lineage: bytes, revision: int, head: int, stamped: int
) -> None:
    node = Node().add_blocks()
    node.see(5)
    node.begin(1)
    node.erase(1, revision, lineage)
    node.see(5, head=head)
    assert {old.revision for b in node.ledger.blocks.values() for old in b.released} == {stamped}
    assert {old.lineage for b in node.ledger.blocks.values() for old in b.released} == {A}


def test_a_revision_of_no_known_lineage_frees_nothing() -> None:
    node = Node().add_blocks()
    node.see(5)
    for number in range(1, 5):
        node.begin(number)
    node.erase(1, revision=3)
    with pytest.raises(Exhausted, match="1 quarantined"):
        node.begin(9)
    node.see(5)
    node.begin(9)


def test_a_block_that_was_somebody_elses_waits() -> None:
    node = Node()
    node.see(5)
    prefix = Prefix.parse("10.0.0.0/30")
    node.take(core.add_block(node.ledger, 1, "pods4", prefix, usable_after=20, lineage=A))
    with pytest.raises(Exhausted, match=r"acknowledged revision 20 \(now at 5\)"):
        node.begin(1, ONLY4)
    node.see(20)
    node.begin(1, ONLY4)


def test_reserved_addresses_are_handed_out_only_by_number() -> None:
    node = Node().add_blocks()
    reserved = replace(
        POOLS[0], reserved=(Prefix.parse("10.0.0.0/31"), Prefix.parse("10.0.0.2/32"))
    )
    listed = [(reserved, 2), (POOLS[1], 1)]
    node.take(core.learn_pools(node.ledger, listed, lineage=A, revision=2))
    assert node.begin(1, ONLY4).record.addresses.ipv4 == parse_address("10.0.0.3")
    with pytest.raises(Exhausted, match="3 reserved"):
        node.begin(2, ONLY4)
    assert node.begin(2, fixed("10.0.0.1")).record.addresses.ipv4 == parse_address("10.0.0.1")
    with pytest.raises(Conflict, match=r"10.0.0.1 is held by shop/web"):
        node.begin(3, fixed("10.0.0.1"))
    with pytest.raises(Exhausted, match="in no block"):
        node.begin(3, fixed("10.0.9.1"))


def test_a_draining_pool_gives_nothing() -> None:
    node = Node().add_blocks()
    listed = [(replace(POOLS[0], draining=True), 2), (POOLS[1], 1)]
    node.take(core.learn_pools(node.ledger, listed, lineage=A, revision=2))
    for requests in (ONLY4, fixed("10.0.0.1")):
        with pytest.raises(Exhausted, match="draining"):
            node.begin(1, requests)
    # An older list does not undo it.
    node.take(core.learn_pools(node.ledger, [(POOLS[0], 1)], lineage=A, revision=1))
    assert node.ledger.pools["pods4"].value.draining
    assert "pods6" not in node.ledger.pools


def test_a_list_removes_no_pool_that_is_newer() -> None:
    node = Node()
    node.take(core.learn_pools(node.ledger, [(POOLS[0], 7)], lineage=A, revision=9))
    node.take(core.learn_pools(node.ledger, [], lineage=A, revision=6))
    assert set(node.ledger.pools) == {"pods4"}
    node.take(core.learn_pools(node.ledger, [], lineage=B, revision=6))
    assert not node.ledger.pools


def test_an_address_that_another_node_claims_is_quarantined_when_it_comes_back() -> None:
    node = Node().add_blocks()
    node.see(5, foreign=("10.0.0.0",))
    assert node.begin(1, ONLY4).record.addresses.ipv4 == parse_address("10.0.0.1")
    with pytest.raises(Conflict, match="another node"):
        node.begin(2, fixed("10.0.0.0"))
    node.see(6, head=30)
    with pytest.raises(Exhausted, match="until every live node has acknowledged revision 30"):
        node.begin(2, fixed("10.0.0.0"))
    node.see(30)
    node.begin(2, fixed("10.0.0.0"))


def test_a_fixed_address_of_ours_is_not_had_from_the_block_around_it() -> None:
    node = Node()
    one = Prefix.parse("10.0.0.0/32")
    node.take(core.add_block(node.ledger, 1, "pods4", one, fixed=True, usable_after=3, lineage=A))
    with pytest.raises(Exhausted, match="revision 3"):
        node.begin(1, fixed("10.0.0.0"))
    node.see(3)
    node.take(core.add_block(node.ledger, 2, "pods4", Prefix.parse("10.0.0.0/30")))
    other = replace(POOLS[0], reserved=(Prefix.parse("10.0.0.3/32"),))
    node.take(core.learn_pools(node.ledger, [(other, 2)], lineage=A, revision=0))
    assert node.begin(1, fixed("10.0.0.0")).record.addresses.ipv4 == one.address
    assert node.begin(2, ONLY4).record.addresses.ipv4 == parse_address("10.0.0.1")
    node.erase(1, revision=8)
    with pytest.raises(Conflict, match="in use"):
        core.release_block(node.ledger, 1)
    node.see(8)
    node.take(core.release_block(node.ledger, 1))
    with pytest.raises(Exhausted, match="given back"):
        node.begin(3, fixed("10.0.0.0"))
    node.take(core.drop_block(node.ledger, 1))
    node.begin(3, fixed("10.0.0.0"))


def test_a_lost_block_leaves_its_interfaces_until_they_are_erased() -> None:
    node = Node().add_blocks()
    node.begin(1)
    node.take(core.commit(node.ledger, 1))
    node.take(core.drop_block(node.ledger, 1))
    assert core.strays(node.ledger) == (1,)
    node.take(core.lose(node.ledger, 1))
    assert node.ledger.find(attachment(1)) is not None
    # The same block again: the address is still on an interface.
    node.take(core.add_block(node.ledger, 3, "pods4", Prefix.parse("10.0.0.0/30")))
    assert node.begin(2, ONLY4).record.addresses.ipv4 == parse_address("10.0.0.1")
    node.erase(1, revision=9)


def test_the_same_block_again_changes_only_the_counter() -> None:
    node = Node().add_blocks()
    node.begin(1)
    node.take(core.add_block(node.ledger, 5, "pods4", Prefix.parse("10.0.0.0/30")))
    assert node.ledger.last_ordinal == 5
    assert len(node.ledger.blocks) == 2


def test_a_rebuilt_ledger_quarantines_what_it_does_not_know() -> None:
    node = Node().add_blocks()
    node.begin(4)
    records = list(node.ledger.interfaces.values())
    bare = [replace(block, held=0, rested=0, released=()) for block in node.ledger.blocks.values()]
    again = Node()
    again.take(rebuild(again.ledger, records, bare, numbers=9, ordinals=9, revision=70, now=0))
    listed = [(pool, 1) for pool in POOLS]
    again.take(core.learn_pools(again.ledger, listed, lineage=A, revision=1))
    again.see(69, head=69)
    with pytest.raises(Exhausted, match="3 quarantined"):
        again.begin(5)
    again.see(70)
    assert again.begin(5).record.number == 10
