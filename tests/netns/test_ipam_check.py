"""`deltaplane ipam check` against a real agent: every kind planted, seen, repaired, gone."""

import json
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from deltaplane.check.findings import Finding, Kind
from deltaplane.cli.client import Client, Targets
from deltaplane.cli.looking import Looker
from deltaplane.cli.repairing import DONE, repair
from deltaplane.model.addresses import Prefix
from deltaplane.store import keys
from deltaplane.store.pointers import pointers
from deltaplane.store.port import Delete, KeyValue, Operation, Put
from deltaplane.v1 import ipam_pb2, registry_pb2
from nodeagent.dataplane import records
from nodeagent.dataplane.loader import schema_folder
from nodeagent.dataplane.maps import KernelMap, open_pinned
from nodeagent.dataplane.port import LocalEndpoint, Mapping
from nodeagent.statedir import JOURNAL_FILE
from tests.netns.conftest import created, mounted, serving
from tests.netns.node import ROOT, Node, until

pytestmark = pytest.mark.timeout(120)

PLANTED = 50_000
"""Number of an endpoint that no node gives: what is released has its number for a while."""


@dataclass
class Checked:
    """A node with a pod, and the command's own parts."""

    node: Node
    client: Client
    pauses: tuple[float, ...] = (0.1, 0.2, 0.4)

    def findings(self, *, target: str = "") -> list[Finding]:
        looker = Looker(self.client, [(self.node.name, target or self.node.agent_target)])
        return list(looker.settled(self.pauses).findings)

    def kinds(self) -> set[Kind]:
        return {finding.kind for finding in self.findings()}

    def repair(self) -> set[str]:
        looker = Looker(self.client, [(self.node.name, self.node.agent_target)])
        return {how for _, how in repair(self.client, looker.settled(self.pauses))}

    def seen_then_repaired(self, *kinds: Kind) -> list[Finding]:
        found = self.findings()
        assert {finding.kind for finding in found} == set(kinds), found
        assert all(finding.repair for finding in found)
        assert self.repair() == {DONE}
        assert self.findings() == []
        assert self.repair() == set()
        return found

    # --- what etcd says --------------------------------------------------------------------------

    def write(self, *operations: Operation) -> None:
        store = self.node.services.store
        self.node.services.run(store.transact([], operations))

    def stored(self, prefix: str) -> list[KeyValue]:
        store = self.node.services.store
        return list(self.node.services.run(store.list(prefix)).items)

    def forget(self, record: KeyValue) -> None:
        """Deletes a record with all that points to it."""
        names = pointers(record.key, record.value)
        self.write(Delete(record.key), *(Delete(name) for name in names))

    def remember(self, key: str, value: bytes) -> None:
        names = pointers(key, value)
        self.write(Put(key, value), *(Put(name, key.encode()) for name in names))

    # --- what the kernel holds -------------------------------------------------------------------

    def map(self, name: str) -> KernelMap:
        return KernelMap(name, open_pinned(schema_folder(self.node.pins) / name))

    def served(self) -> LocalEndpoint:
        (value,) = [value for _, value in self.map("endpoints").entries()]
        return records.to_endpoint(value)

    def program(self, endpoint: LocalEndpoint) -> None:
        """Writes an interface as the agent would, but for what else it knows."""
        value = records.endpoint_value(endpoint)
        self.map("endpoints").update([(records.number_key(endpoint.ifindex), value)])


@contextmanager
def checking(node: Node) -> Iterator[Checked]:
    node.start_ready()
    node.add("web")
    services = node.services
    targets = Targets(
        registry=services.target("registry"),
        ipam=services.target("ipam"),
        slicer=services.target("slicer"),
    )
    with Client(targets) as client:
        made = Checked(node, client)
        assert made.findings() == []
        yield made


@pytest.fixture
def checked(node: Node) -> Iterator[Checked]:
    """For tests that leave something behind."""
    with checking(node) as made:
        yield made


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory, shim: Path) -> Iterator[Checked]:
    """For tests that leave everything as it was: most of a test is the start of an agent."""
    directory = tmp_path_factory.mktemp("steady")
    with (
        mounted(),
        serving(directory) as services,
        created("steady", directory, shim, services) as node,
        checking(node) as made,
    ):
        yield made


# --- a node with etcd ----------------------------------------------------------------------------


def test_an_interface_that_etcd_has_lost_is_registered_again(steady: Checked) -> None:
    (record,) = steady.stored(keys.ENDPOINTS)
    steady.forget(record)
    (found,) = steady.seen_then_repaired(Kind.NOT_REGISTERED)
    assert found.subject == "interface 1, pod shop/web"
    (again,) = steady.stored(keys.ENDPOINTS)
    assert again.value == record.value
    assert again.create_revision > record.create_revision


