"""Every process takes the options that the manifests give it."""

import importlib
import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deltaplane.cli.main import app
from deltaplane.runtime import config, rpc
from deltaplane.runtime.config import ProcessConfig
from tests.deploy.manifests import OVERLAYS, Object, containers, kustomized, pods, settings
from tests.trust import trust

CLASSES = {
    "ipam": "services.ipam.config.Config",
    "endpoints": "services.endpoints.config.Config",
    "slicer": "services.slicer.config.Config",
    "bridge": "services.kubernetes.config.Config",
    "agent": "nodeagent.config.AgentConfig",
}
PROCESSES = {
    "deltaplane-ipam": "ipam",
    "deltaplane-endpoints": "endpoints",
    "deltaplane-slicer": "slicer",
    "deltaplane-bridge": "bridge",
    "deltaplane-agent": "agent",
}
SECURITY = {"tls_dir", "insecure"}


def config_class(process: str) -> type[ProcessConfig]:
    module, _, name = CLASSES[process].rpartition(".")
    try:
        found: type[ProcessConfig] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError:
        pytest.skip(f"{module} is not there yet")
    return found


def started(container: Object, given: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Environment and arguments of a container, as kubelet makes them."""
    environment = given | {"HOST_IP": "192.0.2.11", "HOST_IPS": "192.0.2.11,2001:db8::11"}
    environment |= {e["name"]: e["value"] for e in container["env"] if "value" in e}
    expanded = [
        re.sub(r"\$\((\w+)\)", lambda name: environment[name[1]], argument)
        for argument in container["args"]
    ]
    return environment, expanded


@pytest.mark.parametrize("folder", OVERLAYS)
@pytest.mark.parametrize(("workload", "process"), PROCESSES.items(), ids=PROCESSES.values())
def test_a_process_takes_its_options(
    folder: str, workload: str, process: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = kustomized(folder)
    [container, *_] = pods(objects)[workload]["containers"]
    assert container["name"] == process
    environment, arguments = started(container, settings(objects))
    for name in [name for name in os.environ if name.startswith("DELTAPLANE_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    mounts = {mount["mountPath"] for mount in container.get("volumeMounts", ())}
    if environment["DELTAPLANE_TLS_DIR"]:
        assert environment["DELTAPLANE_TLS_DIR"] in mounts
        monkeypatch.setenv("DELTAPLANE_TLS_DIR", str(tmp_path))
    if environment["DELTAPLANE_NODE_CA"]:
        if process == "bridge":
            assert environment["DELTAPLANE_NODE_CA"] in mounts
        monkeypatch.setenv("DELTAPLANE_NODE_CA", str(tmp_path))
    if process == "agent":
        assert arguments.pop(0) == "agent"
        arguments += ["--node-name=worker", "--uplink=eth0", "--node-ipv4=192.0.2.11"]

    found = config.load(config_class(process), arguments)

    port = container["ports"][-1]["containerPort"]
    assert found.admin == f"127.0.0.1:{port}"


def test_every_setting_is_an_option_of_somebody() -> None:
    # The last one is of `deltaplane certs request`.
    known = {*SECURITY, "api_server"}
    for process in CLASSES:
        known |= config_class(process).model_fields.keys()
    for name in settings(kustomized("base")):
        assert name.removeprefix("DELTAPLANE_").lower() in known


@pytest.mark.parametrize("folder", OVERLAYS)
def test_agents_can_use_the_addresses_together(folder: str) -> None:
    known = settings(kustomized(folder))
    for name in ("DELTAPLANE_IPAM", "DELTAPLANE_REGISTRY"):
        assert rpc._grpc_target(known[name])


@pytest.mark.parametrize("folder", OVERLAYS)
def test_members_of_etcd_are_the_hosts_of_the_settings(folder: str) -> None:
    objects = kustomized(folder)
    etcd = settings(objects, "deltaplane-etcd")
    scheme = etcd["SCHEME"]
    members = re.findall(r"=(https?)://([^,]+):\d+", etcd["ETCD_INITIAL_CLUSTER"])
    clients = settings(objects)["DELTAPLANE_ETCD"].split(",")
    assert [host for _, host in members] == [client.rpartition(":")[0] for client in clients]
    assert {used for used, _ in members} == {scheme}
    assert (scheme == "https") == ("ETCD_CLIENT_CERT_AUTH" in etcd)
    [replicas] = [item["spec"]["replicas"] for item in objects if item["kind"] == "StatefulSet"]
    assert replicas == len(members)


def test_etcd_lets_in_whom_the_certificates_name() -> None:
    certificates = {
        item["metadata"]["name"]: item["spec"]
        for item in kustomized("overlays/production")
        if item["kind"] == "Certificate"
    }
    etcd = settings(kustomized("overlays/production"), "deltaplane-etcd")
    for name, spec in certificates.items():
        role = name.removeprefix("deltaplane-")
        assert spec["uris"] == [f"spiffe://deltaplane/{role}"]
        assert spec["privateKey"]["algorithm"] == "ECDSA"
        is_client = etcd["ETCD_CLIENT_CERT_ALLOWED_HOSTNAME"] in spec["dnsNames"]
        assert is_client == (role != "bridge")
    assert etcd["ETCD_PEER_CERT_ALLOWED_HOSTNAME"] in certificates["deltaplane-etcd"]["dnsNames"]
    hosts = re.findall(r"https://([^,]+):\d+", etcd["ETCD_INITIAL_CLUSTER"])
    assert certificates["deltaplane-etcd"]["ipAddresses"] == hosts


@pytest.mark.parametrize("container", ["certificate", "renewal"])
def test_what_gets_certificates_takes_its_options(
    container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is a good certificate it does nothing, and says so."""
    ca = trust(tmp_path / "ca")
    folder = ca.issue("node/worker")
    objects = kustomized("base")
    [found] = [
        it for it in containers(pods(objects)["deltaplane-agent"]) if it["name"] == container
    ]
    for name, value in settings(objects).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DELTAPLANE_NODE_NAME", "worker")
    *before, _, _, _, out, authority = found["command"]
    assert before in ([], ["python3", "-m", "deltaplane.certs.keeping"])
    assert found["command"][len(before) :][:3] == ["deltaplane", "certs", "request"]
    mounts = {mount["mountPath"] for mount in found["volumeMounts"]}
    assert {out.removeprefix("--out="), str(Path(authority.removeprefix("--ca=")).parent)} < mounts
    arguments = ["certs", "request", f"--out={folder}", f"--ca={ca.folder / 'ca.crt'}"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "node/worker" in done.output
