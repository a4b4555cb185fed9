"""Any history of services: safe at every step, and in the end as if there had been none."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from deltaplane.delta.changes import Change, ObjectKey, Removal, Upsert
from deltaplane.delta.view import View
from deltaplane.model.addresses import to_mapped
from deltaplane.model.objects import BackendObject, Kind, ServiceObject
from deltaplane.model.ports import Protocol
from deltaplane.model.service import ServicePort, SlicePort
from nodeagent.balancing import execute
from nodeagent.dataplane.balancing import Backend
from nodeagent.dataplane.fake import FakeDataPlane
from nodeagent.services import adopting
from nodeagent.services.balancer import Balancer
from nodeagent.services.drafts import Draft
from nodeagent.services.steps import DeleteSlots, ForgetBackends, SetSlots, Step, WriteTables, steps
from nodeagent.tables import best_fill
from tests.unit.nodeagent.services.stories import (
    WHERE,
    Answers,
    answers,
    backend,
    check_end,
    ip,
    service,
    standing,
)

FILL = best_fill()


class Node:
    """A node, its kernel, and a view that changes."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.view = View()
        self.revision = 0
        self.plane = FakeDataPlane()
        self.balancer = Balancer(WHERE, FILL)

    def services(self) -> dict[int, ServiceObject]:
        return {held.value.number: held.value for held in self.view.services.values()}

    def backends(self) -> list[BackendObject]:
        return [held.value for held in self.view.backends.values()]

    def wanted(self) -> Answers:
        return answers(self.services(), self.backends())

    def change(self) -> set[ObjectKey]:
        """Changes the view as one barrier does."""
        changed = set()
        for _ in range(self.chance.choice([1, 1, 3, 12])):
            number = self.chance.randrange(1, 4)
            self.revision += 1
            change: Change
            if self.chance.random() < 0.25:
                value = service(self.chance, number)
                key = Kind.SERVICE, value.key
                held = self.view.services.get(value.key)
                change = Upsert(value, self.revision)
                if held is not None and self.chance.random() < 0.3:
                    change = Removal(kind=key[0], key=key[1], generation=self.revision)
            else:
                address = ip(1000 + self.chance.randrange(6), self.chance.choice([4, 16]))
                one = backend(self.chance, number, address)
                key = Kind.BACKEND, one.key
                change = Upsert(one, self.revision)
                if one.key in self.view.backends and self.chance.random() < 0.5:
                    change = Removal(kind=key[0], key=key[1], generation=self.revision)
            self.view.apply(change)
            changed.add(key)
        return changed

    def run(self, planned: tuple[Step, ...], before: list[Answers], *, until: int = 99) -> None:
        """A barrier may change a service and its backends: either may be seen first."""
        known = [*before, self.wanted()]
        for step in planned[:until]:
            execute(step, self.plane, FILL)
            for key, (inside, outside) in standing(self.plane.balancing()).items():
                found = [answer[key] for answer in known if key in answer]
                assert inside <= set().union(*(one[0] for one in found)), step
                assert outside is None or outside <= set().union(*(one[1] or () for one in found))

    def advance(self, changed: set[ObjectKey]) -> Draft:
        return self.balancer.advance(self.view, changed)

    def restart(self) -> Draft:
        self.balancer = Balancer(WHERE, FILL)
        self.balancer.learn(self.services().values(), self.backends())
        return self.balancer.adopt(self.plane.balancing())


def serving(wanted: Answers) -> set[tuple[int, Backend]]:
    """(protocol, backend) that clients may be given."""
    return {
        (key.protocol, one)
        for key, (inside, outside) in wanted.items()
        for one in inside | (outside or frozenset())
    }


