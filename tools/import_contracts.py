"""Checks who may import whom: turns [tool.deltaplane.imports] into import-linter contracts.

import-linter wants every module of a contract to exist, and a contract to name every module it
binds. The tree grows: so pyproject.toml states the rules by package, and this script spells them
out for the modules that are there. A module of a pure package is pure unless its name says
otherwise: a new file is bound without anyone having to remember it.

Usage: .venv/bin/python tools/import_contracts.py [--print]
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What [tool.deltaplane.imports] says; pyproject.toml explains each field."""

    roots: tuple[str, ...]
    pure: tuple[str, ...]
    impure_names: frozenset[str]
    pure_never_imports: tuple[str, ...]
    independent_children: tuple[str, ...]
    never: dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """One import-linter contract, all of its modules spelled out."""

    name: str
    fields: dict[str, object]

    def toml(self) -> str:
        """A [[tool.importlinter.contracts]] table; JSON strings, lists and booleans are TOML."""
        lines = [f"{key} = {json.dumps(value)}" for key, value in self.fields.items()]
        return "\n".join(
            ["[[tool.importlinter.contracts]]", f"name = {json.dumps(self.name)}", *lines, ""]
        )


def read_rules(pyproject: Path) -> Rules:
    """Reads the rules; a misspelt key is a KeyError."""
    table = tomllib.loads(pyproject.read_text())["tool"]["deltaplane"]["imports"]
    return Rules(
        roots=tuple(table["roots"]),
        pure=tuple(table["pure"]),
        impure_names=frozenset(table["impure-names"]),
        pure_never_imports=tuple(table["pure-never-imports"]),
        independent_children=tuple(table["independent-children"]),
        never={source: tuple(targets) for source, targets in table["never"].items()},
    )


def modules_in_tree(root: Path, packages: Iterable[str]) -> list[str]:
    """Dotted names of all modules under the packages that exist, sorted."""
    found = []
    for package in packages:
        for file in (root / package).rglob("*.py"):
            parts = file.relative_to(root).with_suffix("").parts
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(found)


def folders_without_marker(root: Path, packages: Iterable[str]) -> list[Path]:
    """Folders whose modules nobody would check: import-linter skips what lacks an __init__.py."""
    folders = {file.parent for package in packages for file in (root / package).rglob("*.py")}
    parents = {
        parent for folder in folders for parent in folder.parents if parent.is_relative_to(root)
    }
    return sorted(
        folder for folder in (folders | parents) - {root} if not (folder / "__init__.py").exists()
    )


def within(module: str, packages: Iterable[str]) -> bool:
    """Whether the module is one of the packages or lies in one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def forbidden(name: str, sources: list[str], targets: list[str]) -> Contract:
    """A contract that binds exactly these modules, also through what they import."""
    return Contract(
        name=name,
        fields={
            "type": "forbidden",
            "source_modules": sources,
            "forbidden_modules": targets,
            "as_packages": False,
        },
    )


def contracts(rules: Rules, modules: list[str]) -> list[Contract]:
    """The contracts that have something to bind among the modules."""

    def expand(names: Iterable[str]) -> list[str]:
        names = tuple(names)
        outside = [name for name in names if not within(name, rules.roots)]
        return outside + [module for module in modules if within(module, names)]

    pure = [
        module for module in expand(rules.pure) if rules.impure_names.isdisjoint(module.split("."))
    ]
    result = [
        forbidden(
            "Pure modules touch neither the outside world nor our shells",
            pure,
            expand(rules.pure_never_imports),
        )
    ]
    for source, targets in rules.never.items():
        bound = [module for module in expand([source]) if not within(module, targets)]
        name = f"{source} knows none of {', '.join(targets)}"
        result.append(forbidden(name, bound, expand(targets)))
    result = [c for c in result if c.fields["source_modules"] and c.fields["forbidden_modules"]]

    for parent in rules.independent_children:
        depth = parent.count(".") + 2
        children = sorted({".".join(m.split(".")[:depth]) for m in expand([parent])} - {parent})
        if len(children) > 1:
            fields: dict[str, object] = {"type": "independence", "modules": children}
            result.append(Contract(name=f"{parent}.* know each other by proto only", fields=fields))
    return result


def main() -> int:
    """Runs import-linter; returns its exit code, or 1 for a folder that it could not see."""
    rules = read_rules(ROOT / "pyproject.toml")
    modules = modules_in_tree(ROOT, rules.roots)
    if not modules:
        print("no package yet: nothing to check")
        return 0
    if unmarked := folders_without_marker(ROOT, rules.roots):
        for folder in unmarked:
            print(f"{folder.relative_to(ROOT)}/ holds modules but no __init__.py")
        return 1
    roots = sorted({module.split(".")[0] for module in modules})
    header = (
        "[tool.importlinter]\n"
        f"root_packages = {json.dumps(roots)}\n"
        "include_external_packages = true\n"
        "exclude_type_checking_imports = true\n\n"
    )
    config = header + "\n".join(contract.toml() for contract in contracts(rules, modules))
    if "--print" in sys.argv[1:]:
        print(config)
        return 0
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(config)
        file.flush()
        linter = Path(sys.executable).with_name("lint-imports")
        command = [str(linter), "--config", file.name, "--no-cache", "--no-logo"]
        return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
