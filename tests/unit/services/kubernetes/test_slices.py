"""Endpoint slices of an API server, and the same read from a file by `deltaplane.manifest`."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane import manifest
from deltaplane.manifest import ManifestError
from deltaplane.model.addresses import parse_address
from deltaplane.model.service import EndpointSlice
from services.kubernetes.kinds import Kind
from services.kubernetes.slices import translate_slice
from services.kubernetes.translating import NOTHING, Mode
from tests.unit.services.kubernetes.objects import decoded, endpoint_slice


def record(value: dict[str, Any]) -> EndpointSlice:
    found = translate_slice(decoded(Kind.ENDPOINT_SLICE, value))
    assert isinstance(found.record, EndpointSlice), found.problem
    return found.record


def test_one_without_endpoints() -> None:
    assert record(endpoint_slice()).endpoints == ()


@pytest.mark.parametrize(
    "value",
    [endpoint_slice(labels={}), endpoint_slice(addressType="FQDN")],
    ids=["no service", "names"],
)
def test_slices_of_which_nothing_is_programmed(value: dict[str, Any]) -> None:
    assert translate_slice(decoded(Kind.ENDPOINT_SLICE, value)) == NOTHING


@pytest.mark.parametrize(
    "addresses",
    [[], ["fd00::1"], ["10.0.0.300"], ["127.0.0.1"], ["169.254.0.1"], ["::ffff:1.2.3.4"]],
)
def test_addresses_that_are_of_no_use(addresses: list[str]) -> None:
    value = endpoint_slice({"addresses": ["10.0.0.1"]}, {"addresses": addresses})
    found = translate_slice(decoded(Kind.ENDPOINT_SLICE, value))
    assert found.problem.startswith("endpoints[1].addresses")
    assert found.mode is Mode.IF_ABSENT
    with pytest.raises(ManifestError):
        manifest.observe(value, "api")


BOOLEANS = st.sampled_from([True, False, None])
NODES = st.sampled_from(["node-1", "node-2"])
HINTS = st.lists(st.fixed_dictionaries({"name": st.sampled_from("abc")}), max_size=3, unique_by=str)


def endpoints(addresses: list[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    one = st.fixed_dictionaries(
        {"addresses": st.lists(st.sampled_from(addresses), min_size=1, max_size=2, unique=True)},
        optional={
            "conditions": st.fixed_dictionaries(
                {}, optional={"ready": BOOLEANS, "serving": BOOLEANS, "terminating": BOOLEANS}
            ),
            "hostname": st.sampled_from(["web-0", "web-1"]),
            "nodeName": NODES,
            "zone": st.just("a"),
            "hints": st.fixed_dictionaries({}, optional={"forZones": HINTS, "forNodes": HINTS}),
            "targetRef": st.fixed_dictionaries(
                {"kind": st.sampled_from(["Pod", "Node"]), "name": NODES},
                optional={"namespace": st.just("shop"), "uid": st.just("1")},
            ),
        },
    )
    return st.lists(one, max_size=4)


PORTS = st.lists(
    st.fixed_dictionaries(
        {"port": st.sampled_from([80, 443, None])},
        optional={
            "name": st.sampled_from(["http", "", "b"]),
            "protocol": st.sampled_from(["TCP", "UDP", "SCTP"]),
            "appProtocol": st.just("kubernetes.io/h2c"),
        },
    ),
    max_size=3,
    unique_by=lambda port: port.get("name") or "",
)


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
@given(data=st.data())
def test_it_is_read_as_from_a_file(family: str, data: st.DataObject) -> None:
    addresses = {"IPv4": ["10.0.0.1", "10.0.0.2"], "IPv6": ["fd00::1", "fd00::2"]}[family]
    value = endpoint_slice(
        *data.draw(endpoints(addresses)), addressType=family, ports=data.draw(PORTS) or None
    )
    read = manifest.observe(value, "api").manifest
    assert isinstance(read, manifest.EndpointSliceManifest)
    assert record(value) == read.slice


def test_an_address_is_bytes() -> None:
    (found,) = record(endpoint_slice({"addresses": ["10.0.0.9"]})).endpoints
    assert found.address == parse_address("10.0.0.9")
