"""The state directory: one agent at a time, and the node's UID."""

import fcntl
import os
import uuid
from pathlib import Path
from typing import IO

from deltaplane.errors import Refused

UID_FILE = "node.uid"
JOURNAL_FILE = "journal.db"
LOCK_FILE = "lock"


def lock(directory: Path) -> IO[bytes]:
    """Makes the directory if need be and takes it for this process until the file is closed.

    Raises:
        Refused: another agent runs on it.
        OSError: it cannot be made or written.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = (directory / LOCK_FILE).open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise Refused(f"another agent runs on {directory}") from None
    return file


def node_uid(directory: Path) -> str:
    """The node's UID; made at the first start, whole or not at all.

    Raises:
        Refused: the file holds no UID.
    """
    path = directory / UID_FILE
    if not path.exists():
        draft = path.with_suffix(".new")
        with draft.open("w") as file:
            file.write(f"{uuid.uuid4()}\n")
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        folder = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    try:
        return str(uuid.UUID(path.read_text().strip()))
    except ValueError:
        raise Refused(f"{path} holds no UID; restore it, or delete the node and the file") from None
