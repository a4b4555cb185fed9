"""The tables of the journal, how older ones become these, and rows as values.

Version 1 had no pools and let addresses rest for 60 s by the wall clock. Its rows get revision 0 of
no lineage, which stands for "not known": they wait until a barrier gives them one.
"""

import sqlite3
from collections.abc import Callable
from typing import assert_never

from deltaplane.errors import Conflict
from deltaplane.model.addresses import AddressPair, Prefix
from deltaplane.model.objects import PoolObject
from deltaplane.model.ports import Protocol
from nodeagent import entries
from nodeagent.addressing import Block, Released
from nodeagent.cni.netconf import Attachment, HostPort, PodName
from nodeagent.entries import InterfaceRecord, Kind, Ledger, State
from nodeagent.pools import Pool
from nodeagent.restoring import restore

VERSION = 3

_VERSION_1 = """
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO counters VALUES ('endpoint', 0);
CREATE TABLE blocks (
    ordinal INTEGER PRIMARY KEY, pool TEXT NOT NULL, address BLOB NOT NULL, length INTEGER NOT NULL,
    fresh INTEGER NOT NULL, UNIQUE (address, length)) STRICT;
CREATE TABLE interfaces (
    number INTEGER PRIMARY KEY, state TEXT NOT NULL, network TEXT NOT NULL, container_id TEXT NOT
    NULL, ifname TEXT NOT NULL, attempt TEXT NOT NULL UNIQUE, namespace TEXT NOT NULL, pod TEXT NOT
    NULL, pod_uid TEXT NOT NULL, ipv4 BLOB UNIQUE, ipv6 BLOB UNIQUE) STRICT;
CREATE UNIQUE INDEX one_live_interface ON interfaces (network, container_id, ifname)
    WHERE state <> 'releasing';
CREATE TABLE cooling (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, address BLOB NOT NULL UNIQUE, since REAL NOT NULL)
    STRICT;
CREATE TABLE sysctls (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""

_VERSION_2 = """
INSERT INTO counters VALUES ('new', 0);
INSERT INTO counters SELECT 'block', coalesce(max(ordinal), 0) FROM blocks;
ALTER TABLE blocks RENAME TO old_blocks;
CREATE TABLE blocks (
    ordinal INTEGER PRIMARY KEY, pool TEXT NOT NULL, address BLOB NOT NULL, length INTEGER NOT NULL,
    state TEXT NOT NULL, fixed INTEGER NOT NULL, usable_after INTEGER NOT NULL, lineage BLOB NOT
    NULL, since REAL NOT NULL, UNIQUE (address, length)) STRICT;
INSERT INTO blocks SELECT ordinal, pool, address, length, 'owned', 0, 0, x'', 0 FROM old_blocks;
DROP TABLE old_blocks;
ALTER TABLE cooling RENAME TO old_cooling;
CREATE TABLE cooling (
    address BLOB PRIMARY KEY, lineage BLOB NOT NULL, revision INTEGER NOT NULL, since REAL NOT NULL)
    STRICT, WITHOUT ROWID;
INSERT INTO cooling SELECT address, x'', 0, since FROM old_cooling;
DROP TABLE old_cooling;
CREATE TABLE pools (
    name TEXT PRIMARY KEY, address BLOB NOT NULL, length INTEGER NOT NULL, block_length INTEGER NOT
    NULL, reserved TEXT NOT NULL, is_static INTEGER NOT NULL, draining INTEGER NOT NULL,
    min_free_percent INTEGER NOT NULL, on_request INTEGER NOT NULL, generation INTEGER NOT NULL,
    lineage BLOB NOT NULL) STRICT, WITHOUT ROWID;
ALTER TABLE interfaces ADD COLUMN kind TEXT NOT NULL DEFAULT 'pod';
"""

_VERSION_3 = """
ALTER TABLE interfaces ADD COLUMN host_ports TEXT NOT NULL DEFAULT '';
"""

_STEPS = (_VERSION_1, _VERSION_2, _VERSION_3)
_OWNED, _RELEASING = "owned", "releasing"


def migrate(database: sqlite3.Connection) -> None:
    """Makes the tables, or brings older ones up to date, in one transaction.

    Raises:
        Conflict: the file is a newer agent's.
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise Conflict(f"the journal has schema {version}; this agent knows {VERSION}")
    if version < VERSION:
        steps = "".join(_STEPS[version:])
        if version == 0:
            steps += "UPDATE counters SET value = 1 WHERE name = 'new';"
        database.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {VERSION}; COMMIT;")


def read(database: sqlite3.Connection) -> Ledger:
    """The ledger of the file. Raises ValueError: its rows contradict each other."""
    counters = dict(database.execute("SELECT name, value FROM counters"))
    ledger = restore(
        map(_interface, database.execute(_INTERFACES)),
        map(_block, database.execute("SELECT * FROM blocks ORDER BY ordinal")),
        map(_pool, database.execute("SELECT * FROM pools")),
        {
            address: Released(0, revision, lineage, since)
            for address, lineage, revision, since in database.execute("SELECT * FROM cooling")
        },
        numbers=counters["endpoint"],
        ordinals=counters["block"],
        is_new=bool(counters["new"]),
    )
    # From a counter that is behind, a number would be given twice.
    if ledger.last_number < max(ledger.interfaces, default=0):
        raise ValueError(f"endpoint {max(ledger.interfaces)} after {ledger.last_number}")
    if ledger.last_ordinal < max(ledger.blocks, default=0):
        raise ValueError(f"block {max(ledger.blocks)} after {ledger.last_ordinal}")
    return ledger


