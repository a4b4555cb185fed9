from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field, ValidationError

from deltaplane.runtime.config import ServiceConfig, load
from deltaplane.runtime.roles import Role
from deltaplane.runtime.tls import Tls


class Config(ServiceConfig):
    EXAMPLES: ClassVar[str] = "  python -m example --node-name n1 --listen unix:/run/x.sock"

    node_name: str = Field(description="who we are, 100% sure")
    pools: tuple[str, ...] = Field(default=(), description="which pools")
    mtu: int = Field(default=0, ge=0, description="bytes")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LISTEN", "ADMIN", "ETCD", "LOG_FORMAT", "LOG_LEVEL", "NODE_NAME", "POOLS", "MTU"):
        monkeypatch.delenv(f"DELTAPLANE_{name}", raising=False)


def mistakes(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    with pytest.raises(SystemExit) as stopped:
        load(Config, argv)
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()


def test_flags_may_be_repeated_or_joined_by_commas() -> None:
    config = load(
        Config,
        ["--node-name=n1", "--listen", "127.0.0.1:1", "--listen", "unix:/run/a", "--pools=a,b"],
    )
    assert config.node_name == "n1"
    assert config.listen == ("127.0.0.1:1", "unix:/run/a")
    assert config.pools == ("a", "b")
    assert config.etcd == ("127.0.0.1:2379",)


def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("node-name: file\nmtu: 1\nlog_level: debug\npools: [x, y]\n")
    monkeypatch.setenv("DELTAPLANE_MTU", "2")
    monkeypatch.setenv("DELTAPLANE_LOG_LEVEL", "error")
    monkeypatch.setenv("DELTAPLANE_ETCD", "10.0.0.1:1,10.0.0.2:2")

    config = load(Config, ["--config", str(file), "--mtu", "3"])

    assert (config.mtu, config.log_level, config.node_name) == (3, "error", "file")
    assert config.pools == ("x", "y")
    assert config.etcd == ("10.0.0.1:1", "10.0.0.2:2")


def test_all_mistakes_are_reported_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("nodename: typo\n")
    monkeypatch.setenv("DELTAPLANE_MTU", "-1")

    lines = mistakes(capsys, f"--config={file}", "--frobnicate", "--admin=nowhere", "--log-level=x")

    text = "\n".join(lines)
    assert len(lines) == 6, text
    for part in ("'--frobnicate'", "'nodename'", "--mtu (DELTAPLANE_MTU)", "--log-level"):
        assert part in text
    assert "--node-name (DELTAPLANE_NODE_NAME): is needed" in text
    assert "--admin (DELTAPLANE_ADMIN): 'nowhere' is neither host:port" in text


def test_one_bad_address_is_one_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(mistakes(capsys, "--node-name=n", "--listen=bad")) == 1


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [", "\x00"])
def test_a_file_that_is_no_mapping_is_a_mistake(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(content)
    assert str(file) in mistakes(capsys, "--node-name=n", f"--config={file}")[0]


def test_a_missing_file_and_a_missing_value_are_mistakes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "No such file" in mistakes(capsys, "--node-name=n", "--config=/none.yaml")[0]
    assert "expected one argument" in mistakes(capsys, "--node-name")[0]


def test_at_least_one_address_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--listen" in mistakes(capsys, "--node-name=n", "--listen=")[0]


def test_help_names_every_option_and_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        load(Config, ["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for option in ("--listen", "--admin", "--etcd", "--log-format", "--node-name", "--config"):
        assert option in text
    assert "python -m example --node-name n1" in text
    assert "100% sure" in text


def test_a_config_never_changes() -> None:
    config = Config(node_name="n")
    with pytest.raises(ValidationError):
        config.node_name = "other"


def test_plain_text_is_somebodys_decision(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DELTAPLANE_INSECURE")
    (line,) = mistakes(capsys, "--node-name=n")
    assert "--tls-dir (DELTAPLANE_TLS_DIR): is needed" in line
    assert "--insecure" in line
    assert mistakes(capsys, "--node-name=n", "--insecure=false") != []
    assert (
        "choose one" in mistakes(capsys, "--node-name=n", "--insecure", f"--tls-dir={tmp_path}")[0]
    )
    assert "is no folder" in mistakes(capsys, "--node-name=n", "--tls-dir=/nowhere")[0]

    plain = load(Config, ["--node-name=n", "--insecure"])
    assert plain.tls_to(Role.IPAM) is None
    assert load(Config, ["--insecure", "--node-name=n"]).node_name == "n"
    secure = load(Config, ["--node-name=n", "--tls-dir", str(tmp_path)])
    assert secure.tls_to(Role.IPAM) == Tls(tmp_path, Role.IPAM)
    monkeypatch.setenv("DELTAPLANE_INSECURE", "1")
    assert load(Config, ["--node-name=n"]).insecure
    assert "choose one" in mistakes(capsys, "--node-name=n", f"--tls-dir={tmp_path}")[0]
