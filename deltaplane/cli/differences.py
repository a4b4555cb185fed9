"""What a simulation found, one line for each pair of kinds of pods. Pure."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from deltaplane.cli.world import World, labels, reserved
from deltaplane.model.addresses import format_address, parse_address
from deltaplane.model.ports import MAX_PORT, TRANSPORTS, PortRange
from deltaplane.model.tiers import Policy
from deltaplane.policy.explain import Party
from deltaplane.policy.simulate import Change

EXAMPLES = 3
SOMEWHERE = (parse_address("192.0.2.1"), parse_address("2001:db8::1"))
"""Of the world at large: addresses that documentation has for itself (RFC 5737, RFC 3849)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One end of a pair.

    Attributes:
        identity: its number.
        labels: namespace and labels, or the name of a reserved identity.
        pods: how many the change applies to; 0: it is no pod.
        examples: some of them, or some addresses.
    """

    identity: int
    labels: str
    pods: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Connections of a pair that would all be allowed, or all denied.

    Attributes:
        source: who connects.
        destination: to whom.
        allowed: whether they would be; now it is the other way round.
        ports: of each protocol, ascending.
    """

    source: End
    destination: End
    allowed: bool
    ports: tuple[PortRange, ...]

    @property
    def traffic(self) -> str:
        """The ports in a few words."""
        return ", ".join(map(_words, self.ports))


def parties(world: World, policies: Iterable[Policy]) -> tuple[Party, ...]:
    """Everybody whose connections are compared: pods, nodes, and some of the world.

    A node is taken for another than the pod's own, whose traffic no policy is asked about.
    """
    outside = {*SOMEWHERE, *_places(policies)}
    everybody = sorted({*world.owners, *outside}, key=lambda address: (len(address), address))
    return tuple(world.party(address, seen_from="") for address in everybody)


def _places(policies: Iterable[Policy]) -> Iterator[bytes]:
    """The first address of each prefix, and of each of its holes."""
    for policy in policies:
        for rule in (*policy.ingress, *policy.egress):
            for block in rule.blocks:
                yield block.cidr.address
                yield from (hole.address for hole in block.except_)


@dataclass(frozen=True, slots=True)
class _Row:
    """Connections between each of the one and each of the other, of one family until merged."""

    source: frozenset[Party]
    destination: frozenset[Party]
    allowed: bool
    ports: frozenset[PortRange]


def grouped(world: World, changes: Iterable[Change]) -> tuple[Difference, ...]:
    """Changes with the same effect are one; denied ones first, then by labels.

    Only parties of one identity are put together, and only where all of the sources meet all of the
    destinations.
    """
    ports: defaultdict[tuple[frozenset[Party], frozenset[Party], bool], set[PortRange]]
    ports = defaultdict(set)
    for change in changes:
        key = frozenset(change.sources), frozenset(change.destinations), change.allowed
        ports[key].add(change.ports)
    rows = [_Row(*key, frozenset(of)) for key, of in ports.items()]
    rows = _merged(rows, lambda row: (_identity(row.source), row.destination, row.ports))
    rows = _merged(rows, lambda row: (row.source, _identity(row.destination), row.ports))
    rows = _merged(
        rows, lambda row: (_who(world, row.source), _who(world, row.destination), _transports(row))
    )
    found = [
        Difference(
            source=_end(world, row.source),
            destination=_end(world, row.destination),
            allowed=row.allowed,
            ports=tuple(
                sorted(row.ports, key=lambda item: (item.protocol not in TRANSPORTS, item))
            ),
        )
        for row in rows
        if not _is_one_pod(world, row)
    ]
    return tuple(sorted(found, key=lambda d: (d.allowed, d.source.labels, d.destination.labels)))


def _is_one_pod(world: World, row: _Row) -> bool:
    """What a pod sends to itself leaves it for no policy to see."""
    names = {world.owner(party.address).name for party in row.source | row.destination}
    return len(names) == 1 and "" not in names


def _merged(rows: Iterable[_Row], alike: Callable[[_Row], object]) -> list[_Row]:
    found: dict[object, _Row] = {}
    for row in rows:
        key = row.allowed, alike(row)
        if (known := found.get(key)) is None:
            found[key] = row
            continue
        found[key] = _Row(
            known.source | row.source,
            known.destination | row.destination,
            row.allowed,
            known.ports | row.ports,
        )
    return list(found.values())


def _identity(parties: frozenset[Party]) -> int:
    return next(iter(parties)).identity


def _who(world: World, parties: frozenset[Party]) -> tuple[int, frozenset[str]]:
    """Pods by name: they have an address of each family. Of others the identity is enough."""
    if next(iter(parties)).label_set is None:
        return _identity(parties), frozenset()
    return _identity(parties), frozenset(world.owner(party.address).name for party in parties)


def _transports(row: _Row) -> frozenset[PortRange]:
    """What does not depend on the family."""
    return frozenset(item for item in row.ports if item.protocol in TRANSPORTS)


def _end(world: World, parties: frozenset[Party]) -> End:
    one = next(iter(parties))
    if one.label_set is None:
        addresses = sorted((party.address for party in parties), key=lambda a: (len(a), a))
        shown = _some([format_address(address) for address in addresses])
        return End(identity=one.identity, labels=reserved(one.identity), pods=0, examples=shown)
    pods = sorted({world.owner(party.address).name for party in parties})
    return End(
        identity=one.identity, labels=labels(one.label_set), pods=len(pods), examples=_some(pods)
    )


def _some(names: Sequence[str]) -> tuple[str, ...]:
    more = len(names) - EXAMPLES
    return (*names[:EXAMPLES], f"{more} more") if more > 0 else tuple(names)


def _words(ports: PortRange) -> str:
    last = MAX_PORT if ports.protocol in TRANSPORTS else 255
    if (ports.first, ports.last) == (0, last):
        return ports.protocol.name
    if ports.first == ports.last:
        return f"{ports.protocol.name} {ports.first}"
    return f"{ports.protocol.name} {ports.first}-{ports.last}"