_INTERFACES = (
    "SELECT number, state, network, container_id, ifname, attempt, namespace, pod, pod_uid, ipv4,"
    " ipv6, kind, host_ports FROM interfaces ORDER BY number"
)


def _interface(
    row: tuple[int, str, str, str, str, str, str, str, str, bytes, bytes, str, str],
) -> InterfaceRecord:
    (
        number,
        state,
        network,
        container,
        ifname,
        attempt,
        namespace,
        pod,
        uid,
        ipv4,
        ipv6,
        kind,
        host_ports,
    ) = row
    return InterfaceRecord(
        number=number,
        state=State(state),
        attachment=Attachment(network=network, container_id=container, ifname=ifname),
        attempt=attempt,
        pod=PodName(namespace=namespace, name=pod, uid=uid),
        addresses=AddressPair(ipv4=ipv4, ipv6=ipv6),
        kind=Kind(kind),
        host_ports=tuple(map(_host_port, host_ports.split())),
    )


def _host_port(text: str) -> HostPort:
    address, protocol, host, container = text.split("/")
    return HostPort(
        host_address=bytes.fromhex(address),
        protocol=Protocol(int(protocol)),
        host_port=int(host),
        container_port=int(container),
    )


def _host_port_text(port: HostPort) -> str:
    address = port.host_address.hex()
    return f"{address}/{int(port.protocol)}/{port.host_port}/{port.container_port}"


def _block(row: tuple[int, str, bytes, int, str, int, int, bytes, float]) -> Block:
    ordinal, pool, address, length, state, fixed, usable_after, lineage, since = row
    return Block(
        ordinal=ordinal,
        pool=pool,
        prefix=Prefix(address, length),
        fixed=bool(fixed),
        releasing=state == _RELEASING,
        usable_after=usable_after,
        lineage=lineage,
        since=since,
    )


def _pool(row: tuple[str, bytes, int, int, str, int, int, int, int, int, bytes]) -> Pool:
    name, address, length, block_length, reserved, static, draining, free, asked, born, lineage = (
        row
    )
    value = PoolObject(
        name=name,
        prefix=Prefix(address, length),
        block_length=block_length,
        reserved=tuple(map(Prefix.parse, reserved.split())),
        is_static=bool(static),
        draining=bool(draining),
        min_free_percent=free,
        on_request=bool(asked),
    )
    return Pool(value, born, lineage)


# --- writes --------------------------------------------------------------------------------------

Execute = Callable[..., object]


def write(execute: Execute, change: entries.Write) -> None:
    """Runs the statements of one write."""
    match change:
        case entries.PutInterface(record):
            _put_interface(execute, record)
        case entries.PutBlock(block):
            _put_block(execute, block)
        case entries.PutPool(pool):
            _put_pool(execute, pool)
        case entries.PutReleased(address, gone):
            row = (address, gone.lineage, gone.revision, gone.since)
            execute("INSERT OR REPLACE INTO cooling VALUES (?, ?, ?, ?)", row)
        case entries.SetState(number, state):
            execute("UPDATE interfaces SET state = ? WHERE number = ?", (state, number))
        case entries.SetRebuilt():
            execute("UPDATE counters SET value = 0 WHERE name = 'new'", ())
        case entries.SetCounters(number, ordinal):
            execute(_COUNT, (number, "endpoint"))
            execute(_COUNT, (ordinal, "block"))
        case _:
            _drop(execute, change)


def _drop(execute: Execute, change: entries.Drop) -> None:
    match change:
        case entries.DropInterface(number):
            execute("DELETE FROM interfaces WHERE number = ?", (number,))
        case entries.DropBlock(ordinal):
            execute("DELETE FROM blocks WHERE ordinal = ?", (ordinal,))
        case entries.DropReleased(address):
            execute("DELETE FROM cooling WHERE address = ?", (address,))
        case entries.DropPool(name):
            execute("DELETE FROM pools WHERE name = ?", (name,))
        case _:
            assert_never(change)


_COUNT = "UPDATE counters SET value = max(value, ?) WHERE name = ?"


def _put_interface(execute: Execute, record: InterfaceRecord) -> None:
    at, pod = record.attachment, record.pod
    execute(_COUNT, (record.number, "endpoint"))
    execute(
        "INSERT INTO interfaces VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.number,
            record.state,
            *(at.network, at.container_id, at.ifname),
            record.attempt,
            *(pod.namespace, pod.name, pod.uid),
            *(record.addresses.ipv4, record.addresses.ipv6),
            record.kind,
            " ".join(map(_host_port_text, record.host_ports)),
        ),
    )


def _put_block(execute: Execute, block: Block) -> None:
    execute(_COUNT, (block.ordinal, "block"))
    execute(
        "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            block.ordinal,
            block.pool,
            *(block.prefix.address, block.prefix.length),
            _RELEASING if block.releasing else _OWNED,
            block.fixed,
            *(block.usable_after, block.lineage),
            block.since,
        ),
    )


def _put_pool(execute: Execute, pool: Pool) -> None:
    value = pool.value
    execute(
        "INSERT OR REPLACE INTO pools VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            value.name,
            *(value.prefix.address, value.prefix.length),
            value.block_length,
            " ".join(map(str, value.reserved)),
            *(value.is_static, value.draining),
            value.min_free_percent,
            value.on_request,
            *(pool.generation, pool.lineage),
        ),
    )
