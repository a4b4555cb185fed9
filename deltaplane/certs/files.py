"""Certificates in folders: a CA's, and one for each process, as `deltaplane.runtime.tls` reads it.

    CA/ca.crt  ca.key            the CA; the key belongs on no node
    DIR/ca.crt tls.crt tls.key   a process's; or that of a CA for nodes, which belongs to the bridge

A file appears as a whole. Nothing is replaced unasked.
"""

import contextlib
import os
from pathlib import Path

from deltaplane.certs import issuing
from deltaplane.certs.issuing import Issued, Wanted
from deltaplane.errors import Conflict, NotFound
from deltaplane.runtime.tls import CA, CERTIFICATE, KEY

CA_KEY = "ca.key"


def make_authority(folder: Path, *, days: int = issuing.CA_DAYS, force: bool = False) -> Issued:
    """Makes a CA in a folder.

    Raises:
        Conflict: there is one.
        Invalid: days is out of range.
    """
    _check_free(folder, (CA, CA_KEY), force=force)
    made = issuing.authority(now=issuing.now(), days=days)
    write(folder, {CA_KEY: made.key, CA: made.certificate})
    return made


def read_authority(folder: Path) -> Issued:
    """The CA of a folder.

    Raises:
        NotFound: there is none.
    """
    try:
        return Issued(certificate=(folder / CA).read_bytes(), key=(folder / CA_KEY).read_bytes())
    except FileNotFoundError as error:
        raise NotFound(f"{error.filename} is not there: `deltaplane certs init {folder}`") from None


def make_node_authority(
    root: Issued, folder: Path, *, days: int = issuing.NODE_CA_DAYS, force: bool = False
) -> Issued:
    """Makes a CA for nodes in a folder.

    Raises:
        Conflict: there is one.
        Invalid: the CA is not usable, or days is out of range.
    """
    _check_free(folder, (CERTIFICATE, KEY), force=force)
    made = issuing.node_authority(root, now=issuing.now(), days=days)
    write(folder, {KEY: made.key, CA: root.certificate, CERTIFICATE: made.certificate})
    return made


def read_node_authority(folder: Path) -> Issued:
    """The CA for nodes of a folder.

    Raises:
        NotFound: there is none.
    """
    try:
        key = (folder / KEY).read_bytes()
        return Issued(certificate=(folder / CERTIFICATE).read_bytes(), key=key)
    except FileNotFoundError as error:
        raise NotFound(f"{error.filename} is not there: `deltaplane certs node-ca`") from None


def make(ca: Issued, wanted: Wanted, folder: Path, *, force: bool = False) -> Issued:
    """Makes a certificate in a folder.

    Raises:
        Conflict: there is one.
        Invalid: the CA is not usable.
    """
    _check_free(folder, (CERTIFICATE, KEY), force=force)
    made = issuing.issue(ca, wanted, now=issuing.now())
    # The certificate last: whoever watches it finds the key that belongs to it.
    write(folder, {KEY: made.key, CA: ca.certificate, CERTIFICATE: made.certificate})
    return made


def write(folder: Path, contents: dict[str, bytes]) -> None:
    """Writes files, each as a whole, keys for their owner only, in this order."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        fresh = folder / f".{name}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        mode = 0o600 if name.endswith(".key") else 0o644
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(folder / name)


def _check_free(folder: Path, names: tuple[str, ...], *, force: bool) -> None:
    there = [str(folder / name) for name in names if (folder / name).exists()]
    if there and not force:
        raise Conflict(f"{' and '.join(there)}: exists; --force replaces it")
