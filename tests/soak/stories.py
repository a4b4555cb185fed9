"""What a run is made of: a cluster at rest, some operations at once, and what goes wrong meanwhile.

Runs have names. `r17` draws everything from seed 17. `s-tight-7-31-12-3` belongs to a systematic
search: layout, number of the pair of operations, at which step the other one goes first, at which
point something goes wrong, and what.
"""

import random
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from deltaplane.model.addresses import Prefix
from deltaplane.store import keys
from deltaplane.store.port import Put
from deltaplane.v1 import registry_pb2
from nodeagent.pools import Wish
from services.endpoints.wire.records import encode
from services.ipam.changing import Change
from services.ipam.pools import Pool
from tests.soak.agent import SLOTS
from tests.soak.faults import FATES, Faults, Point
from tests.soak.flat import FlatStore
from tests.soak.loop import TURN, Endless, Loop
from tests.soak.world import World, host

NODES = ("n0", "n1")

Operation = Callable[[World], Coroutine[Any, Any, object]]


@dataclass(frozen=True, slots=True)
class Layout:
    """A cluster at rest. Pools: (name, prefix, block length). Pods: (node, slot) that are there.

    Attributes:
        released: pods that were there: their addresses are quarantined.
        idle: the nodes own a block each, and nothing is in it.
    """

    pools: tuple[tuple[str, str, int], ...]
    pods: tuple[tuple[int, int], ...] = ()
    released: tuple[tuple[int, int], ...] = ()
    idle: bool = False


V4 = ("v4", "10.0.0.0/29", 30)
V6 = ("v6", "fd00::/125", 126)

LAYOUTS: Mapping[str, Layout] = {
    # Two nodes, nothing claimed, one block too few for both to have two.
    "fresh": Layout((V4,)),
    # One block for two nodes.
    "tight": Layout((("v4", "10.0.0.0/30", 30),)),
    # Everybody has a block and pods in it.
    "used": Layout((V4,), pods=((0, 0), (0, 2), (1, 1))),
    # Released addresses wait; the next ADD of n0 needs one of them or another block.
    "waiting": Layout((V4,), pods=((0, 0),), released=((0, 2), (0, 4), (0, 6), (1, 1))),
    # Blocks that could be given back, and nobody else could get one.
    "idle": Layout((V4,), idle=True),
    # n1 needs another block, and all are taken.
    "crowded": Layout((V4,), pods=((0, 0), (0, 2), (1, 1), (1, 3), (1, 5), (1, 7))),
    # Both families, all or nothing.
    "dual": Layout((V4, V6), pods=((0, 0), (1, 1))),
}


@lru_cache
def at_rest(name: str) -> World:
    """A world to fork."""
    random.seed(0)
    loop = Loop(lambda count: count - 1)
    hosts = [host(node, i) for i, node in enumerate(NODES)]
    world = World(FlatStore(), hosts, Faults({}), loop)
    populate(world, name)
    loop.finish()
    return world


def populate(world: World, name: str) -> None:
    """Makes an empty cluster that of a layout."""
    layout, loop = LAYOUTS[name], world.loop
    for pool, prefix, length in layout.pools:
        made = Pool.of(pool, Prefix.parse(prefix), length)
        loop.do(world.ipam[0].repository.create_pool(made))
    for number, (_, pod) in enumerate(SLOTS[:6]):
        bound = NODES[number % len(NODES)]
        record = registry_pb2.Pod(
            namespace=pod.namespace, name=pod.name, uid=pod.uid, node=bound, labels={"app": "web"}
        )
        world.backend.transact([], [Put(keys.pod(pod.namespace, pod.name), encode(record))])
    for node in NODES:
        loop.do(world.agents[node].start())
    progress(world)
    gone = layout.released + (((0, 0), (1, 1)) if layout.idle else ())
    for index, slot in layout.pods + gone:
        assert loop.do(world.agents[NODES[index]].add(slot)), (name, index, slot)
    for node in NODES:
        loop.do(world.agents[node].barrier())
    for index, slot in gone:
        loop.do(world.agents[NODES[index]].delete(slot))
    if layout.idle:
        progress(world)
    world.numbered = {
        **world.registry[0].identities._known,
        **world.registry[1].identities._known,
    }
    world.settle()
    world.checks.quiet()
    assert not world.checks.broken, world.checks.broken


