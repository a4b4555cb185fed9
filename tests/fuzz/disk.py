"""What a disk gives back that was torn, or written by somebody else: the agent's own files.

The first byte chooses the file: the journal as bytes, the journal with strange rows, the node's UID
or a spooled DEL.
"""

import asyncio
import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from deltaplane.errors import Conflict, Refused
from deltaplane.model.addresses import Prefix
from deltaplane.model.objects import PoolObject
from deltaplane.model.ports import Protocol
from nodeagent import statedir
from nodeagent.addressing import Progress
from nodeagent.cni.netconf import Attachment, HostPort, PodName
from nodeagent.cni.spool import Spool
from nodeagent.journal import Journal
from nodeagent.pools import Request
from nodeagent.restoring import check, rebuild
from tests.fuzz.cni import CONFIG, request
from tests.fuzz.draw import Draw

LINEAGE = b"L" * 16
POOLS = (
    PoolObject(
        name="pods4",
        prefix=Prefix.parse("10.0.0.0/16"),
        block_length=30,
        reserved=(Prefix.parse("10.0.9.0/24"),),
    ),
    PoolObject(name="pods6", prefix=Prefix.parse("fd00::/96"), block_length=126),
)
POD = PodName(namespace="shop", name="web", uid="u")
BOTH = (Request(family=4, pools=("pods4",)), Request(family=6, pools=("pods6",)))
PORT = HostPort(host_address=bytes(4), protocol=Protocol.TCP, host_port=8080, container_port=80)

PAGE = 4096
VALUES = (
    *(0, 1, -1, 32, 33, 128, 129, 1 << 31, (1 << 63) - 1, 0.0, 1e308, "", "a", "é", "a" * 300),
    *("ready", "gone", "0/6/1/1", "a/b/c/d", "10.0.0.0/8", "10.0.0.1/8", "\0", " ", b"", b"\0"),
    *(bytes(4), b"\x0a\0\0\1", bytes(16), bytes(17), b"\xff" * 4, None),
)
COLUMNS = (
    "SELECT m.name, p.name FROM sqlite_master m, pragma_table_info(m.name) p WHERE m.type='table'"
)


class DiskTarget:
    """Every input begins with the files of an agent that has run."""

    def __init__(self) -> None:
        self._held = tempfile.TemporaryDirectory(prefix="dp-fuzz-", dir=_memory())
        self._folder = Path(self._held.name)
        self._journal, self._wal = _sound(self._folder / "sound")
        self._columns = _columns(self._folder / "sound" / "journal.db")
        self._loop = asyncio.new_event_loop()
        self._kinds: Sequence[Callable[[Draw], None]] = (
            self._torn,
            self._strange,
            self._uid,
            self._spooled,
        )

    def seeds(self) -> Sequence[bytes]:
        """Sound files, some damage to each, and decisions about rows."""
        torn = [
            bytes((0, wal, count)) + bytes(range(9 * count))
            for wal in (0, 1)
            for count in (0, 1, 3)
        ]
        rows = [
            bytes((1, 1, number)) + bytes(range(number, number + 6)) for number in range(0, 240, 5)
        ]
        uids = [b"\2" + text for text in (b"0af76519-16cd-43dd-8448-eb211c80319c\n", b"", b"\xff")]
        spooled = [b"\3" + request(command, CONFIG) for command in ("DEL", "ADD")]
        return [*torn, *rows, *uids, *spooled]

    def words(self) -> Sequence[bytes]:
        """None."""
        return ()

    def feed(self, data: bytes) -> None:
        """One start of an agent."""
        draw = Draw(data)
        folder = self._folder / "agent"
        folder.mkdir()
        try:
            draw.pick(self._kinds)(draw)
        finally:
            shutil.rmtree(folder)

    # --- the journal -----------------------------------------------------------------------------

    def _torn(self, draw: Draw) -> None:
        """Pages lost, cut off, taken from elsewhere; bytes changed."""
        path = self._folder / "agent" / "journal.db"
        has_wal = draw.one_in(2)
        data = bytearray(self._wal if has_wal else self._journal)
        for _ in range(draw.below(4)):
            _tear(data, draw)
        path.write_bytes(self._journal if has_wal else data)
        if has_wal:
            path.with_name("journal.db-wal").write_bytes(data)
        nothing = path.stat().st_size < 512  # for SQLite that is an empty file
        is_new = self._starts(path)
        assert not is_new or nothing or list(path.parent.glob("journal.db.damaged-*"))

    def _strange(self, draw: Draw) -> None:
        """Whole, but what it says is not what an agent has written."""
        path = self._folder / "agent" / "journal.db"
        path.write_bytes(self._journal)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            for _ in range(1 + draw.below(3)):
                table, column = draw.pick(self._columns)
                value = draw.pick(VALUES)
                with contextlib.suppress(sqlite3.Error):  # another type, or not unique
                    database.execute(f"UPDATE {table} SET {column} = ?", (value,))  # noqa: S608
            # One that says that it is new is another story.
            database.execute("UPDATE counters SET value = 0 WHERE name = 'new'")
            if draw.one_in(8):
                database.execute(f"PRAGMA user_version = {draw.below(6)}")
        self._starts(path)

    def _starts(self, path: Path) -> bool:
        """It opens, as it was or as a new one that says so, and what is done next lasts.

        True: it was a new one.
        """
        try:
            journal = Journal(path)
        except Conflict:
            return False  # a newer agent's, as far as anybody can tell
        try:
            check(journal.ledger)
            assert journal.next_ordinal() > max(journal.ledger.blocks, default=0)
            if is_new := journal.ledger.is_new:
                step = rebuild(journal.ledger, (), (), numbers=9, ordinals=9, revision=5, now=0)
                journal.apply(step)
            expected = journal.ledger
        finally:
            journal.close()
        with contextlib.closing(Journal(path)) as again:
            assert again.ledger.interfaces == expected.interfaces
            assert again.ledger.blocks.keys() == expected.blocks.keys()
            assert not again.ledger.is_new
        return is_new

    # --- small files -----------------------------------------------------------------------------

    def _uid(self, draw: Draw) -> None:
        folder = self._folder / "agent"
        (folder / statedir.UID_FILE).write_bytes(draw.rest())
        with contextlib.suppress(Refused):
            statedir.node_uid(folder)

    def _spooled(self, draw: Draw) -> None:
        """A DEL is replayed or dropped; either way the file is gone."""
        folder = self._folder / "agent" / "spool"
        retired: list[Attachment] = []

        async def retire(attachment: Attachment) -> None:
            retired.append(attachment)

        spool = Spool(folder, retire)
        file = folder / "1.del"
        file.write_bytes(draw.rest())
        file.chmod(0o600)
        self._loop.run_until_complete(spool.replay())
        assert len(retired) <= 1
        assert not file.exists()

    def close(self) -> None:
        """Removes the files."""
        self._loop.close()
        self._held.cleanup()


