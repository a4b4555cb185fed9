"""Two labs at once: the same addresses, ports and pod names, and nothing in common."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deltaplane.cli.main import app
from deltaplane.errors import Conflict, NotFound
from lab import Lab, LabConfig, killing, lifecycle, netns
from lab.layout import PINS, ROOT, Layout
from tests.e2e.conftest import fresh_name, run_command
from tests.e2e.test_down import commands, look

pytestmark = pytest.mark.timeout(400)

PAIR = """
apiVersion: v1
kind: Pod
metadata: {name: one}
spec: {nodeName: node-1, containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: two}
spec: {nodeName: node-2, containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
"""


@pytest.fixture
def names() -> Iterator[tuple[str, str]]:
    chosen = (fresh_name(), fresh_name())
    yield chosen
    for name in chosen:
        if name in lifecycle.labs():
            lifecycle.down(name)


def up_at_once(names: tuple[str, str], nodes: int) -> list[Lab]:
    """Both are started at the same time, not one after the other."""
    gate = threading.Barrier(len(names))

    def start(name: str) -> Lab:
        gate.wait()
        return Lab.up(LabConfig(name=name, nodes=nodes))

    with ThreadPoolExecutor(max_workers=len(names)) as threads:
        return list(threads.map(start, names))


def of_lab(name: str) -> frozenset[str]:
    """Network namespaces, pins and folder of a lab."""
    namespaces = [entry for entry in netns.names() if entry.startswith(f"dp-{name}-")]
    pins = [str(pin) for pin in (PINS / name).rglob("*")]
    folders = [str(folder) for folder in (PINS / name, ROOT / name) if folder.exists()]
    return frozenset([*namespaces, *pins, *folders])


def test_one_goes_and_the_other_does_not_notice(names: tuple[str, str], tmp_path: Path) -> None:
    stays, goes = names
    links = look(goes).links
    file = tmp_path / "pair.yaml"
    file.write_text(PAIR)
    first, second = up_at_once(names, nodes=2)
    for lab in (first, second):
        lab.wait_enforced(lab.apply([file]))
    for lab in (first, second):
        result = lab.probe()
        assert result.wrong == ()
        assert len(result.rows) == result.allowed == 4

    listed = json.loads(run_command("lab", "list", "-o", "json").stdout)
    ours = {item["name"]: item for item in listed if item["name"] in names}
    assert {name: (item["pods"], item["state"]) for name, item in ours.items()} == {
        stays: (2, "serves"),
        goes: (2, "serves"),
    }
    unnamed = run_command("get", "pods")
    assert unnamed.returncode == 1
    assert stays in unnamed.stderr
    assert goes in unnamed.stderr

    mine = of_lab(stays)
    one, two = first.pods
    with killing.flooding(first.pod_namespace(one), two.addresses) as flood:
        second.client.close()
        done = run_command("lab", "down", "--name", goes)
        result_of_flood = flood.end()
    assert done.returncode == 0, done.stderr
    (segment,) = result_of_flood["segments"]
    assert segment["sent"] > 0
    assert segment["lost"] == 0

    assert of_lab(goes) == frozenset()
    assert list(commands(goes)) == []
    assert of_lab(stays) == mine
    state = first.status()
    assert state.ready
    assert {name: known.restarts for name, known in state.processes.items()} == dict.fromkeys(
        state.processes, 0
    )
    file.write_text(PAIR.replace("name: two", "name: three"))
    first.wait_enforced(first.apply([file]))
    assert first.probe().allowed == 12
    first.down()
    assert of_lab(stays) == frozenset()
    # What the labs share is looked after when the last of the machine goes: see test_down.
    assert look(goes).links == links


def test_of_two_that_want_one_name_one_is_told(names: tuple[str, str]) -> None:
    name, _ = names
    gate = threading.Barrier(2)
    refusals: list[str] = []

    def start() -> None:
        gate.wait()
        try:
            Lab.up(LabConfig(name=name, nodes=1)).client.close()
        except Conflict as conflict:
            refusals.append(str(conflict))

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (refusal,) = refusals
    assert f"lab {name!r}" in refusal
    assert f"deltaplane lab down --name {name}" in refusal
    assert lifecycle.is_running(Layout(lab=name))


def test_down_all_ends_every_lab(names: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(max_workers=2) as threads:
        for lab in threads.map(lambda name: Lab.up(LabConfig(name=name, nodes=1)), names):
            lab.client.close()
    gone = fresh_name()
    real = lifecycle.labs
    # Not those of others on this machine; and one that somebody ends in the same moment.
    monkeypatch.setattr(
        lifecycle, "labs", lambda: (gone, *(name for name in real() if name in names))
    )

    done = CliRunner().invoke(app, ["lab", "down", "--all"])

    assert done.exit_code == 0, done.output
    for name in names:
        assert f"lab {name} is gone" in done.output
        assert of_lab(name) == frozenset()
        assert list(commands(name)) == []
    with pytest.raises(NotFound):
        lifecycle.down(gone)
    again = CliRunner().invoke(app, ["lab", "down", "--all", "--name", names[0]])
    assert again.exit_code != 0
