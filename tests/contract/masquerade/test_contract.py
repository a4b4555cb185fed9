"""What every masquerading does: the fake in memory and the kernel's."""

import os
import subprocess
from collections.abc import Iterator
from typing import Protocol

import pytest

from deltaplane.model.addresses import AddressPair, Prefix, parse_address
from nodeagent.masquerade import Masquerade, Member, Role
from nodeagent.netlink import namespace
from nodeagent.nftables import kernel, library
from nodeagent.nftables.fake import FakeMasquerade
from nodeagent.nftables.kernel import KernelMasquerade
from nodeagent.nftables.ruleset import Rules

OWN = AddressPair(ipv4=parse_address("192.0.2.1"), ipv6=parse_address("2001:db8::1"))
SPARED = (Prefix.parse("10.0.0.0/8"), Prefix.parse("10.1.0.0/16"), Prefix.parse("fd00::/8"))


def pool(text: str) -> Member:
    return Member(Role.POOL, Prefix.parse(text))


def node(text: str) -> Member:
    address = parse_address(text)
    return Member(Role.NODE, Prefix(address, len(address) * 8))


POOLS = [pool("10.244.0.0/16"), pool("fd00:10:244::/64")]
NODES = [node("192.0.2.1"), node("192.0.2.2"), node("2001:db8::2")]


class Plane(Masquerade, Protocol):
    def close(self) -> None: ...


class Host:
    """Where masqueradings come and go; `restart` gives one that takes over what the last left."""

    def restart(self) -> Plane:
        raise NotImplementedError


class FakeHost(Host):
    def __init__(self) -> None:
        self._only = FakeMasquerade()

    def restart(self) -> Plane:
        return self._only


class KernelHost(Host):
    def __init__(self) -> None:
        self._made: KernelMasquerade | None = None

    def restart(self) -> Plane:
        if self._made is not None:
            self._made.close()
        self._made = KernelMasquerade(Rules(uplink="uplink", own=OWN, spared=SPARED))
        self._made.adopt()
        return self._made


@pytest.fixture(params=["fake", "kernel"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    if request.param == "fake":
        yield FakeHost()
        return
    if os.geteuid() != 0 or not library.is_installed():
        pytest.skip("needs root and libnftables1")
    home = namespace.own()
    namespace.leave()
    try:
        yield KernelHost()
    finally:
        kernel.remove()
        namespace.enter(home)
        os.close(home)


def test_a_new_one_knows_nothing(host: Host) -> None:
    assert host.restart().dump() == frozenset()


def test_what_is_added_is_there_until_it_is_deleted(host: Host) -> None:
    plane = host.restart()
    plane.add([*POOLS, *NODES])
    plane.add(NODES[:1])
    assert plane.dump() == {*POOLS, *NODES}
    plane.delete([NODES[0], POOLS[1], node("192.0.2.99")])
    assert plane.dump() == {POOLS[0], *NODES[1:]}
    plane.delete([POOLS[0], *NODES])
    assert plane.dump() == frozenset()


def test_it_outlives_its_agent(host: Host) -> None:
    host.restart().add([*POOLS, *NODES])
    plane = host.restart()
    assert plane.dump() == {*POOLS, *NODES}
    plane.delete(NODES)
    assert host.restart().dump() == set(POOLS)


def test_a_pool_grows(host: Host) -> None:
    plane = host.restart()
    plane.add([pool("10.244.0.0/17"), pool("10.245.0.0/16")])
    plane.add([pool("10.244.0.0/16")])
    plane.delete([pool("10.244.0.0/17")])
    assert plane.dump() == {pool("10.244.0.0/16"), pool("10.245.0.0/16")}


# Of the kernel's alone


@pytest.fixture
def alone() -> Iterator[KernelHost]:
    if os.geteuid() != 0 or not library.is_installed():
        pytest.skip("needs root and libnftables1")
    home = namespace.own()
    namespace.leave()
    try:
        yield KernelHost()
    finally:
        namespace.enter(home)
        os.close(home)


def nft(*arguments: str) -> str:
    command = ("nft", *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout


def test_somebody_flushes_the_ruleset(alone: KernelHost) -> None:
    plane = alone.restart()
    plane.add([*POOLS, *NODES[:2]])
    nft("flush", "ruleset")
    plane.add(NODES[2:])
    assert alone.restart().dump() == {*POOLS, *NODES}


def test_it_touches_its_own_table_only_and_leaves_nothing(alone: KernelHost) -> None:
    nft("add", "table", "inet", "others")
    before = nft("list", "ruleset")
    assert kernel.remove() is False
    alone.restart().add(POOLS)
    assert "table inet deltaplane" in nft("list", "ruleset")
    assert kernel.remove() is True
    assert nft("list", "ruleset") == before


def test_the_configuration_of_the_newest_agent_counts(alone: KernelHost) -> None:
    alone.restart().add(POOLS)
    assert "10.0.0.0/8" in nft("list", "set", "inet", "deltaplane", "spared4")
    newer = KernelMasquerade(Rules(uplink="other", own=OWN))
    newer.adopt()
    table = nft("list", "table", "inet", "deltaplane")
    assert ("10.0.0.0/8" in table, 'oifname "other"' in table) == (False, True)
    assert newer.dump() == set(POOLS)
    newer.close()


def test_what_the_kernel_refuses_changes_nothing(alone: KernelHost) -> None:
    plane = alone.restart()
    plane.add(POOLS)
    bad = Member(Role.NODE, Prefix.parse("192.0.2.0/24"))
    with pytest.raises(OSError, match=r"nftables: .*interval"):
        plane.add([node("192.0.2.7"), pool("10.9.0.0/16"), bad])
    assert plane.dump() == set(POOLS)