def plant_endpoint(checked: Checked, number: int) -> str:
    (record,) = checked.stored(keys.ENDPOINTS)
    stray = registry_pb2.Endpoint.FromString(record.value)
    stray.id, stray.pod = number, "gone"
    four = int.from_bytes(stray.addresses.ipv4) ^ 8
    stray.addresses.ipv4 = four.to_bytes(4)
    stray.addresses.ipv6 = b""
    key = keys.endpoint("shop", "gone", checked.node.name, number)
    checked.remember(key, stray.SerializeToString(deterministic=True))
    return key


def test_an_endpoint_that_no_journal_has_is_released(steady: Checked) -> None:
    plant_endpoint(steady, PLANTED)
    (found,) = steady.seen_then_repaired(Kind.NOT_IN_JOURNAL)
    assert f"endpoint {PLANTED} of node steady, pod shop/gone" in found.subject
    assert len(steady.stored(keys.ENDPOINTS)) == 1


def test_an_endpoint_of_another_container_needs_a_hand(checked: Checked) -> None:
    (record,) = checked.stored(keys.ENDPOINTS)
    other = registry_pb2.Endpoint.FromString(record.value)
    other.owner.attempt = "another"
    checked.write(Put(record.key, other.SerializeToString(deterministic=True)))
    (found,) = checked.findings()
    assert (found.kind, found.repair, found.advice) == (
        Kind.ENDPOINT_DIFFERS,
        None,
        "delete the pod",
    )
    assert checked.node.cni("DEL", "web").code == 0
    # The release named another owner, so the record stays; its journal entry is gone.
    checked.seen_then_repaired(Kind.NOT_IN_JOURNAL)


def test_a_block_that_etcd_has_lost_is_dropped(checked: Checked) -> None:
    assert checked.node.cni("DEL", "web").code == 0
    block = checked.stored(keys.BLOCKS)[0]
    checked.forget(block)
    found = checked.findings()
    assert [item.kind for item in found] == [Kind.BLOCK_LOST]
    assert "in etcd nobody owns it" in found[0].seen
    assert checked.repair() == {DONE}
    until(lambda: checked.findings() == [], "the node has claimed another block")


def test_an_interface_in_a_lost_block_is_closed_for_good(checked: Checked) -> None:
    for block in checked.stored(keys.BLOCKS):
        checked.forget(block)
    kinds = checked.kinds()
    assert {Kind.BLOCK_LOST, Kind.ENDPOINT_OUTSIDE} <= kinds
    assert DONE in checked.repair()
    until(lambda: checked.kinds() <= {Kind.ENDPOINT_OUTSIDE}, "nothing but the pod's own loss")
    assert checked.node.cni("DEL", "web").code == 0
    until(lambda: checked.findings() == [], "everything agrees")


def test_a_block_that_the_journal_has_lost_is_taken_in(checked: Checked) -> None:
    record = checked.stored(keys.BLOCKS)[0]
    more = ipam_pb2.Block.FromString(record.value)
    more.request_id = "planted"
    taken = {
        Prefix(block.prefix.address, block.prefix.length)
        for block in (ipam_pb2.Block.FromString(i.value) for i in checked.stored(keys.BLOCKS))
    }
    pool = Prefix.parse("10.99.0.0/24" if len(more.prefix.address) == 4 else "fd00:99::/120")
    free = next(
        block
        for block in (Prefix(pool.nth(n * 16), pool.length + 4) for n in range(16))
        if block not in taken
    )
    more.prefix.address = free.address
    checked.remember(keys.block(free), more.SerializeToString(deterministic=True))
    found = checked.findings()
    assert [item.kind for item in found] == [Kind.BLOCK_UNKNOWN]
    assert checked.repair() == {DONE}
    # Taken in, it is one too many: the node may give it back in its own way.
    until(lambda: checked.findings() == [], "everything agrees")


def test_a_node_that_etcd_has_lost_is_told(checked: Checked) -> None:
    checked.write(Delete(keys.node("n1")))
    kinds = checked.kinds()
    assert {Kind.NODE_UNKNOWN, Kind.ENDPOINT_NODE, Kind.BLOCK_NODE} <= kinds


# --- a journal with itself -----------------------------------------------------------------------


def edit_journal(node: Node, *statements: tuple[str, tuple[object, ...]]) -> None:
    database = sqlite3.connect(node.directory / "state" / JOURNAL_FILE)
    with database:
        for statement, values in statements:
            database.execute(statement, values)
    database.close()


