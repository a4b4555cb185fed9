"""The journal on a real file, with crashes between any two of its statements."""

import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from deltaplane.errors import Conflict, Exhausted
from deltaplane.model.addresses import Prefix
from nodeagent.cni.netconf import Attachment, PodName
from nodeagent.journal import Journal, State

POD = PodName(namespace="shop", name="web", uid="u")
BOTH = frozenset({4, 6})


def attachment(number: int) -> Attachment:
    return Attachment(network="net", container_id=f"c{number}", ifname="eth0")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    opened = Journal(tmp_path / "journal.db")
    opened.add_block(1, "pods4", Prefix.parse("10.0.0.0/31"))
    opened.add_block(2, "pods6", Prefix.parse("fd00::/126"))
    return opened


def begin(journal: Journal, number: int, attempt: str, now: float = 0) -> Any:
    return journal.begin(attachment(number), attempt=attempt, pod=POD, families=BOTH, now=now)


def test_numbers_and_addresses_survive_a_reopening(journal: Journal, tmp_path: Path) -> None:
    first = begin(journal, 1, "a")
    journal.commit(first.number)
    second = begin(journal, 2, "b")
    journal.retire(second.number)
    journal.erase(second.number, now=5)
    journal.close()

    again = Journal(tmp_path / "journal.db")

    assert [record.state for record in again.interfaces.values()] == [State.READY]
    assert again.blocks == journal.blocks
    assert again.next_ordinal() == 3
    third = begin(again, 3, "c", now=70)
    assert third.number == 3
    assert third.addresses.ipv4 == second.addresses.ipv4
    again.close()


def test_a_family_that_is_used_up_takes_nothing_of_the_other(journal: Journal) -> None:
    begin(journal, 1, "a")
    begin(journal, 2, "b")
    with pytest.raises(Exhausted, match="IPv4"):
        begin(journal, 3, "c")
    assert journal.available(4, 0) == 0
    assert journal.available(6, 0) == 2
    assert len(journal.interfaces) == 2
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
        self.rested: dict[bytes, float] = {}
        self.now = 0.0
        self.attempt = 0
        self.highest = 0

    @initialize()
    def blocks(self) -> None:
        self.journal.add_block(1, "pods4", Prefix.parse("10.0.0.0/30"))
        self.journal.add_block(2, "pods6", Prefix.parse("fd00::/126"))

    def teardown(self) -> None:
        self.journal.close()
        shutil.rmtree(self.folder)

    def call(self, dies_before: int | None, name: str, *arguments: Any, **named: Any) -> Any:
        """Calls the journal; True: it was killed, and the file has been opened again."""
        if dies_before is None:
            return getattr(self.journal, name)(*arguments, **named)
        database = self.journal._database
        self.journal._database = Dying(database, dies_before)  # type: ignore[assignment]
        try:
            return getattr(self.journal, name)(*arguments, **named)
        except Killed:
            return None
        finally:
            # The end of a process is the end of its connection, in the middle of a transaction or
            # not.
            database.close()
            self.journal = Journal(self.folder / "journal.db")

    dying = st.one_of(st.none(), st.integers(0, 8))

    @rule(container=st.integers(0, 3), dies=dying)
    def begins(self, container: int, dies: int | None) -> None:
        self.attempt += 1
        known = self.journal.interfaces.keys()
        try:
            record = self.call(
                dies,
                "begin",
                attachment(container),
                attempt=str(self.attempt),
                pod=POD,
                families=BOTH,
                now=self.now,
            )
        except Conflict:
            return
        except Exhausted:
            free = 4 - sum(len(a) // 2 for _, a in self.model.values())
            assert free <= sum(end > self.now for end in self.rested.values()) // 2
            return
        new = self.journal.interfaces.keys() - known
        if record is None:
            assert not new
            return
        assert new == {record.number}
        assert record.number > self.highest
        self.highest = record.number
        addresses = tuple(record.addresses)
        assert all(self.rested.pop(address, 0) <= self.now for address in addresses)
        self.model[record.number] = (State.ALLOCATING, addresses)

    @precondition(lambda self: self.model)
    @rule(pick=st.integers(0), dies=dying, name=st.sampled_from(["commit", "retire"]))
    def moves_on(self, pick: int, dies: int | None, name: str) -> None:
        number = sorted(self.model)[pick % len(self.model)]
        state, addresses = self.model[number]
        if state is State.RELEASING:
            return
        if self.call(dies, name, number) is not None:
            self.model[number] = (State.READY if name == "commit" else State.RELEASING, addresses)

    @precondition(lambda self: self.model)
    @rule(pick=st.integers(0), dies=dying)
    def erases(self, pick: int, dies: int | None) -> None:
        number = sorted(self.model)[pick % len(self.model)]
        state, addresses = self.model[number]
        if state is not State.RELEASING:
            return
        self.call(dies, "erase", number, self.now)
        if number not in self.journal.interfaces:
            del self.model[number]
            self.rested |= dict.fromkeys(addresses, self.now + 60)

    @rule(seconds=st.integers(1, 40))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def the_file_says_what_the_model_says(self) -> None:
        found = {
            number: (record.state, tuple(record.addresses))
            for number, record in self.journal.interfaces.items()
        }
        assert found == self.model
        held = [address for _, addresses in self.model.values() for address in addresses]
        assert len(held) == len(set(held))
        in_blocks = {a for block in self.journal.blocks for a in block.state.held}
        assert in_blocks == set(held)
        resting = {c.address for block in self.journal.blocks for c in block.state.cooling}
        assert resting == self.rested.keys()


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