def progress(world: World) -> None:
    """Everybody learns everything, and learns that everybody has."""
    for _ in range(2):
        for node in NODES:
            world.loop.do(world.agents[node].barrier())
        world.advance()
    for node in NODES:
        world.loop.do(world.agents[node].barrier())


# --- operations ----------------------------------------------------------------------------------


async def add(world: World, node: int, slot: int) -> None:
    await world.agents[NODES[node]].add(slot)


async def delete(world: World, node: int, slot: int) -> None:
    await world.agents[NODES[node]].delete(slot)


async def again(world: World, node: int, slot: int) -> None:
    """A sandbox is made anew under the same name."""
    await world.agents[NODES[node]].delete(slot)
    await world.agents[NODES[node]].add(slot)


async def cycle(world: World, node: int, slot: int) -> None:
    """DEL, and the address may be handed out again, perhaps at once."""
    await world.agents[NODES[node]].delete(slot)
    await observe(world)
    await world.agents[NODES[node]].add(slot)


async def learn(world: World, node: int, slot: int) -> None:
    """The newest watermark, and an ADD that may make use of it."""
    await world.agents[NODES[node]].barrier()
    await world.agents[NODES[node]].add(slot)


async def give_back(world: World, node: int) -> None:
    await world.agents[NODES[node]].give_back()


async def renew(world: World, node: int, slot: int) -> None:
    """A block goes back and comes again, and is in use again."""
    await world.agents[NODES[node]].give_back()
    for _ in range(2):
        await world.agents[NODES[node]].add(slot)
        await observe(world)
    await world.agents[NODES[node]].add(slot)


async def fixed(world: World, node: int, slot: int, offset: int) -> None:
    """A pod that asks for an address by number; it works when all have heard of the claim."""
    wish = Wish(addresses=(bytes((10, 0, 0, offset)),))
    if not await world.agents[NODES[node]].add(slot, wish):
        await observe(world)
        await world.agents[NODES[node]].add(slot, wish)


async def drain(world: World, end: bool) -> None:
    await world.change_pool(Change(name="v4", draining=not end))


async def grow(world: World) -> None:
    await world.change_pool(Change(name="v4", grow_to=Prefix.parse("10.0.0.0/28")))


async def delete_pool(world: World) -> None:
    await world.delete_pool("v4")


async def create_pool(world: World) -> None:
    await world.create_pool(Pool.of("v4", Prefix.parse("10.0.0.0/29"), 30))


async def barrier(world: World, node: int) -> None:
    await world.agents[NODES[node]].barrier()


async def observe(world: World) -> None:
    """All acknowledge, the watermark moves, all hear of it."""
    for agent in list(world.agents.values()):
        await agent.barrier()
    await TURN
    world.advance()
    for agent in list(world.agents.values()):
        await agent.barrier()


async def advance(world: World) -> None:
    await TURN
    world.advance()


async def delete_node(world: World, node: int) -> None:
    await world.delete_node(NODES[node])


async def replace_node(world: World, node: int) -> None:
    await world.replace_node(world.hosts[node])


async def rejoin(world: World, node: int) -> None:
    await world.rejoin(world.hosts[node])


def _operations() -> Iterator[tuple[int, Operation]]:
    """(weight, operation)."""
    for slot in range(len(SLOTS)):
        node = slot % 2
        weight = 2 if slot < 6 else 1
        yield 2 * weight, partial(add, node=node, slot=slot)
        if slot < 4:
            yield 1, partial(learn, node=node, slot=slot)
            yield 2, partial(delete, node=node, slot=slot)
            yield 1, partial(again, node=node, slot=slot)
            yield 1, partial(cycle, node=node, slot=slot)
    for node in range(2):
        yield 3, partial(give_back, node=node)
        yield 2, partial(renew, node=node, slot=node)
        yield 1, partial(fixed, node=node, slot=node + 4, offset=1)
        yield 1, partial(fixed, node=node, slot=node + 2, offset=5)
        yield 2, partial(barrier, node=node)
        yield 1, partial(delete_node, node=node)
        yield 1, partial(replace_node, node=node)
        yield 2, partial(rejoin, node=node)
    yield 1, partial(drain, end=False)
    yield 1, partial(drain, end=True)
    yield 1, grow
    yield 1, delete_pool
    yield 1, create_pool
    yield 2, observe
    yield 1, advance


