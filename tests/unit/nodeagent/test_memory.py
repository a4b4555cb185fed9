"""What stands for a node's kernel where there may be none."""

import inspect
from pathlib import Path

import pytest

from deltaplane.model.addresses import AddressPair
from nodeagent import preflight
from nodeagent.check import differences
from nodeagent.cni import result
from nodeagent.cni.result import Interface
from nodeagent.dataplane import memory
from nodeagent.dataplane.fake import FakeDataPlane
from nodeagent.dataplane.memory import MemoryDataPlane
from nodeagent.dataplane.port import DataPlane, Mapping
from nodeagent.memory import MemoryPodLinks
from nodeagent.netlink.links import PodLink
from tests.unit.nodeagent.test_config import read

MAPPING = Mapping(address=bytes(15) + b"\x01", identity=300, node_index=2)


def link(number: int, uid: str = "ours") -> PodLink:
    return PodLink(
        number=number,
        node_uid=uid,
        ifname="eth0",
        addresses=AddressPair(ipv4=bytes((10, 0, 0, number)), ipv6=bytes(15) + bytes((number,))),
        mtu=1500,
    )


def test_every_change_is_in_the_file_at_once(tmp_path: Path) -> None:
    plane = MemoryDataPlane(tmp_path)
    plane.upsert_mappings([MAPPING])
    held = memory.read(tmp_path)
    assert held is not None
    assert held.actual.mappings == {MAPPING}

    plane.delete_mappings([MAPPING.address])
    held = memory.read(tmp_path)
    assert held is not None
    assert held.actual.mappings == frozenset()


def test_no_change_of_the_port_is_forgotten() -> None:
    verbs = ("upsert_", "delete_", "write_", "set_")
    changes = {
        name
        for name, _ in inspect.getmembers(DataPlane, inspect.isfunction)
        if name.startswith(verbs) and name != "delete_service_counts"
    }
    assert len(changes) == 24
    same = {
        name for name in changes if getattr(MemoryDataPlane, name) is getattr(FakeDataPlane, name)
    }
    assert same == set()


def test_nothing_is_read_where_nothing_was_written(tmp_path: Path) -> None:
    assert memory.read(tmp_path) is None


async def test_links_outlive_the_agent(tmp_path: Path) -> None:
    first = MemoryPodLinks(tmp_path)
    indexes = [await first.create(link(number), 0) for number in (1, 2)]
    await first.create(link(3, uid="another"), 0)
    await first.remove(link(2))

    second = MemoryPodLinks(tmp_path)
    assert await second.ours("ours") == {"dp1": indexes[0]}
    assert await second.strangers("ours") == ("dp3",)
    # A number of a link that is gone may come again, that of one that is there may not.
    assert await second.create(link(4), 0) not in (indexes[0], 0)


async def test_a_strange_link_of_the_same_name_stays(tmp_path: Path) -> None:
    links = MemoryPodLinks(tmp_path)
    await links.create(link(1, uid="another"), 0)
    await links.remove(link(1))
    assert await links.strangers("ours") == ("dp1",)
    await links.delete("dp1")
    assert await links.strangers("ours") == ()


async def test_check_finds_a_link_as_add_has_made_it(tmp_path: Path) -> None:
    links, made = MemoryPodLinks(tmp_path), link(1)
    added = result.of_interface(
        Interface(
            ifname=made.ifname,
            netns="/n",
            pod_mac=made.pod_mac,
            host_link=made.host_name,
            host_mac=made.host_mac,
            mtu=made.mtu,
            addresses=made.addresses,
        )
    )
    assert differences(made, "/n", added, await links.inspect(made, 0)) != []
    await links.create(made, 0)
    assert differences(made, "/n", added, await links.inspect(made, 0)) == []


def test_in_memory_nothing_of_the_kernel_is_asked_for(tmp_path: Path) -> None:
    config = read(
        data_plane="memory",
        insecure="true",
        state_dir=str(tmp_path),
        socket=str(tmp_path / "cni.sock"),
        uplink="nosuchlink",
        pin_dir=str(tmp_path),
    )
    assert preflight.check(config) == ()
    assert preflight.check(config.model_copy(update={"socket": tmp_path / ("s" * 120)})) != ()


def test_in_memory_only_where_nothing_is_locked_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DELTAPLANE_INSECURE")
    with pytest.raises(SystemExit):
        read(data_plane="memory", tls_dir=str(tmp_path))
    assert "--data-plane memory enforces nothing" in capsys.readouterr().err
    assert not read(insecure="true").in_memory
