"""Given records in any order and after any history: the same backends, and only what changed."""

from collections.abc import Mapping

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from deltaplane.balancing.compiler import Compiler
from deltaplane.balancing.merging import Contribution, matching, merge
from deltaplane.model.objects import BackendObject, BackendState
from deltaplane.model.ports import Protocol
from deltaplane.model.service import (
    EndpointSlice,
    Service,
    ServicePort,
    ServiceType,
    SliceEndpoint,
    SlicePort,
)

HTTP = ServicePort(name="http", port=80)
DNS = ServicePort(name="dns", port=53, protocol=Protocol.UDP)
V4, V6 = bytes((10, 96, 0, 1)), bytes(15) + b"\x01"


def address(number: int, *, v6: bool = False) -> bytes:
    return number.to_bytes(16 if v6 else 4)


def service(
    name: str = "web", number: int = 1, *ports: ServicePort, ips: tuple[bytes, ...] = (V4,)
) -> Service:
    return Service(
        namespace="shop", name=name, number=number, ports=ports or (HTTP,), cluster_ips=ips
    )


def endpoints(
    name: str, *items: SliceEndpoint, of: str = "web", port: int = 8080, named: str = "http"
) -> EndpointSlice:
    ports = (SlicePort(name=named, number=port),)
    return EndpointSlice(namespace="shop", name=name, service=of, ports=ports, endpoints=items)


class World:
    """A compiler, the records that it was told last, and the backends that it has told."""

    def __init__(self) -> None:
        self.compiler = Compiler()
        self.services: dict[str, Service] = {}
        self.slices: dict[str, EndpointSlice] = {}
        self.nodes: dict[str, int] = {}
        self.backends: dict[bytes, BackendObject] = {}
        self.changed = 0

    def set(self, item: Service | EndpointSlice) -> None:
        if isinstance(item, Service):
            self.services[item.name] = item
            self.compiler.set_service(item)
        else:
            self.slices[item.name] = item
            self.compiler.set_slice(item)

    def unset(self, item: Service | EndpointSlice) -> None:
        if isinstance(item, Service):
            self.services.pop(item.name, None)
            self.compiler.delete_service("shop", item.name)
        else:
            self.slices.pop(item.name, None)
            self.compiler.delete_slice("shop", item.name)

    def set_node(self, name: str, index: int) -> None:
        if index:
            self.nodes[name] = index
            self.compiler.set_node(name, index)
        else:
            self.nodes.pop(name, None)
            self.compiler.delete_node(name)

    def flush(self) -> None:
        balanced = self.compiler.flush()
        self.changed = len(balanced.upserts) + len(balanced.removals)
        for _, key in balanced.removals:
            del self.backends[key]
        for backend in balanced.upserts:
            assert self.backends.get(backend.key) != backend, "nothing changed"
            self.backends[backend.key] = backend

    def expected(self) -> Mapping[bytes, BackendObject]:
        """From scratch: every service against every slice."""
        found: dict[bytes, BackendObject] = {}
        owners: dict[int, str] = {}
        for name, it in self.services.items():
            owners[it.number] = min(name, owners.get(it.number, name))
        for name, it in self.services.items():
            if owners[it.number] != name or it.type is ServiceType.EXTERNAL_NAME:
                continue
            said: dict[bytes, list[Contribution]] = {}
            for piece in self.slices.values():
                for endpoint in piece.endpoints if piece.service == name else ():
                    if len(endpoint.address) in map(len, it.cluster_ips):
                        ports = matching(it, piece.ports)
                        one = Contribution((piece.namespace, piece.name), ports, endpoint)
                        said.setdefault(endpoint.address, []).append(one)
            for ip, contributions in said.items():
                backend = merge(it.number, ip, contributions, self.nodes)
                if backend is not None:
                    found[backend.key] = backend
        return found


@pytest.fixture
def world() -> World:
    return World()


def test_slices_may_come_before_their_service(world: World) -> None:
    world.set(endpoints("a", SliceEndpoint(address=address(1), node="n")))
    world.flush()
    assert not world.backends
    world.set(service(number=7))
    world.set_node("n", 3)
    world.flush()
    (backend,) = world.backends.values()
    assert backend == BackendObject(
        service=7,
        address=address(1),
        ports=(SlicePort(name="http", number=8080),),
        node_index=3,
    )


def test_a_service_of_another_number_takes_its_backends_along(world: World) -> None:
    world.set(service(number=7))
    world.set(endpoints("a", SliceEndpoint(address=address(1))))
    world.flush()
    world.unset(service())
    world.set(service(number=8))
    world.flush()
    assert [backend.service for backend in world.backends.values()] == [8]


def test_who_is_ready_wins_and_ports_are_united(world: World) -> None:
    world.set(service("web", 1, HTTP, ServicePort(name="admin", port=81)))
    going = SliceEndpoint(address=address(1), ready=False, terminating=True, zones=("b",))
    world.set(endpoints("a", going, named="admin", port=9090))
    world.set(endpoints("b", SliceEndpoint(address=address(1), zones=("a",))))
    world.flush()
    (backend,) = world.backends.values()
    assert backend.state is BackendState.READY
    assert backend.zones == ("a",)
    assert [(port.name, port.number) for port in backend.ports] == [
        ("admin", 9090),
        ("http", 8080),
    ]


