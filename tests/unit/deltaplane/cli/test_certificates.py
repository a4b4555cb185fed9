"""`deltaplane certs`."""

import json
import stat
from pathlib import Path

import pytest

from deltaplane.certs import files
from deltaplane.runtime import tls
from tests.unit.deltaplane.cli.conftest import Run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_ca_a_certificate_and_what_they_say(command: Run, tmp_path: Path) -> None:
    ca, out = tmp_path / "ca", tmp_path / "out/n1"
    assert command("certs", "init", str(ca)).code == 0
    names = ("--dns", "worker-7.example", "--ip", "192.0.2.7", "--ip", "2001:db8::7")
    made = command(
        *("certs", "issue", str(ca), "node", "--node", "worker-7", "--out", str(out)),
        *(*names, "--days", "30", "-o", "json"),
    )
    assert made.code == 0, made.err
    record = json.loads(made.out)
    assert record["role"] == "node/worker-7"
    assert record["names"] == ["node.deltaplane", "worker-7.example", "192.0.2.7", "2001:db8::7"]
    assert record["days_left"] in (29, 30)
    assert tls.read(out).peer.node == "worker-7", "a process takes it"
    shown = command("certs", "show", str(ca), str(out), "-o", "json")
    assert [entry["role"] for entry in json.loads(shown.out)] == ["ca", "ca", "node/worker-7"]
    assert "PRIVATE" not in made.out + made.err + shown.out + shown.err

    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in (*ca.iterdir(), *out.iterdir())
    }
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "tls.crt": 0o644, "tls.key": 0o600}


def test_nothing_is_replaced_unasked(command: Run, tmp_path: Path) -> None:
    ca, out = tmp_path / "ca", tmp_path / "ipam"
    issue = ("certs", "issue", str(ca), "ipam", "--out", str(out))
    nodes = tmp_path / "nodes"
    node_ca = ("certs", "node-ca", str(ca), "--out", str(nodes))
    for arguments, folder in ((("certs", "init", str(ca)), ca), (issue, out), (node_ca, nodes)):
        assert command(*arguments).code == 0
        before = contents(folder)
        again = command(*arguments)
        assert again.code == 1
        assert "--force replaces it" in again.err
        assert contents(folder) == before
        if folder is not ca:
            assert command(*arguments, "--force").code == 0
            assert contents(folder)[tls.KEY] != before[tls.KEY]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("king",), "is none of"),
        (("node",), "a node is named"),
        (("ipam", "--node", "n1"), "a node is named"),
        (("ipam", "--dns", "slicer.deltaplane"), "follow from the role"),
        (("ipam", "--ip", "x"), "--ip"),
        (("ipam", "--days", "0"), "--days"),
    ],
)
def test_wrong_wishes(
    command: Run, tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    files.make_authority(tmp_path / "ca")
    out = tmp_path / "out"
    done = command("certs", "issue", str(tmp_path / "ca"), *arguments, "--out", str(out))
    assert done.code == 1
    assert reason in done.err
    assert not out.exists()


def test_without_a_ca_there_is_a_hint(command: Run, tmp_path: Path) -> None:
    done = command("certs", "issue", str(tmp_path), "ipam", "--out", str(tmp_path))
    assert (done.code, "deltaplane certs init" in done.err) == (1, True)
    assert command("certs", "show", str(tmp_path)).code == 1
