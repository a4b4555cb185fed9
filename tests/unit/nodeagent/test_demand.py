"""How many blocks: the formula, and that doing what it says leaves nothing to do."""

import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.model.addresses import Prefix
from deltaplane.model.objects import PoolObject
from nodeagent import ledger as core
from nodeagent.addressing import Progress
from nodeagent.cni.netconf import Attachment, PodName
from nodeagent.demand import FIXED_SECONDS, Demand, demand, target
from nodeagent.entries import Ledger
from nodeagent.pools import Pool, Request

LINEAGE = b"L" * 16
POOL = PoolObject(name="pods", prefix=Prefix.parse("10.0.0.0/16"), block_length=28)
POD = PodName(namespace="shop", name="web", uid="u")


def with_pools(*pools: PoolObject) -> Ledger:
    listed = [(pool, 1) for pool in pools]
    known = core.learn_pools(Ledger(), listed, lineage=LINEAGE, revision=1).ledger
    return at(known, 1)


def at(ledger: Ledger, watermark: int) -> Ledger:
    progress = Progress(lineage=LINEAGE, head=watermark, watermark=watermark, strict=watermark)
    return core.observe(ledger, progress, frozenset(), 0).ledger


def claim(ledger: Ledger, pool: str = "pods", *, fixed: bool = False) -> Ledger:
    ordinal = ledger.last_ordinal + 1
    prefix = Prefix(POOL.prefix.nth(16 * ordinal), 32 if fixed else 28)
    return core.add_block(ledger, ordinal, pool, prefix, fixed=fixed).ledger


def add(ledger: Ledger, number: int, request: Request | None = None) -> Ledger:
    return core.begin(
        ledger,
        Attachment(network="net", container_id=f"c{number}", ifname="eth0"),
        attempt=str(number),
        pod=POD,
        requests=[request or Request(family=4, pools=("pods",))],
    ).step.ledger


def delete(ledger: Ledger, number: int, revision: int) -> Ledger:
    retired = core.retire(ledger, number).ledger
    return core.erase(retired, number, revision=revision, lineage=LINEAGE, now=0).ledger


@given(st.integers(1, 100), st.integers(0, 5000), st.integers(20, 30))
def test_the_target_is_the_formula(percent: int, used: int, length: int) -> None:
    pool = Pool(replace(POOL, block_length=length, min_free_percent=percent), 1)
    exact = math.ceil(Fraction(percent, 100) + Fraction(used, 2 ** (32 - length)))
    assert target(pool, used) == exact


def test_an_unused_node_has_one_block_of_every_pool_that_takes_part() -> None:
    ledger = with_pools(
        POOL,
        replace(POOL, name="more"),
        replace(POOL, name="asked", on_request=True),
        replace(POOL, name="dry", draining=True),
        replace(POOL, name="static", is_static=True),
    )
    assert demand(ledger, (), 0).claims == ("more", "pods", "static")
    assert demand(ledger, ("asked", "dry"), 0).claims == ("asked",)


def test_the_next_block_is_claimed_when_half_of_one_is_not_free() -> None:
    ledger = claim(with_pools(POOL))
    for number in range(1, 9):
        ledger = add(ledger, number)
    assert demand(ledger, (), 0) == Demand()
    assert demand(add(ledger, 9), (), 0) == Demand(claims=("pods",))


def test_a_block_is_given_back_when_it_neither_holds_nor_waits() -> None:
    ledger = claim(claim(with_pools(POOL)))
    assert demand(ledger, (), 0) == Demand(releases=(2,))
    ledger = delete(add(ledger, 1), 1, revision=30)
    # The first has an address that waits; the other is given back, and the first stays.
    assert demand(ledger, (), 0) == Demand(releases=(2,))
    after = core.drop_block(core.release_block(ledger, 2).ledger, 2).ledger
    assert demand(after, (), 0) == Demand()


def test_quarantined_addresses_are_in_use() -> None:
    ledger = claim(claim(with_pools(POOL)))
    for number in range(1, 10):
        ledger = add(ledger, number)
    for number in range(1, 10):
        ledger = delete(ledger, number, revision=30)
    assert demand(ledger, (), 0) == Demand()
    # All 32 are free now; the block that holds more of what was never used stays.
    assert demand(at(ledger, 30), (), 0) == Demand(releases=(2,))


def test_a_pool_of_others_has_blocks_only_while_they_are_used() -> None:
    asked = replace(POOL, on_request=True)
    ledger = add(claim(with_pools(asked)), 1)
    assert demand(ledger, (), 0) == Demand()
    ledger = delete(ledger, 1, revision=30)
    assert demand(ledger, (), 0) == Demand()
    assert demand(at(ledger, 30), (), 0) == Demand(releases=(1,))


def test_a_draining_pool_gives_empty_blocks_back_and_a_static_one_keeps_its_own() -> None:
    ledger = claim(claim(add(claim(with_pools(POOL)), 1)))
    listed = [(replace(POOL, draining=True), 2)]
    drained = core.learn_pools(ledger, listed, lineage=LINEAGE, revision=2).ledger
    assert demand(drained, (), 0) == Demand(releases=(3, 2))
    static = claim(with_pools(replace(POOL, is_static=True)))
    assert demand(static, ("other",), 0) == Demand()


def test_a_fixed_address_is_kept_for_a_while_and_then_given_back() -> None:
    ledger = claim(claim(with_pools(POOL)), fixed=True)
    assert demand(ledger, (), FIXED_SECONDS - 1) == Demand()
    assert demand(ledger, (), FIXED_SECONDS) == Demand(releases=(2,))
    held = add(ledger, 1, Request(family=4, address=POOL.prefix.nth(32)))
    assert demand(held, (), FIXED_SECONDS) == Demand()
    gone = delete(held, 1, revision=30)
    assert demand(gone, (), 0) == Demand()
    assert demand(at(gone, 30), (), 0) == Demand(releases=(2,))


@pytest.mark.parametrize("seed", range(5))
def test_doing_what_it_says_leaves_nothing_to_do(seed: int) -> None:
    ledger = with_pools(replace(POOL, min_free_percent=20 * seed + 5))
    for number in range(1, 60):
        for pool in demand(ledger, (), 0).claims:
            ledger = claim(ledger, pool)
        ledger = add(ledger, number)
    for number in range(1, 60, 2):
        ledger = delete(ledger, number, revision=number)
    ledger = at(ledger, 20 + seed)
    found = demand(ledger, (), 0)
    for pool in found.claims:
        ledger = claim(ledger, pool)
    for ordinal in found.releases:
        ledger = core.drop_block(core.release_block(ledger, ordinal).ledger, ordinal).ledger
    assert demand(ledger, (), 0) == Demand()