def test_an_address_outside_the_journal_s_blocks_is_told(checked: Checked) -> None:
    node = checked.node
    node.stop()
    edit_journal(node, ("DELETE FROM blocks", ()))
    # Without ipam the agent cannot put it right by itself.
    node.start(ipam="unix:/nonexistent")
    until(lambda: node.status().connected, "the stream is up")
    kinds = checked.kinds()
    assert {Kind.HELD_OUTSIDE, Kind.BLOCK_UNKNOWN} <= kinds
    node.stop()
    node.start_ready()
    until(lambda: checked.findings() == [], "the agent has taken its blocks in again")


# --- a journal with its kernel -------------------------------------------------------------------


def test_a_link_that_is_gone_is_told(checked: Checked) -> None:
    checked.node.ip("link", "delete", "dp1")
    (found,) = checked.findings()
    assert (found.kind, found.repair) == (Kind.LINK_MISSING, None)
    assert checked.node.cni("DEL", "web").code == 0
    assert checked.findings() == []


def test_a_link_of_nobody_is_removed(steady: Checked) -> None:
    node = steady.node
    uid = node.status().node_uid
    node.ip("link", "add", "dp63", "type", "veth", "peer", "name", "other")
    node.ip("link", "set", "dp63", "alias", f"deltaplane/{uid}/99")
    (found,) = steady.seen_then_repaired(Kind.LINK_UNKNOWN)
    assert (found.subject, "interface 99" in found.seen) == ("link dp63", True)
    assert node.host_links() == ["dp1"]


def test_routes_of_pods_are_made_and_removed(steady: Checked) -> None:
    node = steady.node
    before = node.ip("route"), node.ip("-6", "route")
    (interface,) = node.interfaces()
    for address in (interface.addresses.ipv4, interface.addresses.ipv6):
        text = str(Prefix(address, len(address) * 8))
        node.ip("route", "delete", text, "dev", "dp1")
    found = steady.seen_then_repaired(Kind.ROUTE_MISSING)
    assert len(found) == 2
    for text in ("10.99.0.250/32", "fd00:99::fa/128"):
        node.ip("route", "add", text, "dev", "dp1")
    found = steady.seen_then_repaired(Kind.ROUTE_UNKNOWN)
    assert sorted(item.subject for item in found) == [
        "route 10.99.0.250/32",
        "route fd00:99::fa/128",
    ]
    assert (node.ip("route"), node.ip("-6", "route")) == before


def forget_interface(checked: Checked, served: LocalEndpoint) -> None:
    checked.map("endpoints").delete([records.number_key(served.ifindex)])
    checked.map("addresses").delete(records.address_keys(served))


def forget_one_address(checked: Checked, served: LocalEndpoint) -> None:
    checked.map("addresses").delete([records.address_keys(served)[0]])


def change_identity(checked: Checked, served: LocalEndpoint) -> None:
    checked.program(replace(served, identity=served.identity + 1))


def close(checked: Checked, served: LocalEndpoint) -> None:
    checked.program(replace(served, identity=0))


def change_number(checked: Checked, served: LocalEndpoint) -> None:
    checked.program(replace(served, endpoint_id=1000))


def add_interface(checked: Checked, served: LocalEndpoint) -> None:
    checked.program(replace(served, ifindex=9999, endpoint_id=1000))


@pytest.mark.parametrize(
    ("plant", "kinds"),
    [
        (forget_interface, {Kind.PROGRAM_MISSING}),
        (forget_one_address, {Kind.PROGRAM_DIFFERS}),
        (change_identity, {Kind.PROGRAM_DIFFERS}),
        (close, {Kind.PROGRAM_DIFFERS}),
        (change_number, {Kind.PROGRAM_DIFFERS, Kind.PROGRAM_UNKNOWN}),
        (add_interface, {Kind.PROGRAM_UNKNOWN}),
    ],
)
def test_interfaces_of_the_data_path_are_written_again(
    steady: Checked, plant: Callable[[Checked, LocalEndpoint], None], kinds: set[Kind]
) -> None:
    before = steady.served()
    plant(steady, before)
    steady.seen_then_repaired(*kinds)
    assert steady.served() == before


def test_mappings_of_pods_are_written_again(steady: Checked) -> None:
    served, mappings = steady.served(), steady.map("mappings")
    before = dict(mappings.entries())
    four, six = records.address_keys(served)
    wrong = Mapping(address=six, identity=4711, node_index=1)
    mappings.delete([four])
    mappings.update([records.mapping_item(wrong)])
    found = steady.seen_then_repaired(Kind.MAPPING_WRONG)
    assert [item.seen.rpartition("maps it to ")[2] for item in found] == [
        "nothing",
        "identity 4711 on node number 1",
    ]
    assert dict(mappings.entries()) == before


