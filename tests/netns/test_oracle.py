"""The CNI requirements that others wrote, run against the real binary and agent."""

import contextlib
import importlib.util
import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.netns.cni_hook import VARIABLE
from tests.netns.node import ROOT, Node, run
from tests.netns.oracle_world import World, listening
from tests.netns.services_thread import Services

ORACLE = ROOT.parent / "shared/oracles/cni"


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
def world(node: Node, services: Services) -> Iterator[World]:
    made = World(node, services)
    try:
        yield made
    finally:
        made.close()


def prepared_runner(module: ModuleType, world: World, services: Services, conf: Path) -> Any:
    """The vectors' runner, with calls as kubelet makes them and our hook behind it."""

    class Arguments:
        plugin = str(world.node.shim)
        host_netns = world.node.namespace
        only = None
        hook = str(ROOT / "tests/netns/cni_hook.py")
        verbose = False

    Arguments.conf = str(conf)  # type: ignore[attr-defined]
    runner = module.Runner(Arguments)
    plain_call, plain_clean, plain_setup = runner.call, runner.clean, runner.setup

    def call(vector: dict[str, Any], **over: str) -> Any:
        """Kubelet names the pod, and its record is there before."""
        node = world.node
        runner.a.host_netns = node.namespace
        runner.base |= {"agentSocket": str(node.cni_socket), "spoolDir": str(node.spool)}
        environment = vector["env"] | over
        container = environment.get("CNI_CONTAINERID", "")
        if environment.get("CNI_COMMAND") == "ADD" and "CNI_ARGS" not in environment:
            # Container ids are no pod names.
            pod = f"v-{container.encode().hex()}-x"
            services.apply_pod(pod, node.name, app="vector")
            over["CNI_ARGS"] = f"K8S_POD_NAMESPACE=shop;K8S_POD_NAME={pod}"
        return plain_call(vector, **over)

    def clean() -> None:
        plain_clean()
        world.restore()

    def setup(vector: dict[str, Any]) -> Any:
        if vector["id"] != "status-then-add":
            return plain_setup(vector)
        # The runner takes a set-up that has to answer with an error for one that failed.
        down = runner.byid["status-agent-down"]
        world.arrange("stop the node agent")
        notes = runner.judge(down, *runner.call(down))
        world.arrange("start the agent")
        return "; ".join(notes) or None

    runner.call, runner.clean, runner.setup = call, clean, setup
    return runner


@pytest.mark.skipif(not vectors(), reason="shared/oracles/cni is not beside this tree")
@pytest.mark.timeout(300)
def test_the_requirements_of_the_specification(
    world: World,
    services: Services,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conf = tmp_path / "conf.json"
    conf.write_text(json.dumps({"type": world.node.shim.name}))
    uid = "11111111-2222-3333-4444-555555555555"
    services.apply_pod("web-0", world.node.name, namespace="ns1", uid=uid, app="web")
    runner = prepared_runner(load_runner(), world, services, conf)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "hook.sock"))
    printed = io.StringIO()
    try:
        # Not capsys: a service that a set-up starts again would keep its standard error.
        with listening(world, tmp_path / "hook.sock"), contextlib.redirect_stdout(printed):
            runner.run()
    finally:
        for name in ("cnivec-a", "cnivec-b"):
            run("ip", "netns", "delete", name, check=False)
    report = printed.getvalue()

    assert report.splitlines()[-1] == f"{len(vectors())} passed, 0 failed, 0 skipped", report
