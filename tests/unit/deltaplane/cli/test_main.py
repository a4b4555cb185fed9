import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaplane.cli.main import GLOBAL_OPTIONS, hoist
from tests.unit.deltaplane.cli.conftest import Run


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        (["get", "nodes", "--lab", "x"], ["--lab", "x", "get", "nodes"]),
        (["get", "nodes", "--lab=x", "-o", "json"], ["--lab=x", "get", "nodes", "-o", "json"]),
        (["--ipam", "i:1", "get", "pools"], ["--ipam", "i:1", "get", "pools"]),
        (
            ["lab", "exec", "p", "--", "c", "--lab", "x"],
            ["lab", "exec", "p", "--", "c", "--lab", "x"],
        ),
        (["get", "nodes", "--lab"], ["--lab", "get", "nodes"]),
        (["get", "nodes", "--tls-dir", "d"], ["--tls-dir", "d", "get", "nodes"]),
        (["get", "--insecure", "nodes"], ["--insecure", "get", "nodes"]),
    ],
)
def test_common_options_may_stand_anywhere_before_two_dashes(
    typed: list[str], parsed: list[str]
) -> None:
    assert hoist(typed) == parsed


@given(st.lists(st.sampled_from([*GLOBAL_OPTIONS, "get", "x", "--", "-o", "--lab=y"])))
def test_no_argument_gets_lost_and_hoisting_twice_changes_nothing(arguments: list[str]) -> None:
    assert sorted(hoist(arguments)) == sorted(arguments)
    assert hoist(hoist(arguments)) == hoist(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        *(["lab", name] for name in ("up", "down", "apply", "probe", "exec", "logs", "status")),
        *(["get", name] for name in ("nodes", "policy", "receipts", "services", "endpointslices")),
        *(["certs", name] for name in ("init", "issue", "show")),
        ["policy", "apply"],
        ["describe", "pod"],
        ["describe", "service"],
        ["service", "delete"],
        ["service", "trace"],
        ["status"],
        ["demo"],
    ],
)
def test_every_command_explains_itself(command: Run, arguments: list[str]) -> None:
    done = command(*arguments, "--help")

    assert done.code == 0
    assert "Usage: deltaplane" in done.out


def test_wrong_usage_has_its_own_exit_code(command: Run) -> None:
    assert command("get", "nonsense").code == 2
    assert command("policy", "apply").code == 2


def test_a_shell_gets_its_completion(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")

    done = command("--show-completion", "bash")

    assert done.code == 0
    assert "_DELTAPLANE_COMPLETE" in done.out


@pytest.mark.parametrize("arguments", [["--help"], ["lab", "--help"]])
def test_help_loads_neither_grpc_nor_the_lab_nor_colours(arguments: list[str]) -> None:
    """Those cost half a second, which a person waits for at every completion."""
    code = (
        "import sys; from deltaplane.cli.main import app; "
        "app(sys.argv[1:], standalone_mode=False); "
        "heavy = {'grpc', 'lab', 'rich', 'yaml', 'google.protobuf'} & set(sys.modules); "
        "sys.exit(str(sorted(heavy)) if heavy else 0)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: " in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--lab", "absent", "lab", "probe"],
        ["lab", "status", "--lab", "absent"],
        ["lab", "down", "--name", "absent"],
    ],
)
def test_lab_commands_take_the_lab_from_either_option(command: Run, arguments: list[str]) -> None:
    done = command(*arguments)

    assert done.code == 1
    assert "absent" in done.err
