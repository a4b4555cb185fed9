"""Which demonstration is shown, and what its lines say."""

import io

import pytest
from rich.console import Console

from deltaplane.errors import Refused
from lab.demo import DemoConfig, choose
from lab.expectation import World
from lab.judging import Outcome
from lab.manifests import read
from lab.memorydemo import _say_why, denied_pairs, victims
from lab.pods import Phase, Pod
from lab.probing import Question
from lab.telling import Teller, Words
from tests.unit.lab.test_manifests import SHOP

LACKS = ("CAP_SYS_ADMIN and CAP_NET_ADMIN: run as root", "the command ip: apt-get install iproute2")


def test_a_machine_that_can_sends_packets_unless_asked_not_to() -> None:
    assert not choose(DemoConfig(), ())
    assert not choose(DemoConfig(tls=True, keep=True, routing="vxlan", mtu=9000), ())
    assert choose(DemoConfig(), (), asked=True)


def test_a_machine_that_cannot_does_it_in_memory() -> None:
    assert choose(DemoConfig(nodes=2, name="mine"), LACKS)


def test_who_wants_packets_is_told_all_that_is_missing() -> None:
    with pytest.raises(Refused) as caught:
        choose(DemoConfig(), LACKS, asked=False)
    for line in LACKS:
        assert f"  - {line}" in str(caught.value)
    assert not choose(DemoConfig(), (), asked=False)


@pytest.mark.parametrize(
    ("config", "option"),
    [
        (DemoConfig(keep=True), "--keep"),
        (DemoConfig(tls=True), "--tls"),
        (DemoConfig(routing="vxlan"), "--routing vxlan"),
        (DemoConfig(mtu=9000), "--mtu 9000"),
    ],
)
@pytest.mark.parametrize("asked", [None, True])
def test_what_needs_packets_is_refused_in_memory(
    config: DemoConfig, option: str, asked: bool | None
) -> None:
    lacks = () if asked else LACKS
    with pytest.raises(Refused, match=f"^{option}: not in memory") as caught:
        choose(config, lacks, asked=asked)
    assert ("run as root" in str(caught.value)) is (asked is None)


def told(words: Words) -> tuple[Teller, io.StringIO]:
    file = io.StringIO()
    return Teller(Console(file=file, width=40), words), file


def test_every_line_has_the_label_however_long_it_is() -> None:
    teller, file = told(Words(label="in memory"))
    teller.step("adding [x] pods " * 10)
    teller.heading("Pods")
    teller.line("done")
    assert [line[:12] for line in file.getvalue().splitlines() if line] == [
        "[in memory] ",
        "── [in memor",
        "[in memory] ",
    ]
    assert "adding [x] pods" in file.getvalue()


def test_without_a_label_there_is_none() -> None:
    teller, file = told(Words())
    teller.step("adding")
    teller.line("done")
    assert file.getvalue() == "… adding\ndone\n"


def test_what_is_missing_is_told_one_line_each() -> None:
    teller, file = told(Words(label="in memory"))
    _say_why(teller, LACKS)
    assert file.getvalue().splitlines() == [
        "[in memory] for packets this machine lacks:",
        *(f"[in memory]   - {line}" for line in LACKS),
    ]


def test_what_did_not_hold_is_told_and_counts() -> None:
    teller, file = told(Words(label="in memory"))
    teller.found.note("pods", "12")
    teller.found.expect(held=True, problem="never")
    assert teller.conclude()
    teller.found.expect(held=False, problem="an address is used twice")
    assert not teller.conclude()
    assert "[in memory] did not hold: an address is used twice" in file.getvalue()
    assert "never" not in file.getvalue()


def test_an_etcd_that_forgets_is_not_killed() -> None:
    everybody = {name for group in victims(spares_etcd=False) for name in group}
    assert everybody == {"slicer", "ipam", "endpoints", "etcd", "agent-node-1"}
    spared = {name for group in victims(spares_etcd=True) for name in group}
    assert spared == everybody - {"etcd"}


def pod(name: str, app: str) -> Pod:
    return Pod(
        namespace="shop", name=name, uid=name, owner=app, labels={"app": app}, phase=Phase.RUNNING
    )


def question(source: str, family: str, port: int = 5432) -> Question:
    return Question(
        source=f"shop/{source}",
        destination="shop/database-1",
        port=port,
        protocol="TCP",
        family=family,
        address="",
        source_uid=source,
        node="node-1",
    )


def test_who_would_deny_is_counted_by_owner_and_direction() -> None:
    pods = [
        pod("frontend-1", "frontend"),
        pod("frontend-2", "frontend"),
        pod("database-1", "database"),
    ]
    world = World(
        pods={each.reference: each for each in pods},
        namespaces={"shop": {}},
        policies=read([SHOP]).policies,
    )
    outcomes = {
        question("frontend-1", "ipv4"): Outcome.EGRESS,
        question("frontend-2", "ipv4"): Outcome.EGRESS,
        question("frontend-1", "ipv6"): Outcome.INGRESS,
        question("frontend-2", "ipv6"): Outcome.PASSED,
        question("frontend-2", "ipv6", 9): Outcome.NO_WAY,
    }
    rows = denied_pairs(outcomes, world)
    assert [(row["from"], row["to"], row["verdicts"], row["traffic"]) for row in rows] == [
        ("shop/frontend", "shop/database", 2, "TCP/5432"),
        ("shop/frontend", "shop/database", 1, "TCP/5432"),
    ]
    assert str(rows[0]["denied by"]).startswith("egress: ")
    assert "shop/default-deny" in str(rows[1]["denied by"])
    assert str(rows[1]["denied by"]).startswith("ingress: ")
