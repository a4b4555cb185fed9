"""A lab leaves the machine as it was."""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deltaplane.errors import Conflict, NotFound, Refused
from lab import Lab, LabConfig, cgroups, lifecycle, netns, processes
from lab.layout import ROOT
from tests.e2e.conftest import fresh_name, run_command

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
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {}, policyTypes: [Ingress]}
"""

# Counters and clocks of the kernel, not settings.
VOLATILE = ("nf_conntrack_count", "/random/", "netdev_rss_key")

# Starting a lab may take its READY_SECONDS where the machine has much else to do.
pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True)
class Machine:
    """What a lab could leave behind."""

    namespaces: frozenset[str]
    links: str
    mounts: frozenset[str]
    pins: frozenset[str]
    files: frozenset[str]
    sysctls: frozenset[tuple[str, str]]


OF_A_LAB = re.compile(r"\bdp-([a-z0-9]+)-|deltaplane/([a-z0-9]+)")


def look(lab: str) -> Machine:
    """The machine without what belongs to other labs: they may come and go meanwhile."""
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True)
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    # Other tests may mount something in their own folder meanwhile.
    mounts = [mount for mount in mounts if mount.startswith(("/run", "/sys", "/proc"))]

    def ours(names: Iterable[str]) -> frozenset[str]:
        return frozenset(
            name
            for name in names
            if (found := OF_A_LAB.search(name)) is None or lab in found.groups()
        )

    return Machine(
        namespaces=ours(netns.names()),
        links=links.stdout,
        mounts=ours(mounts),
        pins=ours(map(str, Path("/sys/fs/bpf").rglob("*"))),
        files=ours(map(str, ROOT.rglob("*"))) if ROOT.exists() else frozenset(),
        sysctls=frozenset(read_sysctls()),
    )


def read_sysctls() -> Iterator[tuple[str, str]]:
    for folder, _, names in os.walk("/proc/sys/net"):
        for name in names:
            file = Path(folder, name)
            if not any(word in str(file) for word in VOLATILE):
                try:
                    yield str(file), file.read_text()
                except OSError:
                    continue


def commands(lab: str) -> Iterator[str]:
    """Processes that know the lab: every one of ours has its name in an argument."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if lab in line:
                    yield f"{entry.name} {line}"


@pytest.fixture
def name() -> Iterator[str]:
    chosen = fresh_name()
    yield chosen
    if chosen in lifecycle.labs():
        lifecycle.down(chosen)


def test_down_leaves_nothing(name: str, tmp_path: Path) -> None:
    file = tmp_path / "pair.yaml"
    file.write_text(PAIR)
    before = look(name)
    with Lab.up(LabConfig(name=name, nodes=2)) as lab:
        lab.wait_enforced(lab.apply([file]))
        # A shell that somebody forgot in a pod would keep its namespace alive.
        forgotten = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{lab.pod_namespace(lab.pods[0])}", "sleep", "1000"]
        )
    assert forgotten.wait(timeout=5) == -signal.SIGKILL

    assert look(name) == before
    assert list(commands(name)) == []
    groups = cgroups.root()
    assert groups is None or list(groups.glob(f"deltaplane-{name}-*")) == []


def test_a_lab_of_a_dead_supervisor_is_explained_and_cleaned_up(name: str) -> None:
    before = look(name)
    lab = Lab.up(LabConfig(name=name, nodes=1))
    lab.client.close()
    processes.send(lab.status().supervisor, signal.SIGKILL)
    lifecycle.await_gone([lab.status().supervisor], 5)

    with pytest.raises(Refused, match=rf"supervisor is dead.*deltaplane lab down --name {name}"):
        Lab.attach(name)
    with pytest.raises(Conflict, match=rf"left over.*deltaplane lab down --name {name}"):
        Lab.up(LabConfig(name=name, nodes=1))
    status = run_command("lab", "status", "--name", name)
    assert status.returncode == 1
    assert "supervisor is dead" in status.stderr

    assert run_command("lab", "down", "--name", name).returncode == 0
    assert look(name) == before
    assert list(commands(name)) == []


def test_a_lab_that_cannot_start_is_taken_away_again(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = look(name)
    monkeypatch.setattr(lifecycle, "READY_SECONDS", 0.0)

    with pytest.raises(Exception, match="did not come up"):
        Lab.up(LabConfig(name=name, nodes=1))

    assert look(name) == before
    assert list(commands(name)) == []


def test_a_name_in_use_is_refused_and_the_lab_goes_on(running_lab: Lab) -> None:
    with pytest.raises(Conflict, match="runs already"):
        Lab.up(LabConfig(name=running_lab.layout.lab, nodes=1))

    assert lifecycle.is_running(running_lab.layout)


def test_an_unknown_lab_is_named(name: str) -> None:
    with pytest.raises(NotFound, match=name):
        lifecycle.down(name)


def test_a_service_that_is_away_is_named_with_its_address(running_lab: Lab) -> None:
    lab = running_lab.layout.lab
    before = running_lab.status().processes["endpoints"]
    assert before.process is not None
    processes.send(before.process, signal.SIGSTOP)
    try:
        done = run_command("get", "pods", lab=lab)
    finally:
        processes.send(before.process, signal.SIGCONT)

    assert done.returncode == 3
    assert f"the endpoint registry at unix:/run/deltaplane/{lab}/run/endpoints.sock" in done.stderr
    assert "deltaplane lab status" in done.stderr


def test_namespaces_that_somebody_else_made_are_left_alone(name: str) -> None:
    foreign = f"dp-{name}-control"
    netns.create(foreign)
    try:
        with pytest.raises(Conflict, match=foreign):
            Lab.up(LabConfig(name=name, nodes=1))
        assert foreign in netns.names()
        assert name not in lifecycle.labs()
    finally:
        netns.delete(foreign)