@pytest.mark.parametrize("seed", range(12))
def test_any_history(seed: int) -> None:
    node = Node(seed)
    for _ in range(12):
        services, backends = node.services(), node.backends()
        changed = node.change()
        before = [
            answers(services, backends),
            answers(services, node.backends()),
            answers(node.services(), backends),
        ]
        planned = steps(node.advance(changed))
        forgotten = {one for s in planned if isinstance(s, ForgetBackends) for one in s.gone}
        assert not forgotten & serving(node.wanted())
        if node.chance.random() < 0.2:
            # The process dies in between, and the next one has never seen what was before.
            node.run(planned, before, until=node.chance.randrange(len(planned) + 1))
            again = standing(node.plane.balancing())
            node.run(steps(node.restart()), [*before, again])
        else:
            node.run(planned, before)
        held = node.plane.balancing()
        check_end(held, node.wanted())
        whole = adopting.everything(
            node.balancer._holdings.values(), node.balancer._frontends.values(), held, FILL
        )
        assert not whole
        draft = node.restart()
        # Nobody is led to the lists of a service that answers nowhere: they get new numbers.
        assert not draft.frontends
        assert node.balancer.shadowed() or not draft, "a restart moves what could stay"
        node.run(steps(draft), before)


def standard(count: int, **changes: Any) -> tuple[Node, list[BackendObject]]:
    """A node with one service on port 80 and its backends."""
    node = Node(1)
    value = ServiceObject(
        number=1,
        namespace="default",
        name="web",
        ports=(ServicePort(port=80),),
        cluster_ips=(ip(1, 4),),
    )
    made = [
        BackendObject(
            service=1, address=ip(1000 + n, 4), ports=(SlicePort(number=8080),), node_index=n % 3
        )
        for n in range(count)
    ]
    values: list[ServiceObject | BackendObject] = [replace(value, **changes), *made]
    for held in values:
        node.revision += 1
        node.view.apply(Upsert(held, node.revision))
    for step in steps(node.restart()):
        execute(step, node.plane, FILL)
    return node, made


def test_one_backend_of_many_costs_what_it_changes() -> None:
    node, made = standard(4000)
    key = Kind.BACKEND, made[7].key
    node.view.apply(Removal(kind=key[0], key=key[1], generation=9999))
    planned = steps(node.advance({key}))
    slots = [step for step in planned if isinstance(step, SetSlots)]
    assert [len(step.slots) for step in slots] == [1]
    assert not [step for step in planned if isinstance(step, WriteTables)]
    assert [len(step.places) for step in planned if isinstance(step, DeleteSlots)] == [1]


def test_places_outside_stay() -> None:
    node, made = standard(10, external_ips=(ip(200, 4),))
    outside = max(one.outside_list for one in node.plane.balancing().frontends)

    def places() -> dict[Backend, int]:
        return {
            slot.backend: slot.slot
            for slot in node.plane.balancing().slots
            if slot.list_id == outside
        }

    before, answered = places(), node.wanted()
    key = Kind.BACKEND, made[0].key
    node.view.apply(Removal(kind=key[0], key=key[1], generation=9999))
    node.run(steps(node.advance({key})), [answered])
    after = places()
    assert len(after) == 9
    assert after.items() <= before.items()


def test_who_is_gone_is_forgotten_only_when_no_list_has_it() -> None:
    udp = (ServicePort(port=53, protocol=Protocol.UDP),)
    node, _ = standard(0, ports=udp)
    one = BackendObject(
        service=1,
        address=ip(1000, 4),
        ports=(SlicePort(number=5353, protocol=Protocol.UDP),),
    )
    other = ServiceObject(
        number=2, namespace="default", name="o", ports=udp, cluster_ips=(ip(2, 4),)
    )
    twin = replace(one, service=2)
    changes: list[ServiceObject | BackendObject] = [one, other, twin]
    for value in changes:
        node.revision += 1
        node.view.apply(Upsert(value, node.revision))
    everything = {(value.kind, value.key) for value in changes}
    node.run(steps(node.advance(everything)), [node.wanted()])
    forgotten = []
    for value in (one, twin):
        key = value.kind, value.key
        node.view.apply(Removal(kind=key[0], key=key[1], generation=9999))
        forgotten.append([s for s in steps(node.advance({key})) if isinstance(s, ForgetBackends)])
    assert not forgotten[0]
    assert forgotten[1] == [
        ForgetBackends(((17, Backend(address=to_mapped(ip(1000, 4)), port=5353)),))
    ]
