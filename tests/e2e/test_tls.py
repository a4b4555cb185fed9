"""A lab with certificates: the plane works, renews them while it does, and refuses who has none."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deltaplane.certs import files
from deltaplane.certs.issuing import Wanted
from deltaplane.cli.client import Client, Targets
from deltaplane.errors import Forbidden, Unavailable
from deltaplane.runtime.roles import Peer, Role
from deltaplane.v1 import ipam_pb2, registry_pb2
from lab import Lab, LabConfig, cluster, manifests
from lab.topology import PORTS
from tests.e2e.conftest import command_of, fresh_name

pytestmark = pytest.mark.timeout(240)

WORLD = """
apiVersion: v1
kind: Namespace
metadata: {name: sealed}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-one, namespace: sealed}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: sealed, labels: {app: server}}
spec:
  nodeName: node-1
  containers: [{name: c, image: i, ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: friend, namespace: sealed, labels: {app: friend}}
spec:
  nodeName: node-2
  containers: [{name: c, image: i, ports: [{containerPort: 8080}]}]
"""

STRANGER = """
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: sealed, labels: {app: stranger}}
spec:
  nodeName: node-2
  containers: [{name: c, image: i, ports: [{containerPort: 8080}]}]
"""


@pytest.fixture(scope="module")
def secured() -> Iterator[Lab]:
    with Lab.up(LabConfig(name=fresh_name(), nodes=2, tls=True)) as lab:
        yield lab


def apply(lab: Lab, text: str, folder: Path) -> None:
    file = folder / "world.yaml"
    file.write_text(text)
    lab.wait_enforced(lab.apply(manifests.read([file])))


def client(lab: Lab, peer: str | None) -> Client:
    """With somebody's certificate; None: in plain text."""
    found = cluster.targets(lab.layout)
    return Client(
        Targets(
            registry=found.registry,
            ipam=found.ipam,
            slicer=found.slicer,
            tls_dir=lab.layout.certificate(peer) if peer else None,
        )
    )


def test_pods_policies_and_the_command(secured: Lab, tmp_path: Path) -> None:
    apply(secured, WORLD, tmp_path)
    renew(secured)
    apply(secured, STRANGER, tmp_path)
    result = secured.probe()
    assert result.stable
    assert secured.contradictions(result) == ()
    assert 0 < result.allowed < len(result.rows)
    ask = command_of(secured)
    for words in (
        ("get", "nodes"),
        ("status",),
        ("ipam", "check"),
        ("policy", "status", "sealed/only-one"),
    ):
        done = ask(*words)
        assert done.returncode == 0, done.stderr


def renew(lab: Lab) -> None:
    """New certificates of the same CA for everybody, while all of them work."""
    ca = files.read_authority(lab.layout.authority)
    peers = [Peer(role) for role in Role if role is not Role.NODE]
    peers += [Peer(Role.NODE, node.name) for node in lab.topology.nodes]
    for peer in peers:
        files.make(ca, Wanted(peer=peer), lab.layout.certificate(str(peer)), force=True)


def test_who_has_no_certificate_or_the_wrong_one(secured: Lab) -> None:
    blocks = ipam_pb2.ListBlocksRequest(node="node-1")
    with client(secured, "node/node-1") as own, client(secured, "node/node-2") as other:
        assert own.ipam.ListBlocks(blocks).blocks
        with pytest.raises(Forbidden, match="node-2 asks about node-1"):
            other.ipam.ListBlocks(blocks)
        with pytest.raises(Forbidden):
            own.registry.ListPods(registry_pb2.ListPodsRequest())
    with client(secured, None) as plain, pytest.raises(Unavailable):
        plain.ipam.ListBlocks(blocks)


def test_an_agents_certificate_does_not_open_etcd(secured: Lab) -> None:
    def ask(peer: str) -> "subprocess.CompletedProcess[str]":
        program = (
            "import asyncio, sys\nfrom pathlib import Path\nimport deltaplane\n"
            "from deltaplane.runtime.roles import Role\nfrom deltaplane.runtime.tls import Tls\n"
            "from deltaplane.store.etcd import EtcdStore\n"
            "async def main():\n"
            f" store = EtcdStore(['127.0.0.1:{PORTS['etcd']}'],"
            " tls=Tls(Path(sys.argv[1]), Role.ETCD))\n"
            " print('head', await store.head())\n"
            "asyncio.run(main())\n"
        )
        inside = ("ip", "netns", "exec", secured.topology.control, sys.executable, "-c", program)
        return subprocess.run(
            [*inside, secured.layout.certificate(peer)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=Path(__file__).parents[2],
        )

    assert "head" in ask("slicer").stdout
    refused = ask("node/node-1")
    assert (refused.returncode, "does not answer" in refused.stderr) == (1, True), refused.stderr


def test_no_log_has_a_key_in_it(secured: Lab) -> None:
    keys = [
        path.read_text().splitlines()[1] for path in secured.layout.folder.glob("certs/**/*.key")
    ]
    assert len(keys) == 9
    for log in secured.layout.logs.iterdir():
        text = log.read_text(errors="replace")
        assert "PRIVATE KEY" not in text, log
        assert not any(key in text for key in keys), log
        if log.stem.startswith("agent") or log.stem in ("ipam", "endpoints", "slicer"):
            assert '"event": "serving"' in text, "it was looked at"
