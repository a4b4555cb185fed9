import subprocess
import sys

import pytest

from deltaplane.errors import Invalid, NotFound
from nodeagent import launch
from nodeagent.netlink.channel import Channel


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {}),
        ({"HOST_IPS": ""}, {}),
        ({"HOST_IPS": "192.0.2.1"}, {launch.IPV4: "192.0.2.1"}),
        ({"HOST_IPS": "2001:db8::1"}, {launch.IPV6: "2001:db8::1"}),
        (
            {"HOST_IPS": "192.0.2.1, 2001:db8::1,192.0.2.9"},
            {launch.IPV4: "192.0.2.1", launch.IPV6: "2001:db8::1"},
        ),
        (
            {"HOST_IPS": "192.0.2.1,2001:db8::1", launch.IPV4: "192.0.2.7"},
            {launch.IPV6: "2001:db8::1"},
        ),
    ],
)
def test_addresses_of_the_node_become_variables(
    environment: dict[str, str], expected: dict[str, str]
) -> None:
    assert launch.node_variables(environment) == expected


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(Invalid):
        launch.node_variables({"HOST_IPS": "node-1"})


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_uplink_is_the_link_with_the_address(address: str) -> None:
    with Channel() as channel:
        assert launch.link_with(channel, address) == "lo"
    assert launch.prepare({"HOST_IPS": address})[launch.UPLINK] == "lo"


def test_an_uplink_that_is_named_is_not_looked_for() -> None:
    given = {"HOST_IPS": "203.0.113.77", launch.UPLINK: "bond0"}
    assert launch.prepare(given)[launch.UPLINK] == "bond0"


def test_a_node_without_that_address_is_told() -> None:
    with pytest.raises(NotFound, match=r"203\.0\.113\.77"):
        launch.prepare({"HOST_IPS": "203.0.113.77"})


def test_options_alone_are_the_agents() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nodeagent.launch", "--help"],
        env={launch.UPLINK: "lo", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--pin-dir" in done.stdout


def test_mistakes_are_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nodeagent.launch", "agent"],
        env={"HOST_IPS": "node-1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("agent: ")
    assert len(done.stderr.splitlines()) == 1
