"""What this node must not forget: its blocks, its interfaces, the addresses that rest.

One SQLite file.

An interface is written before anything else happens for it and erased after everything about it is
undone, so a restart at any line finds every link, address and registration that may exist:

    (nothing) ──begin──► ALLOCATING ──commit──► READY ──retire──► RELEASING ──erase──► (nothing)
                              └───────────────retire────────────────┘

Every method is one transaction and durable when it returns (WAL, synchronous=FULL). Memory is a
view: it changes after the commit, and as a whole, so that other threads may read it. Blocking, 0.1
ms and the disk's flush; calls come from one thread at a time.
"""

import enum
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from deltaplane.errors import Conflict, Exhausted
from deltaplane.model.addresses import AddressPair, Prefix
from nodeagent import addressing
from nodeagent.addressing import BlockState, Cooling
from nodeagent.cni.netconf import Attachment, PodName

SCHEMA_VERSION = 1

SCHEMA = """
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


class State(enum.StrEnum):
    """Where an interface is in its life."""

    ALLOCATING = "allocating"
    READY = "ready"
    RELEASING = "releasing"


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceRecord:
    """One interface of a pod of this node.

    Attributes:
        number: from a counter, never reused by this node UID.
        state: see State.
        attachment: how the runtime names it.
        attempt: random, unique per ADD; with the attachment the owner token.
        pod: whose it is.
        addresses: held until the entry is erased.
    """

    number: int
    state: State
    attachment: Attachment
    attempt: str
    pod: PodName
    addresses: AddressPair


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedBlock:
    """A block of this node. ordinal: 1 or more, its number among all that it ever claimed."""

    ordinal: int
    pool: str
    state: BlockState


class Journal:
    """The file and the view of it."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
        self._migrate()
        self._interfaces = {record.number: record for record in self._read_interfaces()}
        self._blocks = {block.ordinal: block for block in self._read_blocks()}

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    @property
    def interfaces(self) -> Mapping[int, InterfaceRecord]:
        """All interfaces by number."""
        return self._interfaces

    @property
    def blocks(self) -> tuple[OwnedBlock, ...]:
        """All blocks, oldest first."""
        return tuple(self._blocks[ordinal] for ordinal in sorted(self._blocks))

    def find(self, attachment: Attachment) -> InterfaceRecord | None:
        """The interface of an attachment that is not being released, or None."""
        for record in self._interfaces.values():
            if record.attachment == attachment and record.state is not State.RELEASING:
                return record
        return None

    def next_ordinal(self) -> int:
        """Ordinal of the next block to claim: the same until that block is added."""
        return max(self._blocks, default=0) + 1

    def add_block(self, ordinal: int, pool: str, prefix: Prefix) -> None:
        """Takes over a claimed block; nothing happens when it is known."""
        if any(block.state.prefix == prefix for block in self._blocks.values()):
            return
        self._database.execute(
            "INSERT INTO blocks VALUES (?, ?, ?, ?, 0)",
            (ordinal, pool, prefix.address, prefix.length),
        )
        state = BlockState(prefix=prefix, held={})
        block = OwnedBlock(ordinal=ordinal, pool=pool, state=state)
        self._blocks = {**self._blocks, ordinal: block}

    def begin(
        self,
        attachment: Attachment,
        *,
        attempt: str,
        pod: PodName,
        families: frozenset[int],
        now: float,
    ) -> InterfaceRecord:
        """Opens an interface: a number and one address of each family (4, 6), all or nothing.

        Raises:
            Conflict: the attachment has an interface.
            Exhausted: a family has no address.
        """
        if self.find(attachment) is not None:
            raise Conflict(f"{attachment} has an interface; DEL comes first")
        taken: dict[int, tuple[OwnedBlock, bytes]] = {}
        for family in sorted(families):
            found = self._allocate(family, attempt, now)
            if found is None:
                raise Exhausted(f"no IPv{family} address is free in this node's blocks")
            taken[family] = found
        with self._transaction():
            number = self._next_number()
            record = InterfaceRecord(
                number=number,
                state=State.ALLOCATING,
                attachment=attachment,
                attempt=attempt,
                pod=pod,
                addresses=AddressPair(
                    ipv4=taken[4][1] if 4 in taken else None,
                    ipv6=taken[6][1] if 6 in taken else None,
                ),
            )
            self._insert(record)
            for block, address in taken.values():
                self._database.execute(
                    "UPDATE blocks SET fresh = ? WHERE ordinal = ?",
                    (block.state.fresh, block.ordinal),
                )
                self._database.execute("DELETE FROM cooling WHERE address = ?", (address,))
        self._interfaces = {**self._interfaces, number: record}
        self._blocks = self._blocks | {block.ordinal: block for block, _ in taken.values()}
        return record

    def commit(self, number: int) -> InterfaceRecord:
        """The interface works: ALLOCATING → READY."""
        return self._set_state(number, State.READY)

    def retire(self, number: int) -> InterfaceRecord:
        """The interface is to go, whatever it takes: → RELEASING; frees its attachment at once."""
        return self._set_state(number, State.RELEASING)

    def erase(self, number: int, now: float) -> None:
        """Everything about the interface is undone: forgets it and lets its addresses rest."""
        record = self._interfaces[number]
        with self._transaction():
            self._database.execute("DELETE FROM interfaces WHERE number = ?", (number,))
            self._database.executemany(
                "INSERT INTO cooling (address, since) VALUES (?, ?)",
                [(address, now) for address in record.addresses],
            )
        self._interfaces = {n: other for n, other in self._interfaces.items() if n != number}
        self._blocks = {
            ordinal: replace(block, state=_release(block.state, record, now))
            for ordinal, block in self._blocks.items()
        }

    def available(self, family: int, now: float) -> int:
        """Addresses of a family (4 or 6) that could be handed out at once."""
        return sum(block.state.available(now) for block in self._of_family(family))

    def record_sysctls(self, before: Mapping[str, str]) -> None:
        """Remembers what settings were; the first record of a name stays."""
        with self._transaction():
            self._database.executemany(
                "INSERT OR IGNORE INTO sysctls VALUES (?, ?)", list(before.items())
            )

    def recorded_sysctls(self) -> dict[str, str]:
        """Settings as they were before the agent changed them."""
        return dict(self._database.execute("SELECT name, value FROM sysctls"))

    def forget_sysctls(self) -> None:
        """After they were restored."""
        self._database.execute("DELETE FROM sysctls")

    # --- inside ----------------------------------------------------------------------------------

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._database)

    def _migrate(self) -> None:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise Conflict(f"the journal has schema {version}; this agent knows {SCHEMA_VERSION}")
        if version == 0:
            self._database.executescript(
                f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )

    def _of_family(self, family: int) -> list[OwnedBlock]:
        return [block for block in self.blocks if block.state.prefix.is_ipv4 == (family == 4)]

    def _allocate(self, family: int, owner: str, now: float) -> tuple[OwnedBlock, bytes] | None:
        for block in self._of_family(family):
            if (found := addressing.allocate(block.state, owner, now)) is not None:
                state, address = found
                return replace(block, state=state), address
        return None

    def _next_number(self) -> int:
        row = self._database.execute(
            "UPDATE counters SET value = value + 1 WHERE name = 'endpoint' RETURNING value"
        ).fetchone()
        return int(row[0])

    def _insert(self, record: InterfaceRecord) -> None:
        at = record.attachment
        self._database.execute(
            "INSERT INTO interfaces VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.number,
                record.state,
                at.network,
                at.container_id,
                at.ifname,
                record.attempt,
                record.pod.namespace,
                record.pod.name,
                record.pod.uid,
                record.addresses.ipv4,
                record.addresses.ipv6,
            ),
        )

    def _set_state(self, number: int, state: State) -> InterfaceRecord:
        self._database.execute("UPDATE interfaces SET state = ? WHERE number = ?", (state, number))
        record = replace(self._interfaces[number], state=state)
        self._interfaces = {**self._interfaces, number: record}
        return record

    def _read_interfaces(self) -> list[InterfaceRecord]:
        rows = self._database.execute(
            "SELECT number, state, network, container_id, ifname, attempt, namespace, pod, pod_uid,"
            " ipv4, ipv6 FROM interfaces ORDER BY number"
        )
        return [
            InterfaceRecord(
                number=number,
                state=State(state),
                attachment=Attachment(network=network, container_id=container, ifname=ifname),
                attempt=attempt,
                pod=PodName(namespace=namespace, name=pod, uid=uid),
                addresses=AddressPair(ipv4=ipv4, ipv6=ipv6),
            )
            for (number, state, network, container, ifname, attempt), (
                namespace,
                pod,
                uid,
                ipv4,
                ipv6,
            ) in ((row[:6], row[6:]) for row in rows)
        ]

    def _read_blocks(self) -> list[OwnedBlock]:
        cooling = [
            Cooling(address, since)
            for address, since in self._database.execute(
                "SELECT address, since FROM cooling ORDER BY sequence"
            )
        ]
        held = {
            address: record.attempt
            for record in self._interfaces.values()
            for address in record.addresses
        }
        blocks = []
        for ordinal, pool, network, length, fresh in self._database.execute("SELECT * FROM blocks"):
            prefix = Prefix(network, length)
            state = BlockState(
                prefix=prefix,
                fresh=fresh,
                held={
                    address: owner for address, owner in held.items() if prefix.contains(address)
                },
                cooling=tuple(resting for resting in cooling if prefix.contains(resting.address)),
            )
            blocks.append(OwnedBlock(ordinal=ordinal, pool=pool, state=state))
        return blocks


def _release(block: BlockState, record: InterfaceRecord, now: float) -> BlockState:
    for address in record.addresses:
        block = addressing.release(block, address, record.attempt, now)
    return block


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