@pytest.mark.parametrize(
    ("endpoint", "state"),
    [
        (SliceEndpoint(address=address(1)), BackendState.READY),
        (SliceEndpoint(address=address(1), terminating=True), BackendState.READY),
        (SliceEndpoint(address=address(1), ready=False), None),
        (
            SliceEndpoint(address=address(1), ready=False, terminating=True),
            BackendState.TERMINATING,
        ),
        (
            SliceEndpoint(address=address(1), ready=False, serving=False, terminating=True),
            None,
        ),
    ],
)
def test_what_may_be_used(
    world: World, endpoint: SliceEndpoint, state: BackendState | None
) -> None:
    world.set(service())
    world.set(endpoints("a", endpoint))
    world.flush()
    assert [it.state for it in world.backends.values()] == ([] if state is None else [state])


def test_name_and_protocol_of_a_port_must_be_the_services(world: World) -> None:
    world.set(service("web", 1, DNS))
    world.set(endpoints("a", SliceEndpoint(address=address(1)), named="dns"))  # TCP
    world.set(endpoints("b", SliceEndpoint(address=address(2)), named="http"))
    world.flush()
    assert not world.backends


def test_another_port_of_the_service_is_another_choice_of_backends(world: World) -> None:
    world.set(service("web", 1, HTTP))
    world.set(endpoints("a", SliceEndpoint(address=address(1))))
    world.set(endpoints("b", SliceEndpoint(address=address(2)), named="admin"))
    for port, numbers in ((HTTP, [1]), (ServicePort(name="admin", port=81), [2]), (DNS, [])):
        world.set(service("web", 1, port))
        world.flush()
        assert [it.address for it in world.backends.values()] == list(map(address, numbers))


def test_a_number_that_two_services_claim_is_the_first_ones_by_name(world: World) -> None:
    world.set(service("b", 1))
    world.set(endpoints("b-1", SliceEndpoint(address=address(2)), of="b"))
    world.flush()
    assert [it.address for it in world.backends.values()] == [address(2)]
    world.set(service("a", 1))
    world.flush()
    assert not world.backends
    world.unset(service("a"))
    world.flush()
    assert [it.address for it in world.backends.values()] == [address(2)]


def test_a_node_that_goes_takes_its_number_along(world: World) -> None:
    world.set(service())
    world.set(endpoints("a", SliceEndpoint(address=address(1), node="n")))
    for index in (3, 0, 4):
        world.set_node("n", index)
        world.flush()
        assert [it.node_index for it in world.backends.values()] == [index]


def test_a_family_without_frontends_has_no_backends(world: World) -> None:
    world.set(service(ips=(V4,)))
    world.set(endpoints("a", SliceEndpoint(address=address(1, v6=True))))
    world.flush()
    assert not world.backends
    world.set(service(ips=(V4, V6)))
    world.flush()
    assert [it.address for it in world.backends.values()] == [address(1, v6=True)]


@pytest.mark.parametrize("ready", [True, False])
def test_only_what_was_given_to_clients_is_withdrawn(world: World, ready: bool) -> None:
    world.set(service())
    world.set(endpoints("a", SliceEndpoint(address=address(1), ready=ready)))
    world.flush()
    assert not world.compiler.withdraws
    world.set(endpoints("a"))
    assert world.compiler.withdraws == ready
    world.flush()
    assert not world.compiler.withdraws


def test_one_changed_backend_of_4000_is_one_change(world: World) -> None:
    world.set(service())
    for number in range(40):
        items = (SliceEndpoint(address=address(number * 100 + i)) for i in range(100))
        world.set(endpoints(f"s{number}", *items))
    world.flush()
    assert len(world.backends) == world.changed == 4000
    changed = [SliceEndpoint(address=address(700 + i), ready=i != 5) for i in range(100)]
    world.set(endpoints("s7", *changed))
    world.flush()
    assert world.changed == 1


def test_nothing_is_left_of_what_is_gone(world: World) -> None:
    items: list[Service | EndpointSlice] = [
        service(),
        endpoints("a", SliceEndpoint(address=address(1), node="n")),
        endpoints("b", of="nobody"),
        service("none", 2),
    ]
    for item in items:
        world.set(item)
    world.flush()
    for item in items:
        world.unset(item)
    world.flush()
    compiler = world.compiler
    left = (compiler._groups, compiler._slices, compiler._on_node, compiler._claims)
    assert not any(left)


NAMES = st.sampled_from(["a", "b"])
ADDRESSES = st.builds(address, st.integers(1, 4), v6=st.booleans())
SERVICES = st.builds(
    service,
    NAMES,
    st.integers(1, 2),
    st.sampled_from([HTTP, DNS]),
    ips=st.sampled_from([(), (V4,), (V6,), (V6, V4)]),
)
ENDPOINTS = st.builds(
    SliceEndpoint,
    address=ADDRESSES,
    ready=st.booleans(),
    serving=st.booleans(),
    terminating=st.booleans(),
    node=st.sampled_from(["", "n1", "n2"]),
    zones=st.sampled_from([(), ("a",), ("a", "b")]),
)
SLICES = st.builds(
    lambda name, of, port, items: endpoints(name, *items, of=of, port=port),
    st.sampled_from(["s1", "s2", "s3"]),
    NAMES,
    st.integers(1, 2),
    st.lists(ENDPOINTS, max_size=4),
)


class Histories(RuleBasedStateMachine):
    """What was told adds up to what the last records say, whenever somebody looks."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @rule(item=st.one_of(SERVICES, SLICES))
    def put(self, item: Service | EndpointSlice) -> None:
        self.world.set(item)

    @rule(item=st.one_of(SERVICES, SLICES))
    def remove(self, item: Service | EndpointSlice) -> None:
        self.world.unset(item)

    @rule(name=st.sampled_from(["n1", "n2"]), index=st.integers(0, 2))
    def node(self, name: str, index: int) -> None:
        self.world.set_node(name, index)

    @rule()
    def flush(self) -> None:
        self.world.flush()
        assert self.world.backends == self.world.expected()


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