WEIGHTED = tuple(_operations())
OPERATIONS: Sequence[Operation] = tuple(operation for _, operation in WEIGHTED)
_BAG: Sequence[int] = tuple(
    number for number, (weight, _) in enumerate(WEIGHTED) for _ in range(weight)
)

PAIRS: Sequence[tuple[str, Operation, Operation]] = (
    ("tight", partial(add, node=0, slot=0), partial(add, node=1, slot=1)),
    ("fresh", partial(add, node=0, slot=0), partial(add, node=0, slot=2)),
    ("fresh", partial(add, node=0, slot=0), partial(delete_node, node=0)),
    ("fresh", partial(add, node=0, slot=0), partial(rejoin, node=0)),
    ("used", partial(again, node=0, slot=0), partial(add, node=0, slot=4)),
    ("used", partial(cycle, node=0, slot=0), partial(add, node=0, slot=4)),
    ("used", partial(delete, node=0, slot=0), partial(rejoin, node=0)),
    ("used", partial(delete, node=0, slot=0), partial(delete_node, node=0)),
    ("used", partial(add, node=1, slot=3), partial(replace_node, node=0)),
    ("waiting", partial(add, node=0, slot=2), observe),
    ("waiting", partial(add, node=0, slot=2), partial(give_back, node=1)),
    ("waiting", partial(cycle, node=0, slot=0), partial(barrier, node=0)),
    ("crowded", partial(add, node=1, slot=9), partial(delete_node, node=0)),
    ("crowded", partial(add, node=1, slot=9), partial(replace_node, node=0)),
    ("idle", partial(give_back, node=0), partial(add, node=1, slot=1)),
    ("idle", partial(give_back, node=0), partial(add, node=0, slot=0)),
    ("idle", partial(renew, node=0, slot=0), partial(add, node=1, slot=1)),
    ("fresh", partial(fixed, node=0, slot=0, offset=5), partial(add, node=1, slot=1)),
    ("used", partial(fixed, node=0, slot=4, offset=5), partial(add, node=1, slot=3)),
    ("fresh", partial(add, node=0, slot=0), delete_pool),
    ("fresh", partial(add, node=0, slot=0), partial(drain, end=False)),
    ("dual", partial(add, node=0, slot=2), partial(delete, node=0, slot=0)),
)
"""What is searched systematically."""


