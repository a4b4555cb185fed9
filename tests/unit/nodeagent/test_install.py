import json
import stat
from pathlib import Path
from typing import Any

import pytest

from deltaplane.errors import Invalid
from nodeagent import install

CONFLIST = install.CONFIGURATION


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    built = tmp_path / "built"
    built.mkdir()
    (built / "deltaplane-cni").write_bytes(b"binary 1")
    monkeypatch.setattr(install, "BINARIES", (tmp_path / "absent", built))
    for folder in ("bin", "conf"):
        (tmp_path / folder).mkdir()
    return tmp_path


def run(node: Path, *more: str) -> int:
    return install.main(
        [f"--bin-dir={node / 'bin'}", f"--conf-dir={node / 'conf'}", *more],
    )


def types(node: Path) -> list[str]:
    content = json.loads((node / "conf" / CONFLIST).read_text())
    return [plugin["type"] for plugin in content["plugins"]]


def test_the_plugin_under_both_names_and_its_configuration(node: Path) -> None:
    (node / "bin/bandwidth").touch()
    assert run(node) == 0
    for name in ("deltaplane-cni", "deltaplane-ipam"):
        path = node / "bin" / name
        assert path.read_bytes() == b"binary 1"
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert types(node) == ["deltaplane-cni", "bandwidth"]
    assert {entry.name for entry in (node / "conf").iterdir()} == {CONFLIST}


def test_a_plugin_that_the_node_lacks_is_left_out(
    node: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(node) == 0
    assert types(node) == ["deltaplane-cni"]
    assert "bandwidth" in capsys.readouterr().err


def test_who_runs_the_old_plugin_keeps_it(node: Path) -> None:
    run(node)
    with (node / "bin/deltaplane-cni").open("rb") as running:
        (node / "built/deltaplane-cni").write_bytes(b"binary 2")
        assert run(node) == 0
        assert running.read() == b"binary 1"
    assert (node / "bin/deltaplane-cni").read_bytes() == b"binary 2"


def test_nothing_is_installed_without_the_plugin(node: Path) -> None:
    (node / "built/deltaplane-cni").unlink()
    assert run(node) == 1
    assert not list((node / "conf").iterdir())


def test_a_folder_that_is_not_there_is_named(
    node: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (node / "conf").rmdir()
    assert run(node) == 1
    assert str(node / "conf") in capsys.readouterr().err
    assert not list((node / "bin").iterdir())


def test_the_configuration_is_the_last_to_come_and_the_first_to_go(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    replace, unlink = Path.replace, Path.unlink

    def replacing(path: Path, target: Path) -> Path:
        order.append(target.name)
        return replace(path, target)

    def unlinking(path: Path, missing_ok: bool = False) -> None:
        order.append(path.name)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "replace", replacing)
    monkeypatch.setattr(Path, "unlink", unlinking)
    assert run(node) == 0
    assert order[-1] == CONFLIST
    order.clear()
    assert run(node, "--remove") == 0
    assert order[0] == CONFLIST
    assert not [*(node / "bin").iterdir(), *(node / "conf").iterdir()]
    assert run(node, "--remove") == 0, "a second time is fine"


@pytest.mark.parametrize("plugins", [None, [], [{"type": "bridge"}], "deltaplane-cni"])
def test_a_configuration_of_somebody_else_is_refused(plugins: Any) -> None:
    with pytest.raises(Invalid):
        install.adapted({"plugins": plugins}, frozenset())


def test_the_committed_configuration_is_one() -> None:
    template = json.loads((install.TREE / "deploy/cni" / CONFLIST).read_text())
    everything = frozenset(plugin["type"] for plugin in template["plugins"])
    assert install.adapted(template, everything) == template


def test_a_node_without_a_loopback_plugin_gets_ours_and_loses_it_again(node: Path) -> None:
    loopback = node / "bin/loopback"
    assert run(node) == 0
    assert loopback.read_bytes() == b"binary 1"
    (node / "built/deltaplane-cni").write_bytes(b"binary 2")
    assert run(node) == 0
    assert loopback.read_bytes() == b"binary 2"
    assert run(node, "--remove") == 0
    assert not loopback.exists()


def test_the_loopback_plugin_of_a_node_is_left_alone(node: Path) -> None:
    loopback = node / "bin/loopback"
    loopback.write_bytes(b"theirs")
    assert run(node) == 0
    assert run(node) == 0
    assert loopback.read_bytes() == b"theirs"
    assert run(node, "--remove") == 0
    assert loopback.read_bytes() == b"theirs"
