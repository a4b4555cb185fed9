"""The journal on a real file, with crashes between any two of its statements."""

import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from deltaplane.errors import Conflict, Exhausted
from deltaplane.model.addresses import Prefix
from deltaplane.model.objects import PoolObject
from deltaplane.model.ports import Protocol
from nodeagent import schema
from nodeagent.addressing import Progress, Released
from nodeagent.cni.netconf import Attachment, HostPort, PodName
from nodeagent.entries import InterfaceRecord, Ledger, State
from nodeagent.journal import Journal
from nodeagent.pools import Request
from nodeagent.restoring import check, rebuild

POD = PodName(namespace="shop", name="web", uid="u")
LINEAGE = b"L" * 16
BOTH = (Request(family=4, pools=("pods4",)), Request(family=6, pools=("pods6",)))
POOLS = [
    (
        PoolObject(
            name="pods4",
            prefix=Prefix.parse("10.0.0.0/16"),
            block_length=30,
            reserved=(Prefix.parse("10.0.9.0/24"), Prefix.parse("10.0.11.0/32")),
        ),
        1,
    ),
    (PoolObject(name="pods6", prefix=Prefix.parse("fd00::/96"), block_length=126), 1),
]


def attachment(number: int) -> Attachment:
    return Attachment(network="net", container_id=f"c{number}", ifname="eth0")


def at(watermark: int) -> Progress:
    return Progress(lineage=LINEAGE, head=watermark, watermark=watermark, strict=watermark)


def lasting(journal: Journal) -> Ledger:
    """What a reopened file shows of it."""
    return replace(journal.ledger, progress=Progress(), foreign=frozenset())


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    opened = Journal(tmp_path / "journal.db")
    opened.learn_pools(POOLS, lineage=LINEAGE, revision=1)
    opened.add_block(1, "pods4", Prefix.parse("10.0.0.0/31"))
    opened.add_block(2, "pods6", Prefix.parse("fd00::/126"))
    opened.observe(at(5), frozenset(), 0)
    return opened


def begin(journal: Journal, number: int, attempt: str) -> InterfaceRecord:
    return journal.begin(attachment(number), attempt=attempt, pod=POD, requests=BOTH).record


def erase(journal: Journal, number: int, revision: int) -> None:
    journal.erase(number, revision=revision, lineage=LINEAGE, now=5)


def test_everything_survives_a_reopening(journal: Journal, tmp_path: Path) -> None:
    first = begin(journal, 1, "a")
    journal.commit(first.number)
    second = begin(journal, 2, "b")
    journal.retire(second.number)
    erase(journal, second.number, 30)
    journal.add_block(3, "pods4", Prefix.parse("10.0.4.0/32"), fixed=True, usable_after=9)
    journal.add_block(4, "pods4", Prefix.parse("10.0.8.0/30"))
    journal.release_block(4)
    journal.close()

    again = Journal(tmp_path / "journal.db")

    assert again.ledger == lasting(journal)
    assert [record.state for record in again.interfaces.values()] == [State.READY]
    assert again.next_ordinal() == 5
    again.observe(at(30), frozenset(), 0)
    third = begin(again, 3, "c")
    assert third.number == 3
    assert third.addresses.ipv4 == second.addresses.ipv4
    again.close()


def test_a_family_that_is_used_up_takes_nothing_of_the_other(journal: Journal) -> None:
    begin(journal, 1, "a")
    begin(journal, 2, "b")
    before = journal.ledger
    with pytest.raises(Exhausted, match="IPv4"):
        begin(journal, 3, "c")
    assert journal.ledger is before
    journal.close()


def test_one_live_interface_per_attachment(journal: Journal) -> None:
    first = begin(journal, 1, "a")
    with pytest.raises(Conflict):
        begin(journal, 1, "b")
    journal.retire(first.number)
    second = begin(journal, 1, "b")
    assert journal.find(attachment(1)) == second
    journal.close()


def test_a_journal_of_a_newer_agent_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "journal.db") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(Conflict, match="schema 99"):
        Journal(tmp_path / "journal.db")


def test_a_journal_of_version_1_is_brought_up_to_date(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "journal.db") as database:
        database.executescript(schema._VERSION_1)
        database.executescript(
            """
            PRAGMA user_version = 1;
            UPDATE counters SET value = 7;
            INSERT INTO blocks VALUES (2, 'pods4', x'0a000000', 30, 2);
            INSERT INTO interfaces VALUES
                (7, 'ready', 'net', 'c1', 'eth0', 'a', 'shop', 'web', 'u', x'0a000000', NULL);
            INSERT INTO cooling (address, since) VALUES (x'0a000001', 99.5);
            INSERT INTO sysctls VALUES ('x', '1');
            """
        )
    database.close()

    journal = Journal(tmp_path / "journal.db")

    assert journal.recorded_sysctls() == {"x": "1"}
    assert journal.next_ordinal() == 3
    [block] = journal.blocks
    assert (block.held, block.released) == (1, (Released(1, 0, b"", 99.5),))
    # Nobody knows yet what the pool reserves, nor when the address was released.
    only4 = BOTH[:1]
    with pytest.raises(Exhausted, match="unknown"):
        journal.begin(attachment(2), attempt="b", pod=POD, requests=only4)
    journal.learn_pools(POOLS, lineage=LINEAGE, revision=1)
    journal.observe(at(40), frozenset(), 0)
    assert journal.blocks[0].released == (Released(1, 40, LINEAGE, 99.5),)
    record = journal.begin(attachment(2), attempt="b", pod=POD, requests=only4).record
    assert record.number == 8
    journal.close()


