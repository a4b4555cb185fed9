"""An address that is claimed alone although this node owns the block around it."""

from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.model.objects import PoolObject
from nodeagent import ledger as core
from nodeagent.cni.netconf import Attachment, PodName
from nodeagent.entries import Ledger
from nodeagent.pools import Pool, Request
from nodeagent.restoring import check

POD = PodName(namespace="shop", name="web", uid="u")
AT = Attachment(network="net", container_id="c", ifname="eth0")
ADDRESS = parse_address("10.0.0.1")
ALONE, AROUND = Prefix(ADDRESS, 32), Prefix.parse("10.0.0.0/30")


def owner() -> Ledger:
    pool = PoolObject(name="v4", prefix=Prefix.parse("10.0.0.0/24"), block_length=30)
    ledger = Ledger(pools={"v4": Pool(pool, 1, b"")})
    return core.add_block(ledger, 1, "v4", AROUND).ledger


def test_a_held_address_moves_into_its_own_block() -> None:
    wish = (Request(family=4, address=ADDRESS),)
    begun = core.begin(owner(), AT, attempt="a", pod=POD, requests=wish)
    ledger = core.add_block(begun.step.ledger, 2, "v4", ALONE, fixed=True).ledger
    check(ledger)
    assert (ledger.blocks[1].held, ledger.blocks[2].held) == (0, 1)
    ledger = core.retire(ledger, begun.record.number).ledger
    ledger = core.erase(ledger, begun.record.number, revision=5, lineage=b"", now=0.0).ledger
    check(ledger)
    assert not any(block.held for block in ledger.blocks.values())


def test_nobody_else_gets_it_unasked() -> None:
    ledger = core.add_block(owner(), 2, "v4", ALONE, fixed=True).ledger
    for number in range(3):
        at = Attachment(network="net", container_id=f"c{number}", ifname="eth0")
        any_address = (Request(family=4, pools=("v4",)),)
        begun = core.begin(ledger, at, attempt=f"{number}", pod=POD, requests=any_address)
        assert begun.record.addresses.ipv4 != ADDRESS
        ledger = begun.step.ledger
