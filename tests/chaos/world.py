"""The pods, policies and services that come and go meanwhile, from a seed. Pure.

namespace `still`: one pod a node, which stays; they ping each other and send to everybody.
namespace `vault`: guests that nobody may reach, and one keeper a node that lets only friends in.
namespace `open`:  guests, each a friend or a foe, and half of them may become the other. A policy
                   may shut all friends, or all foes.

Guests' names come again under other UIDs, and so do their addresses.
"""

import enum
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

FRIEND, FOE = "friend", "foe"
APPS = (FRIEND, FOE)
STILL, VAULT, OPEN = "still", "vault", "open"


class Act(enum.StrEnum):
    """What a step does."""

    ADD = "add"
    REMOVE = "remove"
    RELABEL = "relabel"
    SHUT = "shut"
    REOPEN = "reopen"
    SERVE = "serve"
    CLOSE = "close"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A pod that comes and goes.

    Attributes:
        app: its label; guests of the vault have none of APPS.
    """

    namespace: str
    name: str
    app: str
    node: str

    @property
    def reference(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"

    @property
    def is_steady(self) -> bool:
        """Whether it stays what it is until it goes: every other one of `open` does."""
        return self.namespace != OPEN or self.name in STEADY


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change.

    Attributes:
        guest: who comes, goes, or gets another label; as it is afterwards.
        app: which guests of `open` are shut, opened again, served or not served any more.
    """

    number: int
    act: Act
    guest: Guest | None = None
    app: str = ""

    def __str__(self) -> str:
        what = self.app
        if self.guest is not None:
            what = f"{self.guest.reference} ({self.guest.app}) on {self.guest.node}"
        return f"step {self.number}: {self.act} {what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What there is.

    Attributes:
        guests: by reference.
        shut: of APPS, those that a policy shuts.
        served: of APPS, those that have a service.
    """

    guests: Mapping[str, Guest] = field(default_factory=dict)
    shut: frozenset[str] = frozenset()
    served: frozenset[str] = frozenset()

    def after(self, step: Step) -> "World":
        """The world after a step."""
        guests = dict(self.guests)
        if step.guest is not None:
            guests.pop(step.guest.reference, None)
            if step.act is not Act.REMOVE:
                guests[step.guest.reference] = step.guest
        app = frozenset({step.app})
        match step.act:
            case Act.SHUT:
                return replace(self, shut=self.shut | app)
            case Act.REOPEN:
                return replace(self, shut=self.shut - app)
            case Act.SERVE:
                return replace(self, served=self.served | app)
            case Act.CLOSE:
                return replace(self, served=self.served - app)
            case _:
                return replace(self, guests=guests)

    def is_forbidden(self, guest: Guest) -> bool:
        """Whether no packet may reach a guest."""
        return guest.namespace == VAULT or guest.app in self.shut


NAMES = {VAULT: 4, OPEN: 8}
"""How many guests a namespace has at most."""

STEADY = frozenset(f"guest-{number}" for number in range(0, NAMES[OPEN], 2))

PODS_OF_TEN = 7
"""Of ten steps, how many change pods."""


def steps(seed: int, nodes: tuple[str, ...]) -> Iterator[Step]:
    """Changes, one after another, for ever."""
    chance = random.Random(f"churn {seed}")
    world, number = World(), 0
    while True:
        number += 1
        step = _step(number, world, chance, nodes)
        world = world.after(step)
        yield step


def _step(number: int, world: World, chance: random.Random, nodes: tuple[str, ...]) -> Step:
    if len(world.guests) > 2 and chance.randrange(10) >= PODS_OF_TEN:
        return _of_app(number, world, chance)
    namespace = chance.choice((VAULT, OPEN, OPEN))
    name = f"guest-{chance.randrange(NAMES[namespace])}"
    node, app = chance.choice(nodes), chance.choice(APPS)
    there = world.guests.get(f"{namespace}/{name}")
    if there is None:
        fresh = Guest(
            namespace=namespace, name=name, node=node, app=app if namespace == OPEN else VAULT
        )
        return Step(number=number, act=Act.ADD, guest=fresh)
    if there.app != app and not there.is_steady:
        return Step(number=number, act=Act.RELABEL, guest=replace(there, app=app))
    return Step(number=number, act=Act.REMOVE, guest=there)


def _of_app(number: int, world: World, chance: random.Random) -> Step:
    app = chance.choice(APPS)
    if chance.randrange(3):
        return Step(number=number, act=Act.REOPEN if app in world.shut else Act.SHUT, app=app)
    return Step(number=number, act=Act.CLOSE if app in world.served else Act.SERVE, app=app)
