"""Work inside a pod's network namespace, from a thread that goes there and comes back."""

import ctypes
import errno
import fcntl
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

CLONE_NEWNET = 0x40000000
NS_GET_NSTYPE = 0xB703
"""ioctl of linux/nsfs.h."""

SO_NETNS_COOKIE = 71
"""Of asm-generic/socket.h."""

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.setns.restype = ctypes.c_int


def enter(descriptor: int) -> None:
    """Moves the calling thread, and threads that it starts later, to a network namespace.

    Raises:
        OSError: EINVAL when the descriptor is no network namespace.
    """
    if _libc.setns(descriptor, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter the network namespace: {os.strerror(number)}")


def enter_path(path: Path) -> None:
    """Moves the calling thread to the network namespace that a path names."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(descriptor)
    finally:
        os.close(descriptor)


def leave() -> None:
    """Puts the calling thread into a network namespace of its own, which ends with it.

    Raises:
        OSError: no privilege.
    """
    if _libc.unshare(CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot make a network namespace: {os.strerror(number)}")


def own() -> int:
    """A descriptor of the calling thread's network namespace; the caller closes it."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def cookie() -> int:
    """Number of the calling thread's network namespace, as BPF programs see it.

    0: Linux is older than 5.14 and does not say.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            raw = any_socket.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT:
                raise
            return 0
    return int.from_bytes(raw, sys.byteorder)


def is_network_namespace(descriptor: int) -> bool:
    """Whether a descriptor is a network namespace."""
    try:
        return fcntl.ioctl(descriptor, NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.EBADF):
            return False
        raise


def same(first: int, second: int) -> bool:
    """Whether two descriptors are the same namespace."""
    return os.path.sameopenfile(first, second)


def inside(descriptor: int, home: int, work: Callable[[], T]) -> T:
    """Runs work in a namespace and returns to home; 60 microseconds both ways.

    A thread that cannot come back must not be used again: the error that says so ends the process.
    """
    enter(descriptor)
    try:
        return work()
    finally:
        try:
            enter(home)
        except OSError as error:
            raise SystemExit(f"lost in a pod's network namespace: {error}") from error