def _memory() -> Path | None:
    """A folder without a disk: every commit waits for the disk."""
    folder = Path("/dev/shm")
    return folder if folder.is_dir() else None


def _sound(folder: Path) -> tuple[bytes, bytes]:
    """A journal with something in every table, and the write-ahead log of a later commit."""
    folder.mkdir()
    path = folder / "journal.db"
    with contextlib.closing(Journal(path)) as journal:
        journal.apply(rebuild(journal.ledger, (), (), numbers=1, ordinals=1, revision=1, now=0))
        journal.learn_pools([(pool, 1) for pool in POOLS], lineage=LINEAGE, revision=1)
        journal.add_block(2, "pods4", Prefix.parse("10.0.0.0/30"), usable_after=2, lineage=LINEAGE)
        journal.add_block(3, "pods6", Prefix.parse("fd00::/126"))
        journal.add_block(4, "pods4", Prefix.parse("10.0.4.1/32"), fixed=True)
        at = Progress(lineage=LINEAGE, head=5, watermark=5, strict=5)
        journal.observe(at, frozenset(), 0)
        numbers = [_begin(journal, name) for name in "abc"]
        journal.commit(numbers[0])
        journal.retire(numbers[1])
        journal.erase(numbers[1], revision=6, lineage=LINEAGE, now=5)
        journal.record_sysctls({"net.ipv4.ip_forward": "0"})
    whole = path.read_bytes()
    with contextlib.closing(Journal(path)) as journal:
        journal.retire(numbers[2])
        log = path.with_name("journal.db-wal").read_bytes()
    path.write_bytes(whole)
    return whole, log


def _begin(journal: Journal, name: str) -> int:
    attachment = Attachment(network="net", container_id=name, ifname="eth0")
    begun = journal.begin(
        attachment, attempt=name, pod=POD, requests=BOTH, host_ports=(PORT,) if name == "a" else ()
    )
    return begun.record.number


def _columns(path: Path) -> tuple[tuple[str, str], ...]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return tuple(database.execute(COLUMNS))


def _tear(data: bytearray, draw: Draw) -> None:
    at = int.from_bytes(draw.take(3)) % (len(data) or 1)
    page = at // PAGE * PAGE
    match draw.below(7):
        case 0:
            del data[at:]
        case 1:
            del data[page:]
        case 2:
            data[page : page + PAGE] = bytes(min(PAGE, len(data) - page))
        case 3:
            data[page : page + PAGE] = data[:PAGE]
        case 4:
            data[at : at + 1] = draw.take(1)
        case 5:
            data[at % 100 : at % 100 + 1] = draw.take(1)  # of the header
        case _:
            data[at : at + 8] = draw.take(8)
