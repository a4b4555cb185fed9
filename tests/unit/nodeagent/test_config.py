from pathlib import Path

import pytest

from deltaplane.runtime.config import load
from nodeagent.config import AgentConfig

GOOD = {
    "--node-name": "n1",
    "--uplink": "eth0",
    "--node-ipv4": "192.0.2.1",
    "--registry": "192.0.2.9:1",
    "--ipam": "unix:/run/ipam.sock",
    "--slicer": "192.0.2.9:3,192.0.2.8:3",
}


def read(**changes: str | None) -> AgentConfig:
    flags = GOOD | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return load(AgentConfig, [part for k, v in flags.items() if v is not None for part in (k, v)])


def test_what_is_needed_is_enough() -> None:
    config = read()
    assert config.slicers == ("192.0.2.9:3", "192.0.2.8:3")
    assert config.addresses.ipv4 == bytes((192, 0, 2, 1))
    assert config.addresses.ipv6 is None
    assert config.state_dir == Path("/var/lib/deltaplane")
    assert read(pools="a,b").pools == ("a", "b")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"node_name": "N1"}, "--node-name"),
        ({"node_name": None}, "--node-name"),
        ({"registry": "nonsense"}, "--registry"),
        ({"node_ipv4": "fd00::1"}, "--node-ipv4"),
        ({"node_ipv6": "192.0.2.1"}, "--node-ipv6"),
        ({"node_ipv4": None}, "--node-ipv4 or --node-ipv6"),
        ({"mtu": "1000", "node_ipv6": "fd00::1"}, "1280"),
        ({"mtu": "70000"}, "--mtu"),
        ({"uplink": "a" * 16}, "--uplink"),
    ],
)
def test_mistakes_are_named(
    changes: dict[str, str | None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        read(**changes)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_exclusions_are_prefixes() -> None:
    config = read(masquerade_exclude="10.0.0.0/8,fd00::/8", masquerade="false")
    assert [str(prefix) for prefix in config.spared] == ["10.0.0.0/8", "fd00::/8"]
    assert not config.masquerade
    assert read().masquerade


@pytest.mark.parametrize("wrong", ["10.0.0.1/8", "10.0.0.0/33", "nonsense"])
def test_a_wrong_exclusion_is_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read(masquerade_exclude=wrong)
    assert "--masquerade-exclude" in capsys.readouterr().err


def test_cgroup_is_a_word_or_a_path(capsys: pytest.CaptureFixture[str]) -> None:
    asked = [None, "auto", "none", "/sys/fs/cgroup"]
    assert [read(cgroup=text).cgroup for text in asked] == ["auto", *asked[1:]]
    with pytest.raises(SystemExit):
        read(cgroup="kubepods")
    assert "--cgroup" in capsys.readouterr().err


def test_the_two_tunnels_have_ports_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    asked = [read(external_mode=mode) for mode in ("snat", "ready", "dsr")]
    assert [found.answers_directly for found in asked] == [False, True, True]
    assert read(routing="vxlan", direct_port="8472").direct_port == 8472, "nobody listens there"
    with pytest.raises(SystemExit):
        read(routing="vxlan", external_mode="ready", direct_port="8472")
    assert "--direct-port" in capsys.readouterr().err


def test_routing_is_one_of_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert (read().routing, read(routing="vxlan").routing) == ("native", "vxlan")
    with pytest.raises(SystemExit):
        read(routing="gre", tunnel_port="0")
    told = capsys.readouterr().err
    assert "--routing" in told
    assert "--tunnel-port" in told
