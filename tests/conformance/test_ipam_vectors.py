"""Vectors of other address managers, where they ask what ours answers.

docs/reference/ipam-vectors.md says which apply and why others do not.
"""

import itertools
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from deltaplane.errors import Conflict, Exhausted, Invalid
from deltaplane.model.addresses import AddressPair, Prefix, format_address, parse_address
from deltaplane.model.objects import PoolObject
from deltaplane.store import keys
from deltaplane.store.memory import MemoryStore
from deltaplane.store.port import Put
from deltaplane.v1 import registry_pb2
from nodeagent import ledger as core
from nodeagent.cni.netconf import Attachment, PodName
from nodeagent.demand import target
from nodeagent.entries import Ledger
from nodeagent.pools import Pool as KnownPool
from nodeagent.pools import Request
from services.ipam.pools import Pool
from services.ipam.repository import Repository
from services.ipam.wire import AddressClaim, Claim

FOLDER = Path(__file__).resolve().parents[3] / "shared/oracles/ipam"
POD = PodName(namespace="shop", name="web", uid="u")


@cache
def vectors(name: str) -> Any:
    path = FOLDER / f"{name}_vectors.json"
    if not path.exists():
        pytest.skip(f"the vectors are not at {path}")
    return json.loads(path.read_text())


# --- Azure CNS: how many addresses a node asks for -----------------------------------------------

BATCH = 16
"""A /28 block."""


def asked_for(used: int) -> int:
    pool = PoolObject(
        name="p", prefix=Prefix.parse("10.0.0.0/16"), block_length=28, min_free_percent=50
    )
    return BATCH * target(KnownPool(pool, 1), used)


@pytest.mark.parametrize(
    "name", ["base case", "1/2 demand", "1x demand", "2x demand", "3x demand", "or max: base"]
)
def test_azure_target(name: str) -> None:
    case = next(it for it in vectors("acn_pool")["target_ip_count"]["cases"] if it["name"] == name)
    assert (case["batch"], case["buffer"]) == (BATCH, 0.5)
    assert asked_for(case["demand"]) == case["want"]


@pytest.mark.parametrize(
    "name",
    [
        "no delta",
        "single scale up",
        "big scale up",
        "single scale down",
        "big scale down",
        "capped scale down",
        "scale up unskew",
        "scale down unskew",
    ],
)
def test_azure_reconcile(name: str) -> None:
    case = next(it for it in vectors("acn_pool")["reconcile_v2"]["cases"] if it["name"] == name)
    assert asked_for(case["demand"]) == case["want_requested"]


# --- host-local: sets of addresses ---------------------------------------------------------------


def node(subnets: list[str]) -> tuple[Ledger, dict[bytes, None] | None]:
    """A node that owns each subnet as a block; host-local's three addresses are reserved.

    And the addresses that it may hand out; None: too many to list.
    """
    ledger = Ledger()
    pools, usable = {}, {}
    countable = True
    for number, text in enumerate(subnets):
        address, _, length = text.partition("/")
        prefix = Prefix(parse_address(address), int(length))
        bits = len(prefix.address) * 8
        withheld = [prefix.nth(0), prefix.nth(1)]
        if prefix.is_ipv4:
            withheld.append(prefix.nth(prefix.size - 1))
        pool = PoolObject(
            name=f"p{number}",
            prefix=prefix,
            block_length=prefix.length,
            reserved=tuple(Prefix(it, bits) for it in sorted(withheld)),
        )
        pools[pool.name] = (pool, number + 1)
        countable &= prefix.size <= 256
        if countable:
            every = (prefix.nth(offset) for offset in range(prefix.size))
            usable.update(dict.fromkeys(it for it in every if it not in withheld))
    ledger = core.learn_pools(ledger, pools.values(), lineage=b"", revision=9).ledger
    for number, (pool, _) in enumerate(pools.values()):
        ledger = core.add_block(ledger, number + 1, pool.name, pool.prefix).ledger
    return ledger, usable if countable else None


def allocate(ledger: Ledger, handle: str, address: bytes | None = None) -> tuple[Ledger, bytes]:
    family = 4 if next(iter(ledger.blocks.values())).prefix.is_ipv4 else 6
    wish = Request(family=family, pools=tuple(sorted(ledger.pools)), address=address)
    if address is not None:
        wish = Request(family=family, address=address)
    at = Attachment(network="net", container_id=handle, ifname="eth0")
    begun = core.begin(ledger, at, attempt=handle, pod=POD, requests=(wish,))
    got = begun.record.addresses.ipv4 or begun.record.addresses.ipv6
    assert got is not None
    return begun.step.ledger, got


def release(ledger: Ledger, handle: str) -> Ledger:
    record = ledger.find(Attachment(network="net", container_id=handle, ifname="eth0"))
    if record is None:
        return ledger
    ledger = core.retire(ledger, record.number).ledger
    return core.erase(ledger, record.number, revision=5, lineage=b"L", now=0.0).ledger


