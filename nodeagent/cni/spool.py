"""DELs that the shim remembered while nobody listened on the agent's socket.

Each file is a request as `protocol.encode_request` makes it (shim/spool.h writes it). The shim has
told the runtime that the interface is gone, so it must be gone before the same attachment may come
again: the agent replays at its start, before every ADD, and every few seconds for a shim that was
late.
"""

import asyncio
import os
import sqlite3
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

from deltaplane.runtime import log
from nodeagent.cni import netconf, protocol
from nodeagent.cni.netconf import Attachment
from nodeagent.cni.result import CniError

REPLAY_SECONDS = 5.0
"""Between looks at the directory without an ADD."""

MAX_FILE_BYTES = 1 << 16
"""SPOOL_MAX_BYTES of the shim."""

Retire = Callable[[Attachment], Awaitable[None]]
"""Makes durable that an interface is to go; an unknown one is fine."""


class Spool:
    """One directory, mode 0700."""

    def __init__(self, directory: Path, retire: Retire) -> None:
        self._directory = directory
        self._retire = retire
        self._turn = asyncio.Lock()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for draft in directory.glob(".*.del"):
            # Of a shim that was killed; one that is still at it fails and says "try again".
            draft.unlink(missing_ok=True)

    async def replay(self) -> None:
        """Takes over what is there.

        A file stays until its interface is retired. Listing blocks for some microseconds: the
        directory is almost always empty.
        """
        async with self._turn:
            for path in self._pending():
                try:
                    attachment = _read(path)
                    await self._retire(attachment)
                except (protocol.ProtocolError, CniError) as error:
                    log.get().error("spooled_delete_dropped", file=path.name, reason=str(error))
                except (OSError, sqlite3.Error) as error:
                    log.get().warning("spooled_delete_kept", file=path.name, reason=str(error))
                    continue
                else:
                    log.get().info("spooled_delete_replayed", attachment=str(attachment))
                path.unlink(missing_ok=True)

    async def run(self) -> None:
        """Looks now and then, for ever."""
        while True:
            await asyncio.sleep(REPLAY_SECONDS)
            await self.replay()

    def _pending(self) -> list[Path]:
        # A name that starts with a dot is a draft: its shim failed, or has not answered yet.
        return sorted(
            path for path in self._directory.glob("*.del") if not path.name.startswith(".")
        )


def _read(path: Path) -> Attachment:
    """Raises ProtocolError or CniError for what no shim of ours has written, OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_uid not in (0, os.geteuid()):
            raise protocol.ProtocolError("no regular file of root")
        if stat.S_IMODE(about.st_mode) & 0o022:
            raise protocol.ProtocolError("others could write it")
        if about.st_size > MAX_FILE_BYTES:
            raise protocol.ProtocolError(f"a file of {about.st_size} bytes")
        data = file.read(MAX_FILE_BYTES)
    size = protocol.LENGTH.size
    if len(data) < size or protocol.request_length(data[:size]) != len(data) - size:
        raise protocol.ProtocolError("the request is cut short")
    request = protocol.decode_request(data[size:])
    if request.command != "DEL":
        raise protocol.ProtocolError(f"a spooled {request.command}")
    return netconf.parse(request).attachment
