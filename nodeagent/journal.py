"""What this node must not forget: its interfaces, its blocks, its pools, the addresses that wait.

One SQLite file under a `nodeagent.ledger.Ledger`. An interface is written before anything else
happens for it and erased after everything about it is undone, so a restart at any line finds every
link, address and registration that may exist. A damaged file is moved aside, and the new one says
that it is new.

Every method is one transaction and durable when it returns (WAL, synchronous=FULL). Memory is a
view: it changes after the commit, and as a whole, so that other threads may read it. Blocking, 0.1
ms and the disk's flush; calls come from one thread at a time.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from deltaplane.model.addresses import Prefix
from deltaplane.model.objects import PoolObject
from deltaplane.runtime import log
from nodeagent import ledger as core
from nodeagent import schema
from nodeagent.addressing import Block, Progress
from nodeagent.cni.netconf import Attachment, HostPort, PodName
from nodeagent.entries import Begun, InterfaceRecord, Ledger, State, Step
from nodeagent.pools import Request

__all__ = ["InterfaceRecord", "Journal", "State"]

LOG_PAGES = 100
"""Of 4 KiB: what SQLite's log holds before it goes into the file; its own choice is 1,000. On a
full disk nothing is written, so the log never shrinks: it must not be what fills it."""


class Journal:
    """The file and the view of it.

    Attributes:
        ledger: what the file says.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._database, self.ledger = _open(path)
        except _Damaged as damage:
            kept = _move_aside(path)
            log.get().error("journal_damaged", reason=str(damage), kept=str(kept))
            self._database, self.ledger = _open(path)

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    @property
    def interfaces(self) -> Mapping[int, InterfaceRecord]:
        """All interfaces by number."""
        return self.ledger.interfaces

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks, oldest first."""
        return tuple(self.ledger.blocks.values())

    def find(self, attachment: Attachment) -> InterfaceRecord | None:
        """The interface of an attachment that is not being released, or None."""
        return self.ledger.find(attachment)

    def next_ordinal(self) -> int:
        """Ordinal of the next block to claim: the same until that block is added."""
        return self.ledger.last_ordinal + 1

    def apply(self, step: Step) -> None:
        """Makes a step from the present ledger durable, then takes it."""
        if step.writes:
            with _Transaction(self._database):
                for change in step.writes:
                    schema.write(self._database.execute, change)
        self.ledger = step.ledger

    # --- steps; see nodeagent.ledger
    # ----------------------------------------------------------------------

    def begin(
        self,
        attachment: Attachment,
        *,
        attempt: str,
        pod: PodName,
        requests: Iterable[Request],
        host_ports: tuple[HostPort, ...] = (),
    ) -> Begun:
        """Opens an interface. Raises Conflict and Exhausted."""
        begun = core.begin(
            self.ledger,
            attachment,
            attempt=attempt,
            pod=pod,
            requests=requests,
            host_ports=host_ports,
        )
        self.apply(begun.step)
        return begun

    def commit(self, number: int) -> None:
        """The interface works."""
        self.apply(core.commit(self.ledger, number))

    def retire(self, number: int) -> None:
        """The interface is to go; frees its attachment at once."""
        self.apply(core.retire(self.ledger, number))

    def lose(self, number: int) -> None:
        """Its addresses are not this node's any more."""
        self.apply(core.lose(self.ledger, number))

    def erase(self, number: int, *, revision: int, lineage: bytes, now: float) -> None:
        """Forgets an interface and lets its addresses wait."""
        self.apply(core.erase(self.ledger, number, revision=revision, lineage=lineage, now=now))

    def add_block(
        self,
        ordinal: int,
        pool: str,
        prefix: Prefix,
        *,
        fixed: bool = False,
        usable_after: int = 0,
        lineage: bytes = b"",
        now: float = 0.0,
    ) -> None:
        """Takes over a claimed block."""
        self.apply(
            core.add_block(
                self.ledger,
                ordinal,
                pool,
                prefix,
                fixed=fixed,
                usable_after=usable_after,
                lineage=lineage,
                now=now,
            )
        )

    def release_block(self, ordinal: int) -> None:
        """Nothing is handed out of a block any more. Raises Conflict: it is in use."""
        self.apply(core.release_block(self.ledger, ordinal))

    def drop_block(self, ordinal: int) -> None:
        """Forgets a block."""
        self.apply(core.drop_block(self.ledger, ordinal))

    def learn_pools(
        self,
        listed: Iterable[tuple[PoolObject, int]],
        *,
        lineage: bytes,
        revision: int,
        replace_all: bool = False,
    ) -> None:
        """Takes over a list of all pools."""
        self.apply(
            core.learn_pools(
                self.ledger, listed, lineage=lineage, revision=revision, replace_all=replace_all
            )
        )

    def observe(self, progress: Progress, foreign: frozenset[bytes], now: float) -> None:
        """Takes a barrier in."""
        self.apply(core.observe(self.ledger, progress, foreign, now))

    # --- settings of the node --------------------------------------------------------------------

    def record_sysctls(self, before: Mapping[str, str]) -> None:
        """Remembers what settings were; the first record of a name stays."""
        with _Transaction(self._database):
            self._database.executemany(
                "INSERT OR IGNORE INTO sysctls VALUES (?, ?)", list(before.items())
            )

    def recorded_sysctls(self) -> dict[str, str]:
        """Settings as they were before the agent changed them."""
        return dict(self._database.execute("SELECT name, value FROM sysctls"))

    def forget_sysctls(self) -> None:
        """After they were restored."""
        self._database.execute("DELETE FROM sysctls")


class _Damaged(Exception):
    """The file is no journal, or one that contradicts itself."""


_NO_DAMAGE = frozenset(
    {
        *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM),
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL),
        *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY),
    }
)
"""SQLite's codes of what passes, or a person must mend: the disk, locks, rights.

All others are about what is in the file, such as a schema that is not what its version says.
"""


def _open(path: Path) -> tuple[sqlite3.Connection, Ledger]:
    """Raises _Damaged, or Conflict: the file is a newer agent's."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        database.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
            f" PRAGMA wal_autocheckpoint={LOG_PAGES};"
        )
        _check(database)
        # Of an agent that was killed: where the disk is full, this may be what fills it.
        with contextlib.suppress(sqlite3.OperationalError):
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        schema.migrate(database)
        return database, schema.read(database)
    except BaseException as error:
        database.close()
        if isinstance(error, sqlite3.Error):
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _NO_DAMAGE:
                raise _Damaged(str(error)) from error
        elif isinstance(error, ValueError | KeyError | TypeError):
            raise _Damaged(f"its rows contradict each other: {error}") from error
        raise


def _check(database: sqlite3.Connection) -> None:
    (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _Damaged(verdict)


def _move_aside(path: Path) -> Path:
    """Keeps a damaged file, with what belongs to it, for people; where it is now."""
    number = 1
    while (kept := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(kept.with_name(kept.name + suffix))
    return kept


class _Transaction:
    """BEGIN IMMEDIATE … COMMIT, or ROLLBACK."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._database.execute("COMMIT")
        finally:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