# --- runs ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        name: repeats it.
        told: what was done and what went wrong, for people.
        counts: it is an interleaving: something went wrong while two operations were under way.
        broken: invariants that did not hold; empty: fine.
        steps: that the loop took.
        points: where something could go wrong.
    """

    name: str
    told: str
    counts: bool
    broken: tuple[str, ...]
    steps: int
    points: int


Make = Callable[[str, Faults, Loop], World]
"""A cluster of a layout, at rest."""


def play(name: str, kind: type[World] = World, make: Make | None = None) -> Outcome:
    """Runs a name.

    Args:
        name: see above.
        kind: of world, right or wrong.
        make: where it runs; None: on the flat store.
    """
    for layout in LAYOUTS:
        at_rest(layout)  # once, and before chance comes in

    def fork(layout: str, faults: Faults, loop: Loop) -> World:
        return at_rest(layout).fork(kind, faults, loop)

    if name.startswith("r"):
        return _play_random(name, int(name[1:]), make or fork)
    _, layout, *numbers = name.split("-")
    pair, switch, point, fate = map(int, numbers)
    return _play_systematic(name, layout, pair, switch, {point: fate}, make or fork)


def _play_random(name: str, seed: int, make: Make) -> Outcome:
    random.seed(seed)
    draw = random.random
    layout = _pick(tuple(LAYOUTS))
    wild = _pick((0.15, 0.4, 1.0))
    operations = [OPERATIONS[_pick(_BAG)] for _ in range(_pick((2, 2, 2, 3, 3, 4)))]
    plan = {int(draw() * 9 * len(operations)): int(draw() * 60) for _ in range(_pick((1, 1, 2, 3)))}

    def choose(count: int) -> int:
        return int(draw() * count) if draw() < wild else count - 1

    return _run(name, layout, operations, Faults(plan), choose, make, drain=seed % 16 == 0)


def _play_systematic(
    name: str, layout: str, pair: int, switch: int, plan: Mapping[int, int], make: Make
) -> Outcome:
    random.seed(0)
    left = switch

    def choose(count: int) -> int:
        nonlocal left
        left -= 1
        return 0 if left == 0 else count - 1

    _, first, second = PAIRS[pair]
    # The last that was begun is the first to run.
    return _run(name, layout, (second, first), Faults(plan), choose, make, drain=False)


def play_alone(
    operation: Operation, layout: str, plan: Mapping[int, int], seed: int, kind: type[World]
) -> Outcome:
    """One operation, one plan: for what chance alone finds too seldom."""
    at_rest(layout)
    random.seed(seed)

    def fork(name: str, faults: Faults, loop: Loop) -> World:
        return at_rest(name).fork(kind, faults, loop)

    def choose(count: int) -> int:
        return int(random.random() * count)

    return _run(f"alone-{seed}", layout, [operation], Faults(plan), choose, fork, drain=False)


def systematic(kind: type[World] = World) -> Iterator[str]:
    """Names of all runs with one change of turn and one fault, pair by pair."""
    for pair, (layout, _, _) in enumerate(PAIRS):
        calm = play(f"s-{layout}-{pair}-0-{1 << 30}-0", kind)
        for switch in range(calm.steps):
            for point in range(calm.points):
                for fate in range(len(FATES[Point.WRITE])):
                    yield f"s-{layout}-{pair}-{switch}-{point}-{fate}"


def _run(
    name: str,
    layout: str,
    operations: Sequence[Operation],
    faults: Faults,
    choose: Callable[[int], int],
    make: Make,
    *,
    drain: bool,
) -> Outcome:
    loop = Loop(choose)
    world = make(layout, faults, loop)
    for operation in operations:
        world.start(operation(world))
    try:
        world.settle()
        steps = loop.steps
        if not world.checks.broken:
            world.checks.quiet()
        if drain and not world.checks.broken:
            _drain(world)
    except Endless as error:
        steps = loop.steps
        world.checks.fail(str(error))
    broken = tuple(world.checks.broken)
    loop.finish()
    return Outcome(
        name=name,
        told=f"{layout}: {'; '.join(map(_describe, operations))} | {_faults(faults)}"
        if broken
        else "",
        counts=bool(faults.fired),
        broken=broken,
        steps=steps,
        points=faults.passed,
    )


def _drain(world: World) -> None:
    """Everything is released: nothing is held any more."""
    for _ in range(2):
        for node, agent in world.agents.items():
            for record in list(world.host(node).ledger.interfaces.values()):
                world.loop.do(agent.delete(SLOT_OF[record.attachment]))
        progress(world)
    for node, agent in world.agents.items():
        while blocks := len(world.host(node).ledger.blocks):
            world.loop.do(agent.give_back())
            if len(world.host(node).ledger.blocks) == blocks:
                break
    left = [
        key
        for key in world.items()
        if key.startswith((keys.BLOCKS, keys.BLOCK_REQUESTS, keys.ENDPOINTS, keys.ADDRESSES))
    ]
    if left or any(host.ledger.blocks or host.links for host in world.hosts):
        world.checks.fail(f"all was released, but there are {left}; {world.hosts}")


SLOT_OF = {attachment: slot for slot, (attachment, _) in enumerate(SLOTS)}


def _pick(choices: Sequence[Any]) -> Any:
    return choices[int(random.random() * len(choices))]


def _describe(operation: Operation) -> str:
    if isinstance(operation, partial):
        values = ", ".join(f"{name}={value}" for name, value in operation.keywords.items())
        return f"{operation.func.__name__}({values})"
    return operation.__name__


def _faults(faults: Faults) -> str:
    return ", ".join(f"{number}: {point.name} {fate.value}" for number, point, fate in faults.fired)
