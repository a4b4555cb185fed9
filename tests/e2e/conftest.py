import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deltaplane.manifest import NamespaceManifest
from deltaplane.v1 import registry_pb2
from lab import Lab, LabConfig
from lab.cluster import TLS_VARIABLE
from lab.manifests import Manifests
from tests.e2e.outside import STRANGER, make_world

ROOT = Path(__file__).parents[2]
SHOP = ROOT / "examples/shop.yaml"
SERVICES = Path(__file__).with_name("services.yaml")

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def fresh_name() -> str:
    """Two runs on one machine do not meet."""
    return f"t{secrets.token_hex(4)}"


def run_command(
    *arguments: str, lab: str = "", stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    """The `deltaplane` command as a user runs it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DELTAPLANE_")}
    return subprocess.run(
        [Path(sys.executable).with_name("deltaplane"), *arguments],
        env={
            **environment,
            "DELTAPLANE_LAB": lab,
            TLS_VARIABLE: os.environ.get(TLS_VARIABLE, ""),
        },
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="session")
def running_lab() -> Iterator[Lab]:
    """One lab for every test that leaves it empty: starting one takes seconds."""
    with Lab.up(LabConfig(name=fresh_name(), nodes=3)) as lab:
        yield lab


ROUTINGS = ("native", "vxlan") if os.environ.get("DELTAPLANE_MODES") == "every" else ("native",)
"""Of the labs with services. In short, packets to services in a tunnel are in test_routing."""


@pytest.fixture(scope="session", params=ROUTINGS)
def services_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Two nodes in two zones with services.yaml, and two hosts outside; tests leave it so."""
    config = LabConfig(name=fresh_name(), nodes=2, zones=2, routing=request.param)
    with Lab.up(config) as lab:
        lab.wait_enforced(lab.apply([SERVICES]))
        make_world(lab)
        make_world(lab, "stranger", STRANGER)
        yield lab


@pytest.fixture
def lab(running_lab: Lab) -> Iterator[Lab]:
    """The lab, and afterwards without namespaces, pods and policies."""
    yield running_lab
    empty(running_lab)


@pytest.fixture
def command(lab: Lab) -> Command:
    """The `deltaplane` command on the lab."""
    return command_of(lab)


def command_of(lab: Lab) -> Command:
    """The `deltaplane` command on a lab."""

    def run(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return run_command(*arguments, lab=lab.layout.lab, stdin=stdin)

    return run


def empty(lab: Lab) -> None:
    """Removes everything that was applied."""
    known = lab.client.registry.ListNamespaces(registry_pb2.ListNamespacesRequest()).namespaces
    names = {item.name for item in known} | {pod.namespace for pod in lab.pods}
    namespaces = tuple(NamespaceManifest(name=name) for name in sorted(names))
    gone = lab.delete(Manifests(namespaces=namespaces, policies=lab.policies()))
    if gone.revision:
        lab.wait_enforced(gone)
