"""Interfaces whose links went without a DEL."""

from dataclasses import dataclass, replace

import pytest

from nodeagent.abandoned import ABANDONED_SECONDS, SUPERSEDED_SECONDS, Abandoned, Collector
from nodeagent.cni.netconf import Attachment, PodName
from nodeagent.entries import InterfaceRecord, Kind, State
from tests.unit.nodeagent.planes import FACTS, Plane, add, call
from tests.unit.nodeagent.worlds import pair

OLD = InterfaceRecord(
    number=1,
    state=State.READY,
    attachment=Attachment(network="net", container_id="old", ifname="eth0"),
    attempt="a",
    pod=PodName(namespace="shop", name="web", uid="u"),
    addresses=pair("10.0.0.1"),
)
NEW = replace(OLD, number=2, attachment=replace(OLD.attachment, container_id="new"))
SECOND = replace(OLD, number=3, attachment=replace(OLD.attachment, ifname="net1"))


@dataclass
class Hand:
    """A clock that is set."""

    seconds: float = 1000.0

    def now(self) -> float:
        return self.seconds

    def wall_ns(self) -> int:
        return int(self.seconds * 1e9)


@pytest.mark.parametrize(
    ("others", "seconds"),
    [
        ((), ABANDONED_SECONDS),
        ((NEW,), SUPERSEDED_SECONDS),
        # The other interface of the same sandbox says nothing about this one.
        ((SECOND,), ABANDONED_SECONDS),
        ((replace(NEW, pod=PodName(namespace="shop", name="web-2", uid="u")),), ABANDONED_SECONDS),
        (
            (replace(NEW, pod=PodName(namespace="shop", name="web", uid="other")),),
            ABANDONED_SECONDS,
        ),
    ],
)
def test_how_long_a_link_must_be_gone(others: tuple[InterfaceRecord, ...], seconds: float) -> None:
    abandoned, records = Abandoned(), (OLD, *others)
    linked = {other.number for other in others}
    assert abandoned.look(records, linked, 0.0) == []
    assert abandoned.look(records, linked, seconds - 0.1) == []
    assert abandoned.look(records, linked, seconds) == [OLD]


def test_a_link_that_was_seen_again_counts_anew() -> None:
    abandoned = Abandoned()
    abandoned.look([OLD], (), 0.0)
    abandoned.look([OLD], {1}, 1.0)
    assert abandoned.look([OLD], (), ABANDONED_SECONDS) == []


@pytest.mark.parametrize(
    "other", [replace(OLD, state=State.RELEASING), replace(OLD, kind=Kind.IPAM)]
)
def test_what_has_no_link_is_not_missed(other: InterfaceRecord) -> None:
    abandoned = Abandoned()
    abandoned.look([other], (), 0.0)
    assert abandoned.look([other], (), ABANDONED_SECONDS) == []


async def test_a_forgotten_sandbox_is_released_and_the_pods_other_one_stays(plane: Plane) -> None:
    clock = Hand()
    collector = Collector(
        plane.journal, plane.links, plane.releases, node_uid=FACTS.uid, clock=clock
    )
    await add(plane, "first")
    await add(plane, "second")
    plane.links.links.pop("dp1")

    await collector.collect()
    clock.seconds += SUPERSEDED_SECONDS - 1
    await collector.collect()
    assert len(plane.control.registered) == 2
    clock.seconds += 1
    await collector.collect()

    (left,) = plane.journal.interfaces.values()
    assert left.attachment == call("second").attachment
    assert len(plane.control.registered) == 1
    assert len(plane.dataplane.dump().local_endpoints) == 1
