"""Results in each version: the reference library's own conversions, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from nodeagent.cni import conversion, result
from nodeagent.cni.result import SUPPORTED_VERSIONS, CniError, Code, Ip, Link, Result, Route

ORACLE = Path(__file__).resolve().parents[5] / "shared/oracles/cni/result_conversions.json"


def oracle() -> dict[str, Any]:
    if not ORACLE.exists():
        pytest.skip("shared/oracles/cni is not beside this tree")
    document: dict[str, Any] = json.loads(ORACLE.read_text())
    return document


@pytest.mark.parametrize("version", SUPPORTED_VERSIONS)
def test_the_reference_librarys_conversions(version: str) -> None:
    document = oracle()
    newest = document["canonical_1.1.0"]
    expected = document["conversions"].get(version, newest)

    assert conversion.encode(version, conversion.decode(newest)) == expected
    # And on: what an older version says is not lost on the way to itself.
    assert conversion.encode(version, conversion.decode(expected)) == expected


def test_route_options_are_kept_where_the_version_has_them() -> None:
    route = {"dst": "10.0.0.0/8", "gw": "10.0.0.1", "mtu": 1400, "table": 100, "scope": 253}
    read = conversion.decode({"routes": [route]})

    assert conversion.encode("1.1.0", read)["routes"] == [route]
    assert conversion.encode("0.4.0", read)["routes"] == [{"dst": "10.0.0.0/8", "gw": "10.0.0.1"}]


def test_an_empty_result_has_no_interfaces() -> None:
    assert conversion.encode("1.0.0", Result()) == {
        "cniVersion": "1.0.0",
        "ips": [],
        "routes": [],
        "dns": {},
    }


def test_behind_another_plugin_indexes_are_moved() -> None:
    previous = Result(
        links=(Link(name="a"),),
        ips=(Ip(address="192.0.2.1/24", interface=0), Ip(address="192.0.2.2/24")),
        routes=(Route(dst="10.0.0.0/8"),),
        dns={"domain": "x"},
    )
    own = Result(links=(Link(name="b"),), ips=(Ip(address="10.0.0.1/32", interface=0),))

    both = result.behind(previous, own)

    assert [link.name for link in both.links] == ["a", "b"]
    assert [ip.interface for ip in both.ips] == [0, None, 1]
    assert (both.routes, both.dns) == (previous.routes, previous.dns)


@pytest.mark.parametrize(
    "document",
    [
        [],
        "x",
        {"ips": {}},
        {"ips": [7]},
        {"ips": [{"address": "10.0.0.300/32"}]},
        {"ips": [{"address": "10.0.0.3/32", "gateway": "x"}]},
        {"ips": [{"address": "10.0.0.3/32", "interface": 0}]},
        {"ips": [{"address": "10.0.0.3/32", "interface": -1}], "interfaces": [{"name": "a"}]},
        {"interfaces": [{"name": 7}]},
        {"routes": [{"dst": "10.0.0.1/8"}]},
        {"routes": [{}]},
        {"routes": [{"dst": "10.0.0.0/8", "mtu": "big"}]},
        {"dns": "x"},
    ],
)
def test_what_is_no_result_is_refused(document: object) -> None:
    with pytest.raises(CniError) as caught:
        conversion.decode(document)
    assert caught.value.code is Code.UNDECODABLE
