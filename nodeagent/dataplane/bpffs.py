"""The file system that pins live in."""

import ctypes
import os
from pathlib import Path

BPFFS = Path("/sys/fs/bpf")

_LIBC = ctypes.CDLL(None, use_errno=True)
_PRELOADED = frozenset({"maps.debug", "progs.debug"})
"""What the kernel itself puts into every bpffs when it is built with BPF_PRELOAD."""


def mount_types(mountinfo: str) -> dict[str, str]:
    """Mount point → type of the file system on top, from the text of a mountinfo file."""
    types = {}
    for line in mountinfo.splitlines():
        # id parent device root mount-point options … - type source options
        left, _, right = line.partition(" - ")
        types[left.split(" ")[4]] = right.split(" ")[0]
    return types


def _types() -> dict[str, str]:
    return mount_types(Path("/proc/self/mountinfo").read_text())


def is_mounted(path: Path = BPFFS) -> bool:
    """Whether a bpffs is mounted exactly there."""
    return _types().get(str(path.resolve())) == "bpf"


def type_around(path: Path) -> str | None:
    """Type of the file system that a path, which need not exist, lies in."""
    types = _types()
    absolute = path.resolve()
    around = next(p for p in (absolute, *absolute.parents) if str(p) in types or p == p.parent)
    return types.get(str(around))


def holds(path: Path) -> bool:
    """Whether a path, which need not exist, lies in a bpffs."""
    return type_around(path) == "bpf"


def ensure(path: Path = BPFFS) -> bool:
    """Mounts a bpffs if there is none; True if it did.

    Raises:
        OSError: no privilege, or no such folder.
    """
    if is_mounted(path):
        return False
    _check(_LIBC.mount(b"bpf", os.fsencode(path), b"bpf", 0, b"mode=0700"), path)
    return True


def release(path: Path = BPFFS) -> bool:
    """Unmounts what `ensure` has mounted, unless somebody's pins are in it; True if it did.

    Raises:
        OSError: no privilege, or in use.
    """
    if not is_mounted(path) or any(entry.name not in _PRELOADED for entry in path.iterdir()):
        return False
    _check(_LIBC.umount2(os.fsencode(path), 0), path)
    return True


def _check(result: int, path: Path) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))


def remove_pins(folder: Path) -> None:
    """Removes a folder of pins with all that is in it; an absent one does not matter.

    The maps live on as long as a program that is attached somewhere uses them.
    """
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            remove_pins(entry)
        else:
            entry.unlink()
    folder.rmdir()
