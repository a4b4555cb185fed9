"""One service on this node: its backends in groups, and the lists that frontends name. Pure."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from deltaplane.model.addresses import to_mapped
from deltaplane.model.objects import BackendObject, ServiceObject
from deltaplane.model.ports import Protocol as Transport
from nodeagent.dataplane.balancing import (
    Backend,
    Frontend,
    FrontendKey,
    Member,
    SourceRange,
)
from nodeagent.services.choosing import Mode, Tally, Where, applies, is_local
from nodeagent.services.drafts import Draft
from nodeagent.services.frontends import Entrance, GroupKey, Scope, entrances, sources
from nodeagent.services.lists import AnyList, Holey

ListKey = tuple[int, GroupKey, Scope]
"""(service, group, scope)."""

Holders = dict[tuple[int, Backend], int]
"""How many lists hold a backend (protocol, backend) of a protocol without connections."""

REMEMBERED = frozenset({Transport.UDP, Transport.SCTP})
"""Protocols whose clients keep a backend without a connection: their lists have members."""


class Group:
    """The backends of one port and family.

    Attributes:
        key: see GroupKey.
        lists: those that frontends name.
        entrances: frontends that name them.
        has_members: whether clients may keep backends.
    """

    def __init__(self, key: GroupKey, where: Where, holders: Holders) -> None:
        self.key = key
        self._holders = holders
        self.lists: dict[Scope, AnyList] = {}
        self.entrances: list[Entrance] = []
        self.has_members = False
        self._where = where
        self._tally = Tally(where)
        self._backends: dict[bytes, tuple[Backend, BackendObject]] = {}
        self._modes: dict[Scope, Mode] = {}

    def replace(
        self, address: bytes, value: BackendObject | None, draft: Draft, *, growing: bool
    ) -> None:
        """A backend comes, changes or goes. growing: whether lists may take in new ones."""
        held = self._backends.pop(address, None)
        if held is not None:
            self._tally.count(held[1], -1)
        port = self._port(value) if value is not None else None
        new: Backend | None = None
        if value is not None and port is not None:
            new = Backend(address=to_mapped(address), port=port)
            self._backends[address] = new, value
            self._tally.count(value, 1)
        for scope, places in self.lists.items():
            mode = self._mode(scope)
            if mode is not self._modes[scope]:
                self._modes[scope] = mode
                self._fill(scope, draft, growing=growing)
                continue
            if (
                held is not None
                and held[0] in places
                and not (new == held[0] and self._takes(scope, mode, value))
            ):
                self._remove(places, held[0], draft)
            if (
                new is not None
                and growing
                and new not in places
                and self._takes(scope, mode, value)
            ):
                self._add(places, [new], draft)

    def load(self, backends: Iterable[BackendObject]) -> None:
        """Takes the backends of a new group; lists follow with `open`."""
        for value in backends:
            port = self._port(value)
            if port is not None and len(value.address) == self.key[2]:
                backend = Backend(address=to_mapped(value.address), port=port)
                self._backends[value.address] = backend, value
                self._tally.count(value, 1)

    def open(self, scope: Scope, places: AnyList, draft: Draft, *, growing: bool) -> None:
        """Adds a list, and makes it hold what applies."""
        self.lists[scope] = places
        for _, backend in places:
            self._hold(backend, Draft())
        self._modes[scope] = self._mode(scope)
        self._fill(scope, draft, growing=growing)

    def close(self, scope: Scope, draft: Draft) -> None:
        """Removes a list and all that stands in it."""
        places = self.lists.pop(scope)
        del self._modes[scope]
        for _, backend in list(places):
            self._remove(places, backend, draft)
        draft.tables.pop(places.list_id, None)
        if scope.is_outside:
            draft.tables[places.list_id] = None

    def set_members(self, *, wanted: bool, draft: Draft) -> None:
        """Whether clients may keep backends: says so of all."""
        if self.has_members == wanted:
            return
        self.has_members = wanted
        for places in self.lists.values():
            for _, backend in places:
                draft.members[Member(list_id=places.list_id, backend=backend)] = wanted

    @property
    def local_ready(self) -> int:
        """How many ready backends are on this node."""
        return self._tally.local_ready

    # --- inside ----------------------------------------------------------------------------------

    def _port(self, value: BackendObject) -> int | None:
        name, protocol, _ = self.key
        for port in value.ports:
            if port.name == name and port.protocol == protocol:
                return port.number
        return None

    def _mode(self, scope: Scope) -> Mode:
        return self._tally.local if scope.is_local else self._tally.cluster

    def _takes(self, scope: Scope, mode: Mode, value: BackendObject | None) -> bool:
        if value is None or (scope.is_local and not is_local(value, self._where)):
            return False
        return applies(value, mode, self._where)

    def _fill(self, scope: Scope, draft: Draft, *, growing: bool) -> None:
        places, mode = self.lists[scope], self._modes[scope]
        local, where = scope.is_local, self._where
        wanted = {
            backend: None
            for backend, value in self._backends.values()
            if applies(value, mode, where) and not (local and not is_local(value, where))
        }
        if len(places):
            for backend in [backend for _, backend in places if backend not in wanted]:
                self._remove(places, backend, draft)
        if growing:
            self._add(places, [one for one in wanted if one not in places], draft)

    def _add(self, places: AnyList, backends: Collection[Backend], draft: Draft) -> None:
        if not backends:
            return
        number, slots = places.list_id, draft.slots
        for backend in backends:
            for place in places.add(backend):
                slots[number, place] = backend
            if self.has_members:
                draft.members[Member(number, backend)] = True
            self._hold(backend, draft)
        self._table(places, draft)

    def _remove(self, places: AnyList, backend: Backend, draft: Draft) -> None:
        written, gone = places.remove(backend)
        draft.slots[places.list_id, gone] = None
        for place in written:
            draft.slots[places.list_id, place] = places.at(place)
        if self.has_members:
            draft.members[Member(list_id=places.list_id, backend=backend)] = False
        self._let_go(backend, draft)
        self._table(places, draft)

    def _hold(self, backend: Backend, draft: Draft) -> None:
        if self.key[1] in REMEMBERED:
            held = self.key[1], backend
            self._holders[held] = self._holders.get(held, 0) + 1
            draft.gone.discard(held)

    def _let_go(self, backend: Backend, draft: Draft) -> None:
        if self.key[1] not in REMEMBERED:
            return
        held = self.key[1], backend
        self._holders[held] -= 1
        if not self._holders[held]:
            del self._holders[held]
            draft.gone.add(held)

    def _table(self, places: AnyList, draft: Draft) -> None:
        if isinstance(places, Holey):
            # An empty one has no table: its frontends say first that nobody answers.
            draft.tables[places.list_id] = places if len(places) else None


class Holding:
    """A service.

    Attributes:
        value: as streamed.
        groups: by key.
        growing: whether it may take more room in the kernel's maps than it has.
    """

    def __init__(self, number: int, where: Where, holders: Holders) -> None:
        self.value = ServiceObject(number=number, namespace="", name="", ports=())
        self.groups: dict[GroupKey, Group] = {}
        self.growing = True
        self._where = where
        self._holders = holders

    def become(
        self,
        value: ServiceObject,
        backends: Mapping[bytes, BackendObject],
        lists: Callable[[ListKey], AnyList],
        draft: Draft,
    ) -> None:
        """The service is new or another: opens lists that it needs, closes those that it left."""
        _replace_sources(self.value, value, draft)
        self.value = value
        needed: dict[GroupKey, list[Entrance]] = {}
        for entrance in entrances(value):
            needed.setdefault(entrance.group, []).append(entrance)
        for key in self.groups.keys() - needed.keys():
            self._close(self.groups.pop(key), (), draft)
        for key, named in needed.items():
            group = self.groups.get(key)
            if group is None:
                group = self.groups[key] = Group(key, self._where, self._holders)
                group.load(backends.values())
            group.entrances = named
            group.set_members(
                wanted=value.affinity_seconds > 0 or key[1] in REMEMBERED, draft=draft
            )
            scopes = dict.fromkeys(scope for one in named for scope in _scopes(one))
            for scope in scopes:
                if scope not in group.lists:
                    places = lists((value.number, key, scope))
                    group.open(scope, places, draft, growing=self.growing)
            self._close(group, scopes, draft)

    def leave(self, draft: Draft) -> None:
        """The service is gone."""
        _replace_sources(self.value, None, draft)
        for group in self.groups.values():
            self._close(group, (), draft)
        self.groups = {}

    def replace(self, address: bytes, value: BackendObject | None, draft: Draft) -> list[Group]:
        """A backend comes, changes or goes; the groups that this concerns."""
        concerned = [group for key, group in self.groups.items() if key[2] == len(address)]
        for group in concerned:
            group.replace(address, value, draft, growing=self.growing)
        return concerned

    def frontends(self, groups: Iterable[Group] | None = None) -> Iterator[Frontend]:
        """What frontends should say now."""
        for group in self.groups.values() if groups is None else groups:
            for entrance in group.entrances:
                yield self._frontend(group, entrance)

    @property
    def keys(self) -> set[FrontendKey]:
        """Where it answers."""
        return {entrance.key for group in self.groups.values() for entrance in group.entrances}

    @property
    def local_ready(self) -> int:
        """Ready backends on this node, each address once."""
        return max((group.local_ready for group in self.groups.values()), default=0)

    def _frontend(self, group: Group, entrance: Entrance) -> Frontend:
        inside = group.lists[entrance.inside]
        outside = group.lists[entrance.outside] if entrance.outside is not None else None
        return Frontend(
            key=entrance.key,
            service=self.value.number,
            list_id=inside.list_id,
            count=len(inside),
            outside_list=outside.list_id if outside is not None else 0,
            outside_count=len(outside) if outside is not None else 0,
            affinity_seconds=self.value.affinity_seconds,
            check_source=entrance.check_source,
            local=entrance.local,
        )

    @staticmethod
    def _close(group: Group, kept: Iterable[Scope], draft: Draft) -> None:
        for scope in [scope for scope in group.lists if scope not in kept]:
            group.close(scope, draft)


def _scopes(entrance: Entrance) -> tuple[Scope, ...]:
    return (entrance.inside,) if entrance.outside is None else (entrance.inside, entrance.outside)


def _replace_sources(before: ServiceObject, after: ServiceObject | None, draft: Draft) -> None:
    old: set[SourceRange] = set(sources(before))
    new: set[SourceRange] = set(sources(after)) if after is not None else set()
    draft.sources |= dict.fromkeys(old - new, False)
    draft.sources |= dict.fromkeys(new - old, True)
