"""`python -m bench scale`, tiny: all ways of delivery really deliver."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NODES = 5
MODES = ("endpoint", "slice", "delta")


def run(*flags: str, out: Path) -> str:
    """The report on standard output."""
    # A group of its own: should the test be ended, all that it started goes as well.
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "scale", "-o", "json", "--out", str(out), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=150)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, stderr
    return stdout


@pytest.mark.timeout(180)
def test_every_mode_ends_with_what_etcd_has(tmp_path: Path) -> None:
    flags = ("--nodes", str(NODES), "--pods-per-node", "12", "--seconds", "1", "--startups", "2")
    loads = (
        "--load",
        "churn",
        "--load",
        "startup",
        "--load",
        "reconnect",
        "--load",
        "corruption",
        "--controls",
        "1",
        "--processes",
        "1",
    )
    report: dict[str, Any] = json.loads(run(*flags, *loads, "--span", "all", out=tmp_path))
    assert tuple(report["modes"]) == MODES
    for title, mode in report["modes"].items():
        verified = mode["verified"]
        assert (verified["agents"], verified["differences"]) == (NODES, 0), title
        assert verified["endpoints_held"] == NODES * verified["endpoints_stored"] > 0, title
        for load in ("churn", "churn_listed"):
            found = mode[load]
            assert found["changes"] > 0, title
            assert found["changes_not_seen"] == 0, title
            # All but the one on grpc.aio.
            assert found["applied"]["samples"] == found["changes"] * (NODES - 1), title
            assert found["control_applied"]["samples"] == found["changes"], title
            assert found["bytes_per_agent"] > 0, title
            assert found["server_cpu_ms"] > 0, title
        assert mode["startup"]["not_seen"] == 0, title
        assert mode["list"]["samples"] > 0, title
        assert mode["reconnect"]["snapshots"] == 0, title
    assert report["modes"]["delta"]["churn"]["acks_per_agent"] > 0
    corruption = report["modes"]["delta"]["corruption"]
    assert corruption["mended"] == corruption["spoiled"] == 1
    assert 1 <= corruption["buckets_replaced_at_most"] <= 2
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == report
