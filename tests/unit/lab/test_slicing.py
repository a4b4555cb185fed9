"""The lab's endpoint slices are those that Kubernetes' controller would make."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaplane.model.addresses import parse_address
from deltaplane.model.ports import Protocol
from deltaplane.model.service import (
    Distribution,
    EndpointSlice,
    Service,
    ServicePort,
    SliceEndpoint,
    SlicePort,
)
from lab import slicing
from lab.pods import READY, Phase, Pod, Port
from lab.slicing import SliceChange

SERVICE = Service(
    namespace="shop", name="web", ports=(ServicePort(port=80),), selector=(("app", "web"),)
)
ZONES = {"node-1": "west", "node-2": "east"}


def pod(number: int, **fields: Any) -> Pod:
    known = Pod(
        namespace="shop",
        name=f"web-{number}",
        uid=f"uid-{number}",
        node=f"node-{1 + number % 2}",
        labels={"app": "web"},
        phase=Phase.RUNNING,
        addresses=(f"10.244.{number >> 8}.{number & 255}", f"fd00:244::{number + 1:x}"),
    )
    return replace(known, **fields)


def plan(
    pods: Iterable[Pod],
    existing: Iterable[EndpointSlice] = (),
    service: Service = SERVICE,
    families: Sequence[int] = (4,),
) -> SliceChange:
    return slicing.plan(service, families, pods, ZONES, existing)


def after(existing: Iterable[EndpointSlice], change: SliceChange) -> list[EndpointSlice]:
    there = {item.name: item for item in existing}
    there |= {item.name: item for item in change.write}
    for item in change.remove:
        del there[item.name]
    return list(there.values())


def only(pods: Iterable[Pod], service: Service = SERVICE) -> SliceEndpoint:
    (written,) = plan(pods, service=service).write
    (endpoint,) = written.endpoints
    return endpoint


def test_a_service_gets_a_slice_for_each_of_its_families() -> None:
    change = plan([pod(1)], families=(4, 6))

    assert [item.name for item in change.write] == ["web-ipv4-1", "web-ipv6-1"]
    assert change.write[0] == EndpointSlice(
        namespace="shop",
        name="web-ipv4-1",
        service="web",
        ports=(SlicePort(number=80),),
        endpoints=(
            SliceEndpoint(address=parse_address("10.244.0.1"), node="node-2", target="shop/web-1"),
        ),
    )


@pytest.mark.parametrize(
    "other",
    [
        {"namespace": "other"},
        {"labels": {"app": "db"}},
        {"labels": {}},
        {"phase": Phase.ADDING},
        {"addresses": ()},
    ],
)
def test_other_pods_are_left_out(other: dict[str, Any]) -> None:
    assert plan([pod(1, **other)]) == SliceChange()


def test_what_pods_are_shows_in_conditions() -> None:
    unready = pod(1, annotations={READY: "false"})
    gone = pod(1, phase=Phase.TERMINATING)
    early = replace(SERVICE, publish_not_ready=True)

    def conditions(one: Pod, service: Service = SERVICE) -> tuple[bool, bool, bool]:
        endpoint = only([one], service)
        return endpoint.ready, endpoint.serving, endpoint.terminating

    assert conditions(pod(1)) == (True, True, False)
    assert conditions(unready) == (False, False, False)
    assert conditions(gone) == (False, True, True)
    assert conditions(replace(unready, phase=Phase.TERMINATING)) == (False, False, True)
    assert conditions(unready, early) == (True, False, False)
    assert conditions(gone, early) == (True, True, True)


def test_named_ports_are_looked_up_on_each_pod() -> None:
    service = replace(
        SERVICE,
        ports=(
            ServicePort(name="http", port=80, target="web"),
            ServicePort(name="dns", protocol=Protocol.UDP, port=53, target="dns"),
            ServicePort(name="fixed", port=81, target="8081"),
        ),
    )
    one = pod(1, ports=(Port("TCP", 8080, "web"), Port("TCP", 53, "dns")))
    two = pod(2, ports=(Port("TCP", 9090, "web"), Port("UDP", 5353, "dns")))
    three = pod(3, ports=one.ports)

    written = plan([one, two, three], service=service).write

    assert {item.ports: [e.target for e in item.endpoints] for item in written} == {
        (SlicePort(name="http", number=8080), SlicePort(name="fixed", number=8081)): [
            "shop/web-1",
            "shop/web-3",
        ],
        (
            SlicePort(name="http", number=9090),
            SlicePort(name="dns", protocol=Protocol.UDP, number=5353),
            SlicePort(name="fixed", number=8081),
        ): ["shop/web-2"],
    }


def test_a_name_below_the_service_only_where_the_pod_names_it() -> None:
    known = {"hostname": "web-1", "subdomain": "web"}
    assert only([pod(1, **known)]).hostname == "web-1"
    assert only([pod(1, **{**known, "subdomain": "db"})]).hostname == ""


@pytest.mark.parametrize(
    ("wanted", "zones", "nodes"),
    [
        (Distribution.ANY, (), ()),
        (Distribution.SAME_ZONE, ("east",), ()),
        (Distribution.SAME_NODE, ("east",), ("node-2",)),
    ],
)
def test_hints(wanted: Distribution, zones: tuple[str, ...], nodes: tuple[str, ...]) -> None:
    service = replace(SERVICE, distribution=wanted)
    found = only([pod(1)], service)
    assert (found.zones, found.nodes) == (zones, nodes)
    unready = only([pod(1, annotations={READY: "false"})], service)
    assert (unready.zones, unready.nodes) == ((), ())


def test_a_service_without_a_selector_is_left_to_others() -> None:
    theirs = EndpointSlice(namespace="shop", name="theirs", service="web")
    assert plan([pod(1)], [theirs], replace(SERVICE, selector=None)) == SliceChange()
    assert plan([], [theirs]) == SliceChange()


def test_slices_go_with_the_selector() -> None:
    there = plan([pod(1)]).write
    assert plan([pod(1)], there, replace(SERVICE, selector=None)).remove == there


def test_at_most_a_hundred_in_a_slice() -> None:
    there = plan(map(pod, range(250))).write
    assert [len(item.endpoints) for item in there] == [100, 100, 50]


def test_one_changed_pod_rewrites_one_slice() -> None:
    pods = [pod(number) for number in range(250)]
    there = plan(pods).write
    pods[120] = pod(120, annotations={READY: "false"})

    change = plan(pods, there)

    assert [item.name for item in change.write] == ["web-ipv4-2"]
    assert change.remove == ()
    assert plan(pods, after(there, change)) == SliceChange()


def test_a_pod_that_replaces_another_takes_its_place() -> None:
    pods = [pod(number) for number in range(250)]
    there = plan(pods).write
    pods[120] = pod(900)

    (written,) = plan(pods, there).write

    assert written.name == "web-ipv4-2"
    assert len(written.endpoints) == 100


def test_new_pods_go_where_there_is_room() -> None:
    pods = [pod(number) for number in range(150)]
    there = plan(pods).write
    change = plan([*pods, pod(500)], there)
    assert [(item.name, len(item.endpoints)) for item in change.write] == [("web-ipv4-2", 51)]


def test_another_port_rewrites_the_slices_under_their_names() -> None:
    pods = [pod(number) for number in range(150)]
    there = plan(pods).write
    change = plan(pods, there, replace(SERVICE, ports=(ServicePort(port=81),)))
    assert [item.name for item in change.write] == ["web-ipv4-1", "web-ipv4-2"]
    assert change.remove == ()


def test_the_last_pod_takes_the_slice_with_it() -> None:
    there = plan([pod(1)]).write
    assert plan([], there) == SliceChange(remove=there)


def test_slices_of_services_whose_names_begin_alike_are_told_apart() -> None:
    other = EndpointSlice(namespace="shop", name="web-ipv4-1-ipv4-1", service="web-ipv4-1")
    assert not slicing.is_own("web", other)
    assert slicing.is_own("web-ipv4-1", other)


PODS = st.lists(
    st.builds(
        pod,
        st.integers(0, 400),
        phase=st.sampled_from([Phase.RUNNING, Phase.TERMINATING, Phase.ADDING]),
        ports=st.sampled_from([(), (Port("TCP", 8080, "web"),), (Port("TCP", 9090, "web"),)]),
        annotations=st.sampled_from([{}, {READY: "false"}]),
    ),
    max_size=40,
    unique_by=lambda item: item.name,
)


@settings(max_examples=60)
@given(stories=st.lists(PODS, min_size=1, max_size=5), limit=st.sampled_from([1, 3, 100]))
def test_slices_always_say_what_pods_are(stories: list[list[Pod]], limit: int) -> None:
    service = replace(SERVICE, ports=(ServicePort(port=80, target="web"),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slicing, "MAX_ENDPOINTS", limit)
        there: list[EndpointSlice] = []
        for pods in stories:
            change = plan(pods, there, service, (4, 6))
            there = after(there, change)
            wanted = slicing.endpoints(service, (4, 6), pods, ZONES)
            found = {(item.ports, endpoint) for item in there for endpoint in item.endpoints}
            assert found == {
                (ports, endpoint)
                for (_, ports), group in wanted.items()
                for endpoint in group.values()
            }
            assert sum(len(item.endpoints) for item in there) == len(found)
            assert all(0 < len(item.endpoints) <= limit for item in there)
            assert all(len({len(e.address) for e in item.endpoints}) == 1 for item in there)
            # What is not concerned is not written, and what is written differs.
            assert plan(pods, there, service, (4, 6)) == SliceChange()
