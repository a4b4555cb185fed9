"""What is to be written for services, collected by key: the last word on each counts. Pure."""

from dataclasses import dataclass, field

from nodeagent.dataplane.balancing import (
    Backend,
    Frontend,
    FrontendKey,
    Member,
    SourceRange,
)
from nodeagent.services.lists import Holey

PlaceKey = tuple[int, int]
"""(list, slot)."""


@dataclass(kw_only=True)
class Draft:
    """Changes on their way to steps; None: it goes.

    Attributes:
        tables: lists whose table is written anew, or goes.
        gone: (protocol, backend) that some list has lost.
    """

    slots: dict[PlaceKey, Backend | None] = field(default_factory=dict)
    members: dict[Member, bool] = field(default_factory=dict)
    tables: dict[int, Holey | None] = field(default_factory=dict)
    frontends: dict[FrontendKey, Frontend | None] = field(default_factory=dict)
    sources: dict[SourceRange, bool] = field(default_factory=dict)
    gone: set[tuple[int, Backend]] = field(default_factory=set)

    def __bool__(self) -> bool:
        return any((self.slots, self.members, self.tables, self.frontends, self.sources))
