import json
from dataclasses import replace
from typing import Any

import pytest

from deltaplane.model.ports import Protocol
from nodeagent.cni import netconf
from nodeagent.cni.netconf import HostPort, PodName
from nodeagent.cni.protocol import Request
from nodeagent.cni.result import CniError, Code


def request(command: str = "ADD", **config: Any) -> Request:
    document = {"cniVersion": "1.1.0", "name": "net", "type": "deltaplane-cni"} | config
    return Request(
        command=command,
        container_id="c0ffee-1",
        netns="/run/netns/x",
        ifname="eth0",
        args="",
        path="/opt/cni/bin",
        config=json.dumps({k: v for k, v in document.items() if v is not None}).encode(),
    )


def refused(bad: Request) -> CniError:
    with pytest.raises(CniError) as caught:
        netconf.parse(bad)
    return caught.value


def test_kubelets_arguments_name_the_pod() -> None:
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u;K8S_NEW=x"
    call = netconf.parse(replace(request(), args=args))
    assert call.pod == PodName(namespace="shop", name="web", uid="u")
    assert str(call.attachment) == "net/c0ffee-1/eth0"
    assert netconf.parse(request()).pod is None


@pytest.mark.parametrize("args", ["K8S_POD_NAME", "a;b=c", "UNKNOWN=1", "IgnoreUnknown=0;X=1"])
def test_wrong_arguments(args: str) -> None:
    assert refused(replace(request(), args=args)).code is Code.INVALID_ENVIRONMENT


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("ADD", {"container_id", "ifname", "netns", "path"}),
        ("CHECK", {"container_id", "ifname", "netns", "path"}),
        ("DEL", {"container_id", "ifname", "path"}),
        ("GC", {"path"}),
        ("STATUS", {"path"}),
    ],
)
def test_every_missing_variable_is_named(command: str, missing: set[str]) -> None:
    variable = {
        "container_id": "CNI_CONTAINERID",
        "ifname": "CNI_IFNAME",
        "netns": "CNI_NETNS",
        "path": "CNI_PATH",
    }
    error = refused(replace(request(command), container_id="", ifname="", netns="", path=""))
    assert error.code is Code.INVALID_ENVIRONMENT
    assert set(error.details.split(", ")) == {variable[name] for name in missing}


@pytest.mark.parametrize("command", ["", "FROB", "add", "VERSION"])
def test_unknown_commands(command: str) -> None:
    error = refused(request(command))
    assert error.code is Code.INVALID_ENVIRONMENT
    assert "CNI_COMMAND" in str(error)


@pytest.mark.parametrize("container", ["some%%container", "-abc", "a/b", "a b", ".a"])
def test_container_ids_that_are_refused(container: str) -> None:
    error = refused(replace(request(), container_id=container))
    assert error.code is Code.INVALID_ENVIRONMENT


@pytest.mark.parametrize(
    "name", ["a" * 16, ".", "..", "et/h0", "eth:0", "eth 0", "eth\t0", "é" * 8]
)
def test_interface_names_that_are_refused(name: str) -> None:
    assert refused(replace(request(), ifname=name)).code is Code.INVALID_ENVIRONMENT


@pytest.mark.parametrize("name", ["a" * 15, "eth0", "é" * 7, "..."])
def test_interface_names_that_are_accepted(name: str) -> None:
    assert netconf.parse(replace(request(), ifname=name)).attachment.ifname == name


@pytest.mark.parametrize("config", [b"", b'{"cniVersion":', b"[]", b"null", b"\xff", b"[" * 100000])
def test_configurations_that_cannot_be_read(config: bytes) -> None:
    error = refused(replace(request(), config=config))
    assert error.code is Code.UNDECODABLE
    assert netconf.claimed_version(config) == "1.1.0"


@pytest.mark.parametrize("name", [None, "", "bad:name%", "bad/name", 7, "-x"])
def test_network_names_that_are_refused(name: object) -> None:
    assert refused(request(name=name)).code is Code.INVALID_CONFIG


@pytest.mark.parametrize(
    ("version", "code"),
    [
        ("9.9.9", Code.INCOMPATIBLE_VERSION),
        ("0.2.0", Code.INCOMPATIBLE_VERSION),
        (None, Code.INCOMPATIBLE_VERSION),
        ("adsf", Code.UNDECODABLE),
        ("1.0", Code.UNDECODABLE),
        (1, Code.UNDECODABLE),
    ],
)
def test_versions_that_are_refused(version: object, code: Code) -> None:
    assert refused(request(cniVersion=version)).code is code


@pytest.mark.parametrize(
    ("command", "version"), [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")]
)
def test_commands_are_as_old_as_their_version(command: str, version: str) -> None:
    error = refused(request(command, cniVersion=version))
    assert error.code is Code.INCOMPATIBLE_VERSION
    assert f"does not allow {command}" in error.message


def test_the_list_of_valid_attachments() -> None:
    listed = [{"containerID": "a", "ifname": "eth0"}]
    call = netconf.parse(request("GC", **{"cni.dev/valid-attachments": listed}))
    assert call.valid_attachments == frozenset({("a", "eth0")})
    assert netconf.parse(request("GC")).valid_attachments is None
    for wrong in ("x", [{"containerID": "a"}], [1]):
        error = refused(request("GC", **{"cni.dev/valid-attachments": wrong}))
        assert error.code is Code.INVALID_CONFIG


def mapped(*mappings: object) -> Request:
    return request(runtimeConfig={"portMappings": list(mappings)})


def test_host_ports() -> None:
    call = netconf.parse(
        mapped(
            {"hostPort": 8080, "containerPort": 80},
            {"hostPort": 53, "containerPort": 5353, "protocol": "UDP", "hostIP": "::"},
            {"hostPort": 0, "containerPort": 9},
        )
    )
    assert call.host_ports == (
        HostPort(protocol=Protocol.TCP, host_port=8080, container_port=80),
        HostPort(host_address=bytes(16), protocol=Protocol.UDP, host_port=53, container_port=5353),
    )
    assert netconf.parse(request()).host_ports == ()


@pytest.mark.parametrize(
    "mappings",
    [
        ["x"],
        [{"hostPort": 8080}],
        [{"hostPort": 8080, "containerPort": "80"}],
        [{"hostPort": 70000, "containerPort": 80}],
        [{"hostPort": 8080, "containerPort": 80, "protocol": "icmp"}],
        [{"hostPort": 8080, "containerPort": 80, "hostIP": "n1"}],
        [{"hostPort": 8080, "containerPort": 80, "hostIP": "127.0.0.1"}],
        [{"hostPort": 8080, "containerPort": 80}, {"hostPort": 8080, "containerPort": 81}],
        [{"hostPort": n, "containerPort": 1, "hostIP": f"192.0.2.{n}"} for n in range(1, 10)],
    ],
)
def test_wrong_host_ports(mappings: list[object]) -> None:
    assert refused(mapped(*mappings)).code is Code.INVALID_CONFIG


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (b"", bytes(4), True),
        (bytes(4), bytes((192, 0, 2, 1)), True),
        (bytes(4), bytes(16), False),
        (bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2)), False),
    ],
)
def test_host_ports_that_overlap(one: bytes, other: bytes, *, expected: bool) -> None:
    first = HostPort(host_address=one, protocol=Protocol.TCP, host_port=80, container_port=80)
    second = replace(first, host_address=other, container_port=81)
    assert first.overlaps(second) is second.overlaps(first) is expected
    assert not first.overlaps(replace(second, protocol=Protocol.UDP))
