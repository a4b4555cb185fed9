"""The IPAM-only mode in the ledger: whole blocks for a network, with a gateway that stays."""

import sqlite3

import pytest

from deltaplane.errors import Conflict, Exhausted
from deltaplane.model.addresses import Prefix, parse_address
from deltaplane.model.objects import PoolObject
from nodeagent import ledger as core
from nodeagent import schema
from nodeagent.addressing import Progress
from nodeagent.cni.netconf import Attachment, PodName
from nodeagent.delegated import NOBODY
from nodeagent.entries import InterfaceRecord, Kind, Ledger, Step
from nodeagent.pools import Request
from nodeagent.restoring import check

POOL = PoolObject(name="pods", prefix=Prefix.parse("10.0.0.0/24"), block_length=29)
POD = PodName(namespace="shop", name="cart", uid="1")


class File:
    """A ledger and the file that makes it durable, as the journal keeps them."""

    def __init__(self, *blocks: str) -> None:
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        schema.migrate(self.database)
        self.ledger: Ledger = schema.read(self.database)
        self.take(core.learn_pools(self.ledger, [(POOL, 1)], lineage=b"l", revision=1))
        for number, block in enumerate(blocks, start=1):
            self.take(core.add_block(self.ledger, number, "pods", Prefix.parse(block)))
        self.progress = Progress(lineage=b"l", head=9, watermark=5, strict=5)
        self.take(core.observe(self.ledger, self.progress, frozenset(), 0.0))

    def take(self, step: Step) -> None:
        for change in step.writes:
            schema.write(self.database.execute, change)
        self.ledger = step.ledger
        check(self.ledger)

    def restart(self) -> None:
        before = self.ledger
        after = schema.read(self.database)
        self.ledger = after
        self.take(core.observe(after, self.progress, frozenset(), 0.0))
        assert self.ledger.blocks == before.blocks
        assert self.ledger.interfaces == before.interfaces

    def add(self, name: str, network: str = "", pod: PodName = NOBODY) -> InterfaceRecord:
        begun = core.begin(
            self.ledger,
            Attachment(network=network or "main", container_id=name, ifname="eth0"),
            attempt=name,
            pod=pod,
            requests=[Request(family=4, pools=("pods",), network=network)],
        )
        self.take(begun.step)
        return begun.record

    def remove(self, record: InterfaceRecord, revision: int = 0) -> None:
        self.take(core.retire(self.ledger, record.number))
        self.take(core.erase(self.ledger, record.number, revision=revision, lineage=b"l", now=0.0))


def text(record: InterfaceRecord) -> str:
    return str(record.addresses)


def test_a_block_is_a_networks_or_our_pods_never_both() -> None:
    file = File("10.0.0.0/29", "10.0.0.8/29")
    assert text(file.add("own")) == "10.0.0.0"
    # Not the block of our own pod; neither its first address nor the gateway's.
    assert text(file.add("a", "lan")) == "10.0.0.10"
    with pytest.raises(Exhausted):
        file.add("b", "other")
    for number in range(7):
        assert text(file.add(f"own-{number}")).startswith("10.0.0.")
    with pytest.raises(Exhausted):
        file.add("one too many")
    # Everything but the edges and the gateway.
    assert [text(file.add(f"lan-{n}", "lan")) for n in range(4)] == [
        f"10.0.0.{n}" for n in (11, 12, 13, 14)
    ]
    with pytest.raises(Exhausted):
        file.add("full", "lan")
    file.restart()


def test_a_network_fills_its_block_before_it_takes_another() -> None:
    file = File("10.0.0.0/29", "10.0.0.8/29")
    held = [file.add(f"{n}", "lan") for n in range(5)]
    file.remove(held[2])
    file.remove(held[0])
    # Free at once: nobody else knew of them.
    assert text(file.add("again", "lan")) in {"10.0.0.2", "10.0.0.4"}
    assert not file.ledger.blocks[2].held
    file.add("next", "lan")
    assert text(file.add("more", "lan")) == "10.0.0.10"
    file.restart()


def test_what_a_pod_is_named_for_waits_as_any_address_does() -> None:
    file = File("10.0.0.0/29")
    records = [file.add(f"{n}", "lan", POD) for n in range(5)]
    assert all(record.is_registered for record in records)
    file.remove(records[0], revision=7)
    with pytest.raises(Exhausted, match="until every live node has acknowledged revision 7"):
        file.add("again", "lan", POD)


def test_the_gateway_stays_with_the_block_and_goes_with_it() -> None:
    file = File("10.0.0.0/29")
    record = file.add("a", "lan")
    file.remove(record)
    file.restart()
    assert [held.kind for held in file.ledger.interfaces.values()] == [Kind.GATEWAY]
    assert not file.ledger.blocks[1].is_idle(file.progress)
    with pytest.raises(Exhausted):
        file.add("own")
    file.take(core.drop_block(file.ledger, 1))
    assert not file.ledger.interfaces
    file.restart()


def test_an_address_by_number_is_had_only_from_the_right_block() -> None:
    file = File("10.0.0.0/29")

    def ask(address: str, network: str) -> str:
        request = Request(family=4, address=parse_address(address), network=network)
        at = Attachment(network=network or "main", container_id=address, ifname="eth0")
        begun = core.begin(file.ledger, at, attempt=address, pod=POD, requests=[request])
        file.take(begun.step)
        return text(begun.record)

    with pytest.raises(Conflict):
        ask("10.0.0.1", "lan")
    assert ask("10.0.0.5", "lan") == "10.0.0.5"
    for address, network in (("10.0.0.6", ""), ("10.0.0.6", "other"), ("10.0.0.7", "lan")):
        with pytest.raises(Conflict, match=r"block 10\.0\.0\.0/29"):
            ask(address, network)