def test_host_local_allocates_what_is_free() -> None:
    for case in vectors("host_local")["allocate"]:
        if any(it.endswith("/64") for it in case["subnets"]):
            continue  # larger than a block can be
        ledger, usable = node(case["subnets"])
        taken = [parse_address(it) for it in case["in_use"]]
        for number, address in enumerate(taken):
            ledger, _ = allocate(ledger, f"old-{number}", address)
        if usable is not None and not set(usable) - set(taken):
            with pytest.raises(Exhausted):
                allocate(ledger, "new")
            assert case["want"].startswith(("ERROR", "10.0.0.3")), case
            continue
        _, got = allocate(ledger, "new")
        assert got not in taken
        assert usable is None or got in usable
        assert not case["want"].startswith("ERROR"), case


def test_host_local_sequences() -> None:
    for case in vectors("host_local")["sequences"]:
        ledger, _ = node([case["subnet"]])
        seen: list[bytes] = []
        for kind, handle, *rest in case["ops"]:
            if kind == "release":
                ledger = release(ledger, handle)
                continue
            address = parse_address(rest[0]) if kind == "alloc_ip" else None
            try:
                ledger, got = allocate(ledger, handle, address)
            except (Conflict, Exhausted):
                assert rest[-1].startswith("ERROR"), (case, handle)
            else:
                assert not rest[-1].startswith("ERROR"), (case, handle)
                assert got not in seen, "no immediate reuse"
                seen.append(got)


def test_host_local_and_whereabouts_sizes() -> None:
    found = vectors("whereabouts")
    for text in found["no_usable_ips"]:
        with pytest.raises(Invalid):
            small_pool(text)
    for text in found["usable"]:
        assert small_pool(text).blocks == 1
    with pytest.raises(Invalid):
        small_pool("/31")


def small_pool(length: str) -> Pool:
    base = "192.0.2.0" if int(length[1:]) <= 32 else "fd00::"
    return Pool.of("p", Prefix.parse(base + length), int(length[1:]))


def test_host_local_overlap() -> None:
    plain = [
        it for it in vectors("host_local")["overlap"] if not {"start", "end"} & {*it[0], *it[1]}
    ]
    assert len(plain) == 4
    for one, other, overlaps in plain:
        first, second = (prefix_of(it["subnet"]) for it in (one, other))
        assert first.overlaps(second) == overlaps


def prefix_of(text: str) -> Prefix:
    address, _, length = text.partition("/")
    return Prefix(parse_address(address), int(length))


# --- Calico: blocks and addresses of nodes -------------------------------------------------------


async def ipam(*pools: Pool) -> Repository:
    store = MemoryStore()
    repository = Repository(store)
    for pool in pools:
        await repository.create_pool(pool)
    for index, name in enumerate(("host-a", "host-b"), 1):
        record = registry_pb2.Node(name=name, uid=f"uid-{name}", index=index)
        await store.transact([], [Put(keys.node(name), record.SerializeToString())])
    return repository


async def test_calico_claim_affinity() -> None:
    repositories: dict[str, Repository] = {}
    for case in vectors("calico")["claim_affinity"]:
        try:
            pool = Pool.of("p", Prefix.parse(case["net"]), 26)
        except Invalid:
            assert case["error"] == "smaller than a block"
            continue
        repository = repositories.get(case["net"]) or await ipam(pool)
        repositories[case["net"]] = repository
        claimed = 0
        for number in itertools.count():
            claim = Claim(
                pool="p",
                node=case["host"],
                node_uid=f"uid-{case['host']}",
                request_id=f"{number}",
            )
            try:
                await repository.claim_block(claim)
            except Exhausted:
                break
            claimed += 1
        assert claimed == case["claimed"], case


async def test_calico_assign_ip() -> None:
    repository = await ipam(
        Pool.of("v4", Prefix.parse("192.168.1.0/24"), 26),
        Pool.of("v6", Prefix.parse("fd80:24e2:f998:72d6::/64"), 122),
    )
    for number, case in enumerate(vectors("calico")["assign_ip"]):
        name = "host-b" if case.get("again") else "host-a"
        claim = AddressClaim(
            address=parse_address(case["ip"]),
            node=name,
            node_uid=f"uid-{name}",
            request_id=f"{number}",
        )
        expected = {None: None, "not in a pool": Invalid, "already exists": Conflict}
        wanted = expected[case["error"]]
        if wanted is None:
            block = await repository.claim_address(claim)
            assert format_address(block.prefix.address) == case["ip"]
        else:
            with pytest.raises(wanted):
                await repository.claim_address(claim)


def test_our_own_cases_where_the_vectors_are_absent() -> None:
    assert [asked_for(used) for used in (0, 8, 9, 16, 32)] == [16, 16, 32, 32, 48]
    ledger, usable = node(["10.0.0.0/29"])
    assert usable is not None
    assert len(usable) == 5
    for number in range(5):
        ledger, _ = allocate(ledger, f"{number}")
    with pytest.raises(Exhausted):
        allocate(ledger, "more")
    assert AddressPair(ipv4=next(iter(usable))).ipv4 == parse_address("10.0.0.2")