def damage_header(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)


def damage_page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)


def contradict(path: Path) -> None:
    """An address that is held and released at once."""
    _run(path, "INSERT INTO cooling VALUES (x'0a000000', x'', 3, 0)")


def count_backwards(path: Path) -> None:
    """The number of an interface would be given a second time."""
    _run(path, "UPDATE counters SET value = 0 WHERE name = 'endpoint'")


def name_the_same_block_again(path: Path) -> None:
    _run(path, "UPDATE counters SET value = 1 WHERE name = 'block'")


def forget_the_version(path: Path) -> None:
    """A table that it does not bring has the columns that it brings."""
    _run(path, "PRAGMA user_version = 2")


def lose_a_table(path: Path) -> None:
    _run(path, "DROP TABLE pools")


def write_no_text(path: Path) -> None:
    _run(path, "UPDATE interfaces SET pod = CAST(x'ff' AS TEXT)")


def _run(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as database:
        database.execute(statement)
    database.close()


@pytest.mark.parametrize(
    "damage",
    [
        *(damage_header, damage_page, contradict, count_backwards, name_the_same_block_again),
        *(forget_the_version, lose_a_table, write_no_text),
    ],
)
def test_a_damaged_journal_is_moved_aside(
    journal: Journal, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "journal.db"
    begin(journal, 1, "a")
    journal.close()
    damage(path)
    damaged = path.read_bytes()

    again = Journal(path)

    assert again.ledger == Ledger(is_new=True)
    assert (tmp_path / "journal.db.damaged-1").read_bytes() == damaged
    again.apply(rebuild(again.ledger, (), (), numbers=9, ordinals=9, revision=5, now=0))
    again.close()
    again = Journal(path)
    assert not again.ledger.is_new
    assert again.next_ordinal() == 10
    again.close()


def test_the_first_record_of_a_setting_stays(journal: Journal) -> None:
    journal.record_sysctls({"a": "1"})
    journal.record_sysctls({"a": "2", "b": "3"})
    assert journal.recorded_sysctls() == {"a": "1", "b": "3"}
    journal.forget_sysctls()
    assert journal.recorded_sysctls() == {}
    journal.close()


class Killed(BaseException):
    """The process ends here."""


class Dying:
    """A connection that dies before its n-th statement, and says how many there were."""

    def __init__(self, database: sqlite3.Connection, dies_before: int) -> None:
        self._database = database
        self._left = dies_before

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._database, name)
        if name not in ("execute", "executemany"):
            return found

        def call(*arguments: Any) -> Any:
            if self._left == 0:
                raise Killed
            self._left -= 1
            return found(*arguments)

        return call


class JournalMachine(RuleBasedStateMachine):
    """Against a dictionary; `survivor` kills inside any call and reopens the file."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.journal = Journal(self.folder / "journal.db")
        self.model: dict[int, tuple[State, tuple[bytes, ...]]] = {}
        self.gone: dict[bytes, int] = {}
        self.head = self.watermark = 5
        self.attempt = 0
        self.highest = 0

    @initialize()
    def blocks(self) -> None:
        self.journal.learn_pools(POOLS, lineage=LINEAGE, revision=1)
        self.journal.add_block(1, "pods4", Prefix.parse("10.0.0.0/30"))
        self.journal.add_block(2, "pods6", Prefix.parse("fd00::/126"))
        self.journal.observe(at(self.watermark), frozenset(), 0)

    def teardown(self) -> None:
        self.journal.close()
        shutil.rmtree(self.folder)

    def call(self, dies_before: int | None, name: str, *arguments: Any, **named: Any) -> Any:
        """Calls the journal; True: it was killed, and the file has been opened again."""
        if dies_before is None:
            return getattr(self.journal, name)(*arguments, **named)
        database = self.journal._database
        self.journal._database = Dying(database, dies_before)  # type: ignore[assignment]
        died = False
        try:
            return getattr(self.journal, name)(*arguments, **named)
        except Killed:
            died = True
            return None
        finally:
            # The end of a process is the end of its connection, in the middle of a transaction or
            # not.
            database.close()
            before = lasting(self.journal)
            self.journal = Journal(self.folder / "journal.db")
            # Memory is never ahead of the file, nor behind what a call has returned.
            if not died:
                assert self.journal.ledger == before
            self.journal.observe(at(self.watermark), frozenset(), 0)

    dying = st.one_of(st.none(), st.integers(0, 8))

    @rule(container=st.integers(0, 3), dies=dying)
    def begins(self, container: int, dies: int | None) -> None:
        self.attempt += 1
        known = self.journal.interfaces.keys()
        try:
            begun = self.call(
                dies,
                "begin",
                attachment(container),
                attempt=str(self.attempt),
                pod=POD,
                requests=BOTH,
            )
        except Conflict:
            return
        except Exhausted:
            free = 4 - sum(len(a) // 2 for _, a in self.model.values())
            assert free <= sum(r > self.watermark for r in self.gone.values()) // 2
            return
        new = self.journal.interfaces.keys() - known
        if begun is None:
            assert not new
            return
        record = begun.record
        assert new == {record.number}
        assert record.number > self.highest
        self.highest = record.number
        addresses = tuple(record.addresses)
        assert all(self.gone.pop(address, 0) <= self.watermark for address in addresses)
        self.model[record.number] = (State.ALLOCATING, addresses)

    @precondition(lambda self: self.model)
    @rule(pick=st.integers(0), dies=dying, name=st.sampled_from(["commit", "retire"]))
    def moves_on(self, pick: int, dies: int | None, name: str) -> None:
        number = sorted(self.model)[pick % len(self.model)]
        state, addresses = self.model[number]
        if state is State.RELEASING:
            return
        self.call(dies, name, number)
        after = self.journal.interfaces[number].state
        assert after in (state, State.READY if name == "commit" else State.RELEASING)
        assert dies is not None or after is not State.ALLOCATING
        self.model[number] = (after, addresses)

    @precondition(lambda self: self.model)
    @rule(pick=st.integers(0), dies=dying)
    def erases(self, pick: int, dies: int | None) -> None:
        number = sorted(self.model)[pick % len(self.model)]
        state, addresses = self.model[number]
        if state is not State.RELEASING:
            return
        self.head += 1
        self.call(dies, "erase", number, revision=self.head, lineage=LINEAGE, now=0)
        if number not in self.journal.interfaces:
            del self.model[number]
            self.gone |= dict.fromkeys(addresses, self.head)

    @rule(steps=st.integers(1, 4))
    def the_watermark_moves(self, steps: int) -> None:
        self.watermark = min(self.head, self.watermark + steps)
        self.journal.observe(at(self.watermark), frozenset(), 0)

    @rule(dies=dying)
    def a_block_comes_and_goes(self, dies: int | None) -> None:
        known = self.journal.ledger.blocks
        last = max(known)
        if last <= 2:
            self.call(
                dies, "add_block", self.journal.next_ordinal(), "other", Prefix.parse("10.0.8.0/30")
            )
            assert dies is not None or len(self.journal.ledger.blocks) == 3
        elif known[last].releasing:
            self.call(dies, "drop_block", last)
        else:
            self.call(dies, "release_block", last)

    @invariant()
    def the_file_says_what_the_model_says(self) -> None:
        found = {
            number: (record.state, tuple(record.addresses))
            for number, record in self.journal.interfaces.items()
        }
        assert found == self.model
        held = [address for _, addresses in self.model.values() for address in addresses]
        assert len(held) == len(set(held))
        check(self.journal.ledger)
        gone = {
            block.prefix.nth(old.offset): old.revision
            for block in self.journal.blocks
            for old in block.released
        }
        assert gone == self.gone


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_host_ports_survive_and_are_free_once_the_interface_goes(
    journal: Journal, tmp_path: Path
) -> None:
    ports = (
        HostPort(protocol=Protocol.TCP, host_port=8080, container_port=80),
        HostPort(host_address=bytes(16), protocol=Protocol.UDP, host_port=53, container_port=5353),
    )
    held = journal.begin(attachment(1), attempt="a", pod=POD, requests=BOTH, host_ports=ports)
    journal.close()

    again = Journal(tmp_path / "journal.db")
    assert again.interfaces[held.record.number].host_ports == ports
    with pytest.raises(Conflict, match="host port 53/UDP leads to"):
        again.begin(attachment(2), attempt="b", pod=POD, requests=BOTH, host_ports=ports[1:])
    again.retire(held.record.number)
    again.begin(attachment(2), attempt="b", pod=POD, requests=BOTH, host_ports=ports)
    again.close()


def test_what_lies_beside_the_file_is_small_and_goes_at_the_next_start(tmp_path: Path) -> None:
    path, log = tmp_path / "journal.db", tmp_path / "journal.db-wal"
    killed = Journal(path)
    for number in range(400):
        killed.add_block(
            number + 1, "pods4", Prefix.parse(f"10.0.{number // 64}.{number % 64 * 4}/30")
        )
        assert log.stat().st_size < 500_000
    # It stays open: a killed agent closes nothing.
    assert log.stat().st_size > 0
    again = Journal(path)
    assert log.stat().st_size == 0
    assert again.blocks == killed.blocks
    again.close()
    killed.close()