def test_routes_to_blocks_are_made_again(steady: Checked) -> None:
    node = steady.node
    before = node.ip("route"), node.ip("-6", "route")
    for record in steady.stored(keys.BLOCKS):
        block = ipam_pb2.Block.FromString(record.value)
        node.ip(
            "route", "delete", "unreachable", str(Prefix(block.prefix.address, block.prefix.length))
        )
    assert len(steady.seen_then_repaired(Kind.BLOCK_ROUTE)) == 2
    assert (node.ip("route"), node.ip("-6", "route")) == before


# --- what was not looked at ----------------------------------------------------------------------


def test_agents_that_do_not_answer_are_never_passed_over(steady: Checked) -> None:
    node = steady.node
    (found,) = steady.findings(target=f"unix:{node.directory}/nobody.sock")
    assert (found.kind, found.node) == (Kind.AGENT_UNREACHABLE, "steady")
    found = Looker(steady.client, []).settled(()).findings[0]
    assert (found.kind, found.node) == (Kind.AGENT_NOT_ASKED, "steady")


def test_an_agent_that_lags_is_told(checked: Checked) -> None:
    checked.node.services.stop("slicer")
    checked.write(Put(keys.FREED_BLOCKS + "192.0.2.0-24", b""))
    (found,) = checked.findings()
    assert (found.kind, found.node) == (Kind.AGENT_BEHIND, "n1")
    checked.node.services.start("slicer")
    until(lambda: checked.findings() == [], "the agent has caught up", seconds=20)


# --- the command ---------------------------------------------------------------------------------


def command(checked: Checked, *arguments: str) -> subprocess.CompletedProcess[str]:
    services = checked.node.services
    flags = [
        part
        for name in ("registry", "ipam", "slicer")
        for part in (f"--{name}", services.target(name))
    ]
    return subprocess.run(
        [
            *(sys.executable, "-c", "from deltaplane.cli.main import main; main()"),
            *("ipam", "check", "--agent", checked.node.agent_target, *arguments, *flags),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_tells_and_repairs(steady: Checked) -> None:
    clean = command(steady)
    assert (clean.returncode, clean.stdout) == (0, ""), clean.stderr
    assert re.match(
        r"nothing disagrees: 1 of 1 nodes, 1 endpoints and 2 blocks at revision \d+\n", clean.stderr
    )
    plant_endpoint(steady, PLANTED)
    told = command(steady)
    assert told.returncode == 1
    assert told.stdout.splitlines()[0] == "not-in-journal on steady"
    assert told.stdout.splitlines()[3] == "  repair: release the endpoint (--repair does it)"
    assert told.stderr.startswith("1 disagreements, --repair can end 1: ")
    repaired = command(steady, "--repair", "-o", "json")
    assert repaired.returncode == 0
    assert repaired.stderr.startswith("1 disagreements, 0 left: ")
    (record,) = json.loads(repaired.stdout)
    assert (record["kind"], record["node"]) == ("not-in-journal", "steady")
    assert (record["automatic"], record["outcome"]) == (True, "done")


# --- a busy node ---------------------------------------------------------------------------------


def churn(node: Node, pod: str, stop: threading.Event, failures: list[str]) -> None:
    """A pod comes and goes; each call that fails is written down."""
    while not stop.is_set():
        for call in ("ADD", "DEL"):
            answer = node.cni(call, pod)
            if answer.code:
                failures.append(f"{call}: {answer.document}")


def relabel(node: Node, stop: threading.Event) -> None:
    """A pod gets one identity after the other."""
    number = 0
    while not stop.is_set():
        number += 1
        node.services.apply_pod("web", node.name, app="web", turn=str(number % 5))


def test_a_busy_node_is_sound(steady: Checked) -> None:
    """Pods come and go, labels change, and nothing is ever told."""
    node, stop = steady.node, threading.Event()
    failures: list[str] = []
    threads = [threading.Thread(target=relabel, args=(node, stop))]
    for pod in ("pod-0", "pod-1", "pod-2"):
        node.services.apply_pod(pod, node.name, app=pod)
        node.new_pod_namespace(pod)
        threads.append(threading.Thread(target=churn, args=(node, pod, stop, failures)))
    before = node.status().applied_revision
    for thread in threads:
        thread.start()
    try:
        patient = Checked(node, steady.client, pauses=(0.1, 0.2, 0.4, 0.8, 1.6))
        for _ in range(10):
            assert patient.findings() == []
        until(lambda: node.status().applied_revision > before + 50, "enough has happened")
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert failures == []
    assert steady.findings() == []
