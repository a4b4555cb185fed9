"""What a lab needs from the machine; all that is missing at once, before anything is touched."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from deltaplane.errors import Refused
from lab import binaries, cgroups, store
from nodeagent.dataplane import preflight as dataplane

COMMANDS = {"ip": "iproute2"}
"""Command → Debian package."""


def missing() -> tuple[str, ...]:
    """What is missing and how to get it, one sentence each; empty when a lab can start."""
    return (*_dataplane(), *_programs())


def missing_in_memory() -> tuple[str, ...]:
    """The same, of a lab that carries no packets; empty when such a one can start."""
    return tuple(_etcd())


def require_in_memory() -> None:
    """Checks what a lab in memory needs.

    Raises:
        Refused: the message says what is missing.
    """
    for line in missing_in_memory():
        raise Refused(line)


def require() -> None:
    """Checks all.

    Raises:
        Refused: the message lists everything that is missing.
    """
    if lacks := missing():
        raise Refused(complaint(lacks))


def complaint(lacks: Sequence[str]) -> str:
    """One text of all that is missing. Pure."""
    lines = "\n".join(f"  - {line}" for line in lacks)
    return f"this machine cannot run a lab yet:\n{lines}"


def _dataplane() -> Iterator[str]:
    for item in dataplane.check():
        yield f"{item.what}: {item.how_to_get}"


def _programs() -> Iterator[str]:
    for command, package in COMMANDS.items():
        if shutil.which(command) is None:
            yield f"the command {command}: apt-get install {package}"
    try:
        binaries.plugin()
    except Refused as error:
        yield str(error)
    yield from _etcd()


def _etcd() -> Iterator[str]:
    try:
        store.etcd(Path("/nowhere"))
    except Refused as error:
        yield str(error)


def warnings() -> tuple[str, ...]:
    """What works, but not as in production; one sentence each."""
    return (*etcd_warnings(), *(() if cgroups.root() else (cgroups.MISSING,)))


def etcd_warnings() -> tuple[str, ...]:
    """What is to be said of the etcd that will run."""
    warning = store.etcd(Path("/nowhere")).warning
    return (warning,) if warning else ()
