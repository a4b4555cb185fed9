"""The CNI requirements that others wrote, run against the real binary and agent."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.netns.node import ROOT, Node, run
from tests.netns.services_thread import Services

ORACLE = ROOT.parent / "shared/oracles/cni"

NOT_OURS: set[str] = set()
"""Requirements that we know not to meet, each with its reason."""


def vectors() -> list[str]:
    if not (ORACLE / "cni_vectors.json").exists():
        return []
    document = json.loads((ORACLE / "cni_vectors.json").read_text())
    return [vector["id"] for vector in document["vectors"]]


def load_runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_vectors", ORACLE / "run_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def conf(tmp_path: Path, node: Node) -> Path:
    file = tmp_path / "conf.json"
    file.write_text(json.dumps({"type": node.shim.name, "agentSocket": str(node.cni_socket)}))
    return file


@pytest.mark.skipif(not vectors(), reason="shared/oracles/cni is not beside this tree")
@pytest.mark.timeout(300)
def test_the_requirements_of_the_specification(
    node: Node, services: Services, conf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    services.create_pool("large4", "10.97.0.0/20", 24)
    services.create_pool("large6", "fd00:97::/116", 120)
    node.start_ready(pools="large4,large6", log_level="warning")
    uid = "11111111-2222-3333-4444-555555555555"
    services.apply_pod("web-0", node.name, namespace="ns1", uid=uid, app="web")
    module = load_runner()

    class Arguments:
        plugin = str(node.shim)
        host_netns = node.namespace
        only = None
        hook = None
        verbose = False

    Arguments.conf = str(conf)  # type: ignore[attr-defined]
    runner = module.Runner(Arguments)
    plain_call = runner.call

    def call_as_kubelet(vector: dict[str, Any], **over: str) -> Any:
        """Kubelet names the pod, and its record is there before."""
        environment = vector["env"] | over
        container = environment.get("CNI_CONTAINERID", "")
        if environment.get("CNI_COMMAND") == "ADD" and "CNI_ARGS" not in environment:
            # Container ids are no pod names.
            pod = f"v-{container.encode().hex()}-x"
            services.apply_pod(pod, node.name, app="vector")
            over["CNI_ARGS"] = f"K8S_POD_NAMESPACE=shop;K8S_POD_NAME={pod}"
        return plain_call(vector, **over)

    runner.call = call_as_kubelet
    try:
        failed = runner.run()
    finally:
        for name in ("cnivec-a", "cnivec-b"):
            run("ip", "netns", "delete", name, check=False)
    report = capsys.readouterr().out

    names = {line.split("] ")[1].split(":")[0] for line in report.splitlines() if "FAIL" in line}
    assert names <= NOT_OURS, report
    assert failed <= len(NOT_OURS)
