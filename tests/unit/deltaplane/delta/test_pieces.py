"""What is encoded again when something changes: no more than a part of its kind."""

from deltaplane.delta.changes import Change, Recorded, Removal, Upsert
from deltaplane.delta.pieces import Pieces
from deltaplane.delta.view import View
from deltaplane.delta.wire import ProtobufEncoder
from deltaplane.model.addresses import AddressPair
from deltaplane.model.objects import BackendObject, Kind, NodeObject, ServiceObject, StreamObject
from deltaplane.model.service import ServicePort, SlicePort


class World:
    """A view with its pieces."""

    def __init__(self, *values: StreamObject) -> None:
        self.view = View()
        for value in values:
            self.view.apply(Upsert(value, 1))
        self.pieces = Pieces(self.view, ProtobufEncoder())

    def take(self, change: Change) -> None:
        held = self.view.get(change.object_key)
        self.view.apply(change)
        self.pieces.touch([Recorded(change, held.value if held else None)])

    def encoded(self) -> tuple[int, list[bytes]]:
        """Pieces of what everybody is told, and how many of them were made for this call."""
        before = self.pieces.encoded
        found = list(self.pieces.common())
        return self.pieces.encoded - before, found


def backend(number: int, node_index: int = 0) -> BackendObject:
    ports = (SlicePort(name="http", number=8080),)
    return BackendObject(service=1, address=number.to_bytes(4), ports=ports, node_index=node_index)


SERVICE = ServiceObject(number=1, namespace="shop", name="web", ports=(ServicePort(port=80),))
NODE = NodeObject(index=1, name="node-1", addresses=AddressPair(ipv4=bytes(4)))


def test_a_changed_backend_costs_one_part_of_all_of_them() -> None:
    world = World(NODE, SERVICE, *map(backend, range(4000)))
    everything, _ = world.encoded()
    assert everything > 100
    assert world.encoded()[0] == 0
    world.take(Upsert(backend(7, node_index=2), 2))
    assert world.encoded()[0] == 1


def test_parts_are_those_of_a_view_that_is_read_anew() -> None:
    world = World(NODE, SERVICE, *map(backend, range(300)))
    world.encoded()
    world.take(Upsert(backend(7, node_index=2), 2))
    world.take(Upsert(backend(1000), 3))
    gone = backend(8)
    world.take(Removal(kind=Kind.BACKEND, key=gone.key, generation=4))
    _, found = world.encoded()
    anew = Pieces(world.view, ProtobufEncoder())
    assert sorted(found) == sorted(anew.common())
