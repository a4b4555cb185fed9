"""`deltaplane doctor` and `deltaplane bundle` on a lab that is well, and on one that is not."""

import json
import signal
import tarfile
from pathlib import Path

import pytest

from lab import Lab, processes
from tests.e2e.conftest import Command

# Starting a lab may take long where the machine has much else to do.
pytestmark = pytest.mark.timeout(240)


def test_a_lab_that_is_well_is_told_so_and_one_that_is_not_is_told_why(
    lab: Lab, command: Command
) -> None:
    done = command("doctor", "-o", "json")
    verdicts = json.loads(done.stdout)

    assert done.returncode == 0, done.stdout + done.stderr
    assert {item["check"] for item in verdicts} >= {
        "kernel",
        "time",
        "slicer",
        "addresses",
        "clock",
    }
    assert {item["about"] for item in verdicts} >= {"cluster", "node-1", "node-2", "node-3"}

    ipam = lab.status().processes["ipam"].process
    assert ipam is not None
    processes.send(ipam, signal.SIGSTOP)
    try:
        done = command("doctor", "-o", "json")
    finally:
        processes.send(ipam, signal.SIGCONT)
    assert done.returncode == 1
    ill = [item for item in json.loads(done.stdout) if item["health"] == "ill"]
    assert any(item["check"] == "ipam" for item in ill)
    assert all(item["advice"] for item in ill)


def test_a_bundle_of_a_lab_has_its_logs_and_metrics_and_no_key(
    lab: Lab, command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "bundle.tar.gz"
    with lab.layout.log("supervisor").open("a") as log:
        log.write('{"event": "planted", "password": "hunter2"}\n')
    keys = [path.read_text().splitlines()[1] for path in lab.layout.folder.rglob("*.key")]

    done = command("bundle", "--out", str(file))

    assert done.returncode == 0, done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as tar:
        texts = {
            entry.name.removeprefix("deltaplane-bundle/"): inner.read().decode()
            for entry in tar.getmembers()
            if (inner := tar.extractfile(entry)) is not None
        }
    assert "errors.txt" not in texts, texts["errors.txt"]
    wanted = {
        "versions.json",
        "doctor.json",
        "nodes.json",
        "metrics/slicer.txt",
        "nodes/node-1/counters.json",
    }
    assert texts.keys() >= {*wanted, "logs/slicer.log", "logs/agent-node-1.log", "logs/lab.json"}
    assert "# TYPE" in texts["metrics/slicer.txt"]
    assert "planted" in texts["logs/supervisor.log"]
    for secret in ("hunter2", "PRIVATE KEY", *keys):
        assert not any(secret in text for text in texts.values()), secret
