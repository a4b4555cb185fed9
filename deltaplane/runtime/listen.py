"""Taking an address for ourselves, and saying clearly when somebody else has it.

A unix socket file outlives a killed process. It is replaced only when nobody answers on it; a lock
on the folder keeps two starting processes from both thinking so.
"""

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio

from deltaplane.errors import Refused
from deltaplane.runtime.address import Address, Tcp, Unix

_BACKLOG = 1024
_PROBE_SECONDS = 0.5


def bind_grpc(
    server: grpc.aio.Server, where: Address, credentials: grpc.ServerCredentials | None = None
) -> Address:
    """Makes a gRPC server listen; the address it really got. A unix socket has mode 0600.

    Args:
        server: not started yet.
        where: to listen.
        credentials: of the server; None: in plain text.

    Raises:
        Refused: the address cannot be had. The text names it.
    """
    with _claimed(where), _private(where):
        try:
            if credentials is None:
                port = server.add_insecure_port(str(where))
            else:
                port = server.add_secure_port(str(where), credentials)
        except RuntimeError as error:
            raise Refused(_cannot(where, _reason(where))) from error
    return Tcp(where.host, port) if isinstance(where, Tcp) else where


def bind_socket(where: Address) -> tuple[socket.socket, Address]:
    """A listening stream socket and the address it really got.

    Raises:
        Refused: the address cannot be had. The text names it.
    """
    with _claimed(where), _private(where):
        try:
            listener = _listen(where)
        except OSError as error:
            raise Refused(_cannot(where, error.strerror or str(error))) from error
    listener.setblocking(False)  # noqa: FBT003 - its only parameter
    if isinstance(where, Tcp):
        return listener, Tcp(where.host, int(listener.getsockname()[1]))
    return listener, where


def forget(where: Address) -> None:
    """Removes the file of a unix socket that we listened on, unless somebody else does by now."""
    if isinstance(where, Unix):
        with contextlib.suppress(OSError), _locked_folder(where.path):
            if _answer(where.path) == errno.ECONNREFUSED:
                os.unlink(where.path)  # noqa: PTH108 - the path is a text everywhere here


def answers(where: Address) -> bool:
    """Whether somebody accepts connections there."""
    if isinstance(where, Unix):
        return _answer(where.path) not in {errno.ENOENT, errno.ECONNREFUSED}
    try:
        socket.create_connection((where.host, where.port), timeout=_PROBE_SECONDS).close()
    except OSError:
        return False
    return True


def _listen(where: Address) -> socket.socket:
    if isinstance(where, Unix):
        family, target = socket.AF_UNIX, where.path
        listener = socket.socket(family, socket.SOCK_STREAM)
    else:
        found = socket.getaddrinfo(
            where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        target = found[4]  # type: ignore[assignment] # an address tuple of that family
        listener = socket.socket(found[0], socket.SOCK_STREAM)
        # Lets us come back while old connections linger; two listeners still exclude each other.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(target)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def _claimed(where: Address) -> Iterator[None]:
    """Keeps others from binding the same path, and clears away a dead socket file."""
    if isinstance(where, Tcp):
        yield
        return
    try:
        lock = _locked_folder(where.path)
        lock.__enter__()
    except OSError as error:
        folder = str(Path(where.path).parent)
        raise Refused(_cannot(where, f"{folder}: {error.strerror}")) from error
    with contextlib.ExitStack() as stack:
        stack.push(lock.__exit__)
        answer = _answer(where.path)
        if answer == errno.ECONNREFUSED and stat.S_ISSOCK(os.lstat(where.path).st_mode):
            os.unlink(where.path)  # noqa: PTH108 - the path is a text everywhere here
        elif answer == errno.ECONNREFUSED:
            raise Refused(_cannot(where, "the path exists and is no socket"))
        elif answer != errno.ENOENT:
            raise Refused(_cannot(where, "another process listens there"))
        yield


@contextlib.contextmanager
def _private(where: Address) -> Iterator[None]:
    """Lets a socket file be made that is its owner's only.

    The mask is the whole process's, for the moment of a bind: another thread's file would be too
    private for that moment, never too open.
    """
    if isinstance(where, Tcp):
        yield
        return
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def _locked_folder(path: str) -> Iterator[None]:
    folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Held for the moment of a bind only, so waiting for it does not stop the event loop for
        # long.
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _answer(path: str) -> int:
    """The errno of connecting: 0 somebody listens, ENOENT no file, ECONNREFUSED nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # noqa: FBT003 - its only parameter
        return probe.connect_ex(path)


def _reason(where: Address) -> str:
    """Why grpc could not bind; it tells only its log."""
    try:
        _listen(where).close()
    except OSError as error:
        return error.strerror or str(error)
    return "the address was taken for a moment, or is no address of this machine"


def _cannot(where: Address, reason: str) -> str:
    return f"cannot listen on {where}: {reason}"
