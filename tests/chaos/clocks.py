"""Wall clocks of single processes, put forward and back; see jump.c."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_name("jump.c")
FOLDER_VARIABLE = "CHAOS_CLOCKS"


def build(folder: Path) -> Path:
    """Compiles the library that is preloaded."""
    library = folder / "jump.so"
    subprocess.run(
        ["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", SOURCE, "-o", library, "-ldl"],
        check=True,
    )
    return library


@contextmanager
def movable(folder: Path) -> Iterator[None]:
    """Processes that are started inside the block have clocks that `jump` moves."""
    wanted = {"LD_PRELOAD": str(build(folder)), FOLDER_VARIABLE: str(folder)}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def jump(folder: Path, pid: int, seconds: float) -> None:
    """Moves the clock of a process, on top of what was done to it before.

    Raises:
        FileNotFoundError: its clock is not movable, or it has not started yet.
    """
    file = folder / str(pid)
    if not file.exists():
        raise FileNotFoundError(file)
    with file.open("r+b") as opened:
        before = int.from_bytes(opened.read(8), "little", signed=True)
        opened.seek(0)
        opened.write((before + round(seconds * 1e9)).to_bytes(8, "little", signed=True))
