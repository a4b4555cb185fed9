import json

import pytest

from deltaplane.model.addresses import AddressPair, parse_address
from nodeagent.cni import conversion, result
from nodeagent.cni.result import CniError, Code, Interface

DUAL = Interface(
    ifname="eth0",
    netns="/run/netns/x",
    pod_mac=bytes.fromhex("020000000001"),
    host_link="dp1",
    host_mac=bytes.fromhex("020000000002"),
    mtu=1430,
    addresses=AddressPair(ipv4=parse_address("10.0.0.5"), ipv6=parse_address("fd00::5")),
)


def success(version: str, interface: Interface) -> bytes:
    return conversion.success(version, result.of_interface(interface))


def test_a_result_in_the_newest_version() -> None:
    assert json.loads(success("1.1.0", DUAL)) == {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "dp1", "mac": "02:00:00:00:00:02", "mtu": 1430},
            {
                "name": "eth0",
                "mac": "02:00:00:00:00:01",
                "mtu": 1430,
                "sandbox": "/run/netns/x",
            },
        ],
        "ips": [
            {"interface": 1, "address": "10.0.0.5/32", "gateway": "169.254.1.1"},
            {"interface": 1, "address": "fd00::5/128", "gateway": "fe80::1"},
        ],
        "routes": [
            {"dst": "0.0.0.0/0", "gw": "169.254.1.1"},
            {"dst": "::/0", "gw": "fe80::1"},
        ],
        "dns": {},
    }


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0"])
def test_older_versions_lack_the_mtu_and_the_oldest_say_the_family(version: str) -> None:
    document = json.loads(success(version, DUAL))
    assert document["cniVersion"] == version
    assert all("mtu" not in link for link in document["interfaces"])
    families = [ip.get("version") for ip in document["ips"]]
    assert families == ["4", "6"]


def test_errors_speak_a_version_that_we_know() -> None:
    error = CniError(Code.TRY_AGAIN, "later", "why")
    assert json.loads(result.failure("0.4.0", error)) == {
        "cniVersion": "0.4.0",
        "code": 11,
        "msg": "later",
        "details": "why",
    }
    assert json.loads(result.failure("9.9.9", error))["cniVersion"] == "1.1.0"
    assert "details" not in json.loads(result.failure("1.1.0", CniError(Code.FAILED, "x")))
