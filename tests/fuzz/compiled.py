"""C in one process with libFuzzer and sanitizers: thousands of inputs a second, by its coverage.

libFuzzer is what atheris brings along; where it or clang is missing, C is fuzzed from outside.
"""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).parents[2]
DRIVERS = Path(__file__).with_name("native")

SOURCES: Mapping[str, str] = MappingProxyType(
    {"shim": "nodeagent/cni/shim", "maglev": "nodeagent/services"}
)
"""By target: where the C code is that its driver includes."""

LIBFUZZER = "libclang_rt.fuzzer_no_main.a"
SANITIZERS = "-fsanitize=address,undefined"
LARGEST = 1 << 16
"""Bytes of an input."""


def archive() -> Path | None:
    """libFuzzer without a main function; None: it is not there, or no clang."""
    found = importlib.util.find_spec("atheris")
    if found is None or found.origin is None or shutil.which("clang") is None:
        return None
    path = Path(found.origin).parents[1] / LIBFUZZER
    return path if path.is_file() else None


def build(name: str, folder: Path, libfuzzer: Path) -> Path:
    """Compiles a driver with its code.

    Raises:
        CalledProcessError: it does not compile.
    """
    binary = folder / f"{name}-driver"
    unlinked = binary.with_suffix(".o")
    subprocess.run(
        [
            *("clang", "-g", "-O1", "-Wall", "-Wextra", "-Werror", SANITIZERS),
            # What stands for system calls does not look at all that they would.
            *("-Wno-unused-parameter", "-Wno-unused-but-set-variable"),
            *("-fno-sanitize-recover=all", "-fno-omit-frame-pointer"),
            "-fsanitize-coverage=inline-8bit-counters,pc-table,trace-cmp",
            *("-I", ROOT / SOURCES[name], "-c", DRIVERS / f"{name}_driver.c", "-o", unlinked),
        ],
        check=True,
    )
    # The run times of gcc: clang's are in a package of their own, and these speak alike.
    subprocess.run(["g++", SANITIZERS, unlinked, libfuzzer, "-o", binary], check=True)
    return binary


def run(name: str, folder: Path, libfuzzer: Path, arguments: list[str]) -> int:
    """Fuzzes; the exit code.

    Args:
        name: one of SOURCES.
        folder: for the program.
        libfuzzer: see `archive`.
        arguments: of libFuzzer.
    """
    binary = build(name, folder, libfuzzer)
    return subprocess.run([binary, *arguments], stdout=sys.stdout, check=False).returncode
