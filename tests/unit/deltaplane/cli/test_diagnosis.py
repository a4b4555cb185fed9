from datetime import UTC, datetime, timedelta

import pytest

from deltaplane.cli import clocks, diagnosis
from deltaplane.cli.diagnosis import Health
from deltaplane.v1 import agent_pb2, ipam_pb2, registry_pb2, slicer_pb2

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def node_verdict(*agents: slicer_pb2.AgentStatus) -> diagnosis.Verdict:
    known = registry_pb2.ListNodesResponse(nodes=[registry_pb2.Node(name="a")])
    streams = slicer_pb2.ListAgentsResponse(agents=agents, head_revision=7)
    (verdict,) = diagnosis.nodes(known, streams)
    return verdict


@pytest.mark.parametrize(
    ("agents", "health"),
    [
        ((), Health.ILL),
        ((slicer_pb2.AgentStatus(node="a"),), Health.WELL),
        ((slicer_pb2.AgentStatus(node="b"),), Health.ILL),
        # Nothing to say, something to say, and something that it does not say.
        ((slicer_pb2.AgentStatus(node="a", effective_revision=7, silent_seconds=31),), Health.WELL),
        ((slicer_pb2.AgentStatus(node="a", effective_revision=6, silent_seconds=1),), Health.WELL),
        ((slicer_pb2.AgentStatus(node="a", effective_revision=6, silent_seconds=11),), Health.ILL),
        ((slicer_pb2.AgentStatus(node="a", nacked_objects=1),), Health.ILL),
    ],
)
def test_a_node_is_well_while_its_agent_keeps_up(
    agents: tuple[slicer_pb2.AgentStatus, ...], health: Health
) -> None:
    assert node_verdict(*agents).health is health


@pytest.mark.parametrize(("claimed", "health"), [(89, Health.WELL), (90, Health.DOUBTFUL)])
def test_a_pool_that_is_nearly_used_up_is_doubtful(claimed: int, health: Health) -> None:
    status = ipam_pb2.PoolStatus(blocks_total=100, blocks_claimed=claimed)
    assert [item.health for item in diagnosis.pools([status])] == [health]


def test_no_pool_at_all_is_ill() -> None:
    assert [item.health for item in diagnosis.pools([])] == [Health.ILL]


def test_an_agent_tells_what_ails_it() -> None:
    status = agent_pb2.GetStatusResponse(
        node="a", connected=False, held_entries=7, held_of=9, refused=["no room"], version="0"
    )
    found = {item.check: item for item in diagnosis.agent(status, "1")}

    assert found.keys() == {"agent", "brake", "objects", "version"}
    assert found["version"].health is Health.DOUBTFUL
    assert found["brake"].health is Health.ILL
    well = agent_pb2.GetStatusResponse(node="a", connected=True, version="1")
    assert [item.health for item in diagnosis.agent(well, "1")] == [Health.WELL]


@pytest.mark.parametrize(
    ("days", "left", "health"),
    [
        (365, 31, Health.WELL),
        (365, 29, Health.DOUBTFUL),
        (365, -1, Health.ILL),
        (8, 2.1, Health.WELL),
        (8, 1.9, Health.DOUBTFUL),
        (8, 0, Health.ILL),
    ],
)
def test_a_certificate_is_renewed_in_time(days: int, left: float, health: Health) -> None:
    ends = NOW + timedelta(days=left)
    found = diagnosis.certificate("a", "tls.crt", (ends - timedelta(days=days), ends), NOW)
    assert found.health is health
    assert bool(found.advice) == (health is not Health.WELL)


@pytest.mark.parametrize(
    ("told_ms", "health", "seen"),
    [
        (100_000, Health.WELL, "agrees"),
        # The answer took five seconds: the clock may have been read at any time of them.
        (105_900, Health.WELL, "agrees"),
        (107_000, Health.DOUBTFUL, "2.0 s ahead of"),
        (97_500, Health.DOUBTFUL, "2.5 s behind"),
        (-250_000, Health.ILL, "350.0 s behind"),
    ],
)
def test_a_clock_that_is_wrong_is_told_from_a_slow_answer(
    told_ms: int, health: Health, seen: str
) -> None:
    found = diagnosis.skew("a", asked_ms=100_000, told_ms=told_ms, answered_ms=105_000)
    assert found is not None
    assert (found.health, bool(found.advice)) == (health, health is not Health.WELL)
    assert seen in found.seen


def test_an_agent_that_does_not_tell_its_time_is_not_judged_by_it() -> None:
    assert diagnosis.skew("a", asked_ms=5, told_ms=0, answered_ms=6) is None


def test_pins_of_another_version_are_told_from_none() -> None:
    assert diagnosis.pins("a", {"v2": 30}, "v2").health is Health.WELL
    assert diagnosis.pins("a", {"v2": 30, "v1": 3}, "v2").health is Health.DOUBTFUL
    assert diagnosis.pins("a", {"v1": 3}, "v2").health is Health.ILL
    assert diagnosis.worst([diagnosis.pins("a", {}, "v2")]) is Health.ILL


def test_what_the_machine_lacks_says_how_to_get_it() -> None:
    (found,) = diagnosis.missing("a", [("a thing", "buy one")])
    assert (found.health, found.advice) == (Health.ILL, "buy one")


def test_the_clock_can_be_asked_without_privilege() -> None:
    synchronised, error_seconds = clocks.synchronisation()
    assert synchronised in (True, False)
    assert 0 <= error_seconds < 1000
