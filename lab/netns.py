"""Network namespaces by name, without `ip netns`.

`ip netns exec` remounts /sys and so hides bpffs and cgroup2; and a process per step is slow. Python
3.11 has no os.setns, hence ctypes. A namespace belongs to a thread: `entered` changes only the
calling one.
"""

import ctypes
import os
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deltaplane.errors import Internal

FOLDER = Path("/run/netns")

# From linux/sched.h and linux/mount.h.
CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.setns.argtypes = [ctypes.c_int, ctypes.c_int]
_libc.unshare.argtypes = [ctypes.c_int]
_libc.mount.argtypes = [
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: Path, kind: str, flags: int = 0, data: str = "") -> None:
    """Mounts a filesystem. data: options of its own kind, separated by commas.

    Raises:
        OSError: as the kernel says.
    """
    _check(
        _libc.mount(
            source.encode(), str(target).encode(), kind.encode(), flags, data.encode() or None
        ),
        f"mount {target}",
    )


def unmount(target: Path) -> None:
    """Calls umount2(2), detaching. Raises OSError."""
    _check(_libc.umount2(str(target).encode(), MNT_DETACH), f"umount {target}")


def path(name: str) -> Path:
    """Where the namespace is bound."""
    return FOLDER / name


def names() -> list[str]:
    """Names of all namespaces that are bound, ascending."""
    return sorted(entry.name for entry in FOLDER.iterdir()) if FOLDER.is_dir() else []


def create(name: str) -> None:
    """Makes a namespace with loopback down.

    Raises:
        OSError: it exists, or the kernel refuses.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    target = path(name)
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o444))
    failures: list[OSError] = []

    def in_thread() -> None:
        try:
            _check(_libc.unshare(CLONE_NEWNET), "unshare")
            mount("/proc/thread-self/ns/net", target, "none", MS_BIND)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=in_thread, name=f"make-{name}")
    thread.start()
    thread.join()
    if failures:
        target.unlink()
        raise failures[0]


def delete(name: str) -> None:
    """Unbinds a namespace; absent is fine. It ends when nothing uses it any more."""
    target = path(name)
    try:
        unmount(target)
    except FileNotFoundError:
        return
    except OSError:
        # Not a mount point: a file left by a creation that was cut short.
        pass
    target.unlink(missing_ok=True)


def enter(target: Path) -> None:
    """Puts the calling thread into the namespace for good.

    Raises:
        OSError: it does not exist.
    """
    descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(descriptor, CLONE_NEWNET), f"setns {target}")
    finally:
        os.close(descriptor)


@contextmanager
def entered(name: str) -> Iterator[None]:
    """The calling thread is in the namespace inside the block; what it opens there stays there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(path(name))
        try:
            yield
        finally:
            _check(_libc.setns(home, CLONE_NEWNET), "setns back")
    finally:
        os.close(home)


def write_sysctls(name: str, values: Iterable[tuple[str, str]]) -> None:
    """Sets files below /proc/sys inside a namespace."""
    with entered(name):
        for key, value in values:
            Path("/proc/sys", key).write_text(value)


def ip_batch(name: str, commands: Iterable[str]) -> None:
    """Runs `ip -batch` in a namespace.

    Raises:
        Internal: a command failed; the text is ip's.
    """
    result = subprocess.run(
        ["ip", "-netns", name, "-batch", "-"],
        input="\n".join(commands) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise Internal(f"ip in {name}: {result.stderr.strip()}") from None
