"""The plugin under the name that container runtimes call for every pod."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.serial
CONFIG = {"name": "cni-loopback", "type": "loopback"}


@pytest.fixture(scope="module")
def plugin(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copy(shim, tmp_path_factory.mktemp("loopback") / "loopback"))


@pytest.fixture
def pod() -> Iterator[str]:
    """A network namespace whose lo is down."""
    name = f"dp-loopback-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def call(
    plugin: Path, command: str, netns: str, version: str = "1.0.0"
) -> tuple[int, dict[str, object]]:
    done = subprocess.run(
        [plugin],
        env={
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": netns,
            "CNI_IFNAME": "lo",
            "CNI_PATH": "/opt/cni/bin",
        },
        input=json.dumps({"cniVersion": version, **CONFIG}).encode(),
        capture_output=True,
        timeout=10,
        check=False,
    )
    return done.returncode, json.loads(done.stdout or b"{}")


def addresses(pod: str) -> set[str]:
    shown = subprocess.check_output(["ip", "-json", "-n", pod, "address", "show", "lo"])
    return {item["local"] for link in json.loads(shown) for item in link["addr_info"]}


@pytest.mark.parametrize("version", ["0.3.1", "1.1.0"])
def test_add_sets_lo_up_with_both_addresses(plugin: Path, pod: str, version: str) -> None:
    netns = f"/run/netns/{pod}"
    assert call(plugin, "CHECK", netns)[0] == 1
    code, result = call(plugin, "ADD", netns, version)

    assert (code, result["cniVersion"]) == (0, version)
    ips = result["ips"]
    assert isinstance(ips, list)
    assert [ip["address"] for ip in ips] == ["127.0.0.1/8", "::1/128"]
    assert all(("version" in ip) == version.startswith("0.") for ip in ips)
    assert addresses(pod) == {"127.0.0.1", "::1"}
    assert call(plugin, "CHECK", netns, version)[0] == 0
    assert call(plugin, "ADD", netns, version)[0] == 0


def test_without_a_namespace_del_is_done_and_add_says_why_not(plugin: Path) -> None:
    assert call(plugin, "DEL", "") == (0, {})
    assert call(plugin, "DEL", "/run/netns/dp-absent") == (0, {})
    assert call(plugin, "ADD", "")[1]["code"] == 4
    assert call(plugin, "ADD", "/run/netns/dp-absent")[1]["code"] == 3
    assert call(plugin, "ADD", "/dev/null")[1]["code"] == 3
    assert call(plugin, "ADD", "/proc/self/ns/net", "0.1.0")[1]["code"] == 1
