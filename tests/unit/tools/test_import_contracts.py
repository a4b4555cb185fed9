"""The rules of pyproject.toml bind every module that they mean, and those that come later."""

import tomllib
from pathlib import Path

import pytest

from tools import import_contracts
from tools.import_contracts import (
    ROOT,
    Contract,
    Rules,
    contracts,
    folders_without_marker,
    modules_in_tree,
    read_rules,
    within,
)

RULES = Rules(
    roots=("core", "apps"),
    pure=("core.logic", "apps"),
    impure_names=frozenset({"__main__", "servicer"}),
    pure_never_imports=("asyncio", "core.shell"),
    independent_children=("apps",),
    never={"core": ("apps", "core.cli"), "apps": ("core.cli",)},
)

PYPROJECT = """
[tool.deltaplane.imports]
roots = ["core", "apps"]
pure = ["core.logic", "apps"]
impure-names = ["__main__", "servicer"]
pure-never-imports = ["asyncio", "core.shell"]
independent-children = ["apps"]
[tool.deltaplane.imports.never]
"core" = ["apps", "core.cli"]
"apps" = ["core.cli"]
"""

MODULES = [
    "apps",
    "apps.billing",
    "apps.billing.servicer",
    "apps.billing.sums",
    "apps.mail",
    "apps.mail.__main__",
    "core",
    "core.cli",
    "core.cli.main",
    "core.client",
    "core.logic",
    "core.logic.slices",
    "core.shell",
    "core.shell.rpc",
]

FILES = {
    "pyproject.toml": PYPROJECT,
    **{f"{package}/__init__.py": "" for package in ("apps", "apps/billing", "apps/mail")},
    **{f"{package}/__init__.py": "" for package in ("core", "core/cli", "core/logic")},
    "core/shell/__init__.py": "",
    "apps/billing/sums.py": "import core.logic\n",
    "apps/billing/servicer.py": "import asyncio\n",
    "apps/mail/__main__.py": "import core.shell.rpc\n",
    "core/client.py": "import core.shell\n",
    "core/cli/main.py": "import core.client\n",
    "core/logic/slices.py": "import math\n",
    "core/shell/rpc.py": "import asyncio\n",
}
"""A tree that keeps to the rules; its modules are MODULES."""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small tree in which the script believes to be."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(import_contracts, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["import_contracts.py"])
    return tmp_path


def bound(modules: list[str], contract: str) -> dict[str, object]:
    """The fields of the one contract whose name has this in it."""
    (found,) = (item.fields for item in contracts(RULES, modules) if contract in item.name)
    return found


def test_the_tree_is_read_as_it_is(tree: Path) -> None:
    assert read_rules(tree / "pyproject.toml") == RULES
    assert modules_in_tree(tree, RULES.roots) == MODULES
    assert folders_without_marker(tree, RULES.roots) == []


def test_a_misspelt_key_is_an_error(tree: Path) -> None:
    pyproject = tree / "pyproject.toml"
    pyproject.write_text(PYPROJECT.replace("impure-names", "impure_names"))
    with pytest.raises(KeyError, match="impure-names"):
        read_rules(pyproject)


def test_within_means_the_package_and_not_its_namesakes() -> None:
    assert within("core.cli", ["core.cli"])
    assert within("core.cli.main", ["apps", "core.cli"])
    assert not within("core.client", ["core.cli"])
    assert not within("core", ["core.cli"])


def test_modules_of_pure_packages_are_pure_unless_their_name_says_otherwise() -> None:
    fields = bound(MODULES, "Pure modules")
    assert fields["source_modules"] == [
        "apps",
        "apps.billing",
        "apps.billing.sums",
        "apps.mail",
        "core.logic",
        "core.logic.slices",
    ]
    # Modules outside the tree are named once, ours with all that lies in them.
    assert fields["forbidden_modules"] == ["asyncio", "core.shell", "core.shell.rpc"]


def test_a_new_file_is_bound_without_a_new_rule() -> None:
    sources = bound([*MODULES, "core.logic.later"], "Pure modules")["source_modules"]
    assert isinstance(sources, list)
    assert "core.logic.later" in sources


def test_a_forbidden_part_of_a_package_is_not_bound_itself() -> None:
    fields = bound(MODULES, "core knows none of apps, core.cli")
    assert fields["source_modules"] == [
        "core",
        "core.client",
        "core.logic",
        "core.logic.slices",
        "core.shell",
        "core.shell.rpc",
    ]
    assert fields["forbidden_modules"] == [m for m in MODULES if within(m, ["apps", "core.cli"])]


def test_children_of_a_package_are_independent_as_whole_packages() -> None:
    assert bound(MODULES, "apps.* know each other")["modules"] == ["apps.billing", "apps.mail"]


def test_contracts_without_anything_to_bind_are_left_out() -> None:
    modules = ["apps", "apps.billing", "core", "core.shell"]
    assert [contract.name for contract in contracts(RULES, modules)] == [
        "Pure modules touch neither the outside world nor our shells",
        "core knows none of apps, core.cli",
    ]


def test_a_contract_is_written_as_toml() -> None:
    fields: dict[str, object] = {"type": "forbidden", "modules": ["a.b"], "as_packages": False}
    text = Contract(name='a "quoted" name', fields=fields).toml()
    (table,) = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    assert table == {"name": 'a "quoted" name', **fields}


def test_packages_without_marker_are_found_with_the_folders_above_them(tree: Path) -> None:
    (tree / "core/deep/deeper").mkdir(parents=True)
    (tree / "core/deep/deeper/module.py").touch()
    (tree / "core/data").mkdir()
    (tree / "core/data/table.json").touch()
    assert folders_without_marker(tree, RULES.roots) == [
        tree / "core/deep",
        tree / "core/deep/deeper",
    ]


@pytest.mark.parametrize(
    ("file", "text", "broken"),
    [
        ("core/logic/slices.py", "import asyncio\n", "Pure modules"),
        # Through a module that may.
        ("core/logic/slices.py", "import core.client\n", "Pure modules"),
        ("core/shell/rpc.py", "import apps.mail\n", "core knows none of apps"),
        ("apps/billing/servicer.py", "import apps.mail\n", "apps.* know each other"),
    ],
)
def test_the_linter_names_the_broken_rule(
    tree: Path, capfd: pytest.CaptureFixture[str], file: str, text: str, broken: str
) -> None:
    (tree / file).write_text(text)
    assert import_contracts.main() == 1
    assert f"{broken}" in capfd.readouterr().out.split("Broken contracts")[1]


def test_the_linter_accepts_a_tree_that_keeps_the_rules(
    tree: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert import_contracts.main() == 0
    assert "4 kept, 0 broken" in capfd.readouterr().out
    (tree / "core/data").mkdir()
    (tree / "core/data/module.py").touch()
    assert import_contracts.main() == 1
    assert "core/data/ holds modules but no __init__.py" in capfd.readouterr().out


def test_our_own_rules_name_what_exists() -> None:
    rules = read_rules(ROOT / "pyproject.toml")
    modules = modules_in_tree(ROOT, rules.roots)
    ours = [
        *rules.never,
        *rules.independent_children,
        *(n for t in rules.never.values() for n in t),
    ]
    assert [name for name in ours if name not in modules] == []
