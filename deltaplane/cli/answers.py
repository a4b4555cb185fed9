"""Questions about one connection, read from words, and what policies answer. Pure.

A pod has two addresses, a CIDR many: each pair of addresses that can meet is asked, and those with
the same answer are told together.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from deltaplane.cli.world import World, family, parse_prefix
from deltaplane.errors import Invalid
from deltaplane.model.addresses import Prefix
from deltaplane.model.identity import LabelSet
from deltaplane.model.ports import MAX_PORT, TRANSPORTS, Protocol
from deltaplane.model.tiers import Policy
from deltaplane.policy.explain import Explanation, Party, selects, side

MAX_ICMP_TYPE = 255
PLACES_AT_MOST = 2000
"""Addresses of a CIDR that are looked at; more would take seconds."""

WORDS = {protocol.name.lower(): protocol for protocol in Protocol}
FAMILY_OF = {Protocol.ICMP: "IPv4", Protocol.ICMPV6: "IPv6"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What is sent.

    Attributes:
        protocol: of the packets.
        port: destination port, or the type of ICMP messages; None: it has a name.
        name: of a port of the destination; empty: it has a number.
    """

    protocol: Protocol
    port: int | None
    name: str = ""

    def __str__(self) -> str:
        shown = self.name if self.port is None else str(self.port)
        return f"{self.protocol.name} {shown}"


def read_traffic(text: str) -> Traffic:
    """From "443/TCP", "443", "http", "http/TCP", "8/ICMP".

    Raises:
        Invalid: it says nothing like that.
    """
    what, _, word = text.partition("/")
    protocol = WORDS.get(word.lower()) if word else Protocol.TCP
    if protocol is None:
        known = ", ".join(protocol.name for protocol in Protocol)
        raise Invalid("--port", f"{word!r} is none of {known}")
    if not what:
        raise Invalid("--port", f"{text!r}: write 443/TCP, http/TCP or, of ICMP, its type: 8/ICMP")
    has_ports = protocol in TRANSPORTS
    if not what.isdecimal():
        if not has_ports:
            raise Invalid("--port", f"{what!r}: write the type of {protocol.name} as a number")
        return Traffic(protocol=protocol, port=None, name=what)
    number, last = int(what), MAX_PORT if has_ports else MAX_ICMP_TYPE
    if not has_ports <= number <= last:
        raise Invalid("--port", f"{number} is outside {int(has_ports)}..{last}")
    return Traffic(protocol=protocol, port=number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer to all pairs of addresses that have it; pairs: at least one."""

    explanation: Explanation
    port: int
    pairs: tuple[tuple[bytes, bytes], ...]


def ask(world: World, source: str, destination: str, traffic: Traffic) -> tuple[Answer, ...]:
    """Asks all policies.

    Args:
        world: what there is.
        source: "namespace/pod", an address, or a CIDR.
        destination: the same.
        traffic: what is sent.

    Raises:
        NotFound: there is no such pod.
        Invalid: nothing can be sent like that between them.
    """
    wanted = FAMILY_OF.get(traffic.protocol)
    pairs = [
        (one, other)
        for one, other in product(_places(world, source), _places(world, destination))
        if len(one) == len(other) and one != other and wanted in (None, family(one))
    ]
    if not pairs:
        reason = f"{source} and {destination} have no {wanted or 'family'} in common"
        raise Invalid("", f"{reason}, which {traffic.protocol.name} needs" if wanted else reason)
    judges = _Judges(world)
    found: dict[tuple[Explanation, int], list[tuple[bytes, bytes]]] = {}
    for pair in pairs:
        for port in _ports(world, pair[1], traffic):
            explained = judges.explain(*pair, traffic.protocol, port)
            found.setdefault((explained, port), []).append(pair)
    if not found:
        raise Invalid(
            "--port", f"{destination} has no {traffic.protocol.name} port {traffic.name!r}"
        )
    return tuple(
        Answer(explanation=explanation, port=port, pairs=tuple(those))
        for (explanation, port), those in found.items()
    )


def _places(world: World, text: str) -> tuple[bytes, ...]:
    """Addresses to ask about: all of a pod, and of a CIDR one of each part that may differ."""
    prefix = parse_prefix(text)
    if prefix is None:
        if text.count("/") != 1:
            raise Invalid("", f"{text!r}: write NAMESPACE/POD, an address or a CIDR")
        return world.addresses(text)
    if prefix.length == 8 * len(prefix.address):
        return (prefix.address,)
    blocks = _blocks(world, len(prefix.address))
    inside = _inhabitants(world, prefix, blocks)
    found = sorted({prefix.address, *_borders(world, prefix, blocks), *inside})
    if len(found) > PLACES_AT_MOST:
        raise Invalid("", f"{text} has {len(found)} parts that may differ; name a smaller one")
    return tuple(found)


def _blocks(world: World, size: int) -> tuple[Prefix, ...]:
    """All that policies tell apart by address: prefixes and holes of a family."""
    return tuple(
        {
            part
            for policy in world.policies
            for rule in (*policy.ingress, *policy.egress)
            for block in rule.blocks
            for part in (block.cidr, *block.except_)
            if len(part.address) == size
        }
    )


def _inhabitants(world: World, prefix: Prefix, blocks: Sequence[Prefix]) -> Iterator[bytes]:
    """Two addresses of each kind of owner that the CIDR holds: one may be the other end's."""
    seen: Counter[tuple[object, ...]] = Counter()
    for address, owner in sorted(world.owners.items()):
        if not prefix.contains(address):
            continue
        # A node is judged by where it is seen from, a pod by its labels.
        name = "" if owner.is_pod else owner.node
        kind = (owner.identity, name, *(block.contains(address) for block in blocks))
        seen[kind] += 1
        if seen[kind] <= 2:
            yield address


def _borders(world: World, prefix: Prefix, blocks: Sequence[Prefix]) -> Iterator[bytes]:
    """Where something begins or ends inside: the prefixes of policies, and pools."""
    for part in (*blocks, *world.pools):
        if len(part.address) == len(prefix.address):
            following = _after(part)
            yield from (
                address
                for address in (part.address, following)
                if address is not None and prefix.contains(address)
            )


def _after(prefix: Prefix) -> bytes | None:
    """The first address behind a prefix; None: there is none."""
    size = len(prefix.address)
    following = int.from_bytes(prefix.address) + (1 << (8 * size - prefix.length))
    return following.to_bytes(size) if following < 1 << (8 * size) else None


def _ports(world: World, destination: bytes, traffic: Traffic) -> Iterable[int]:
    if traffic.port is not None:
        return (traffic.port,)
    label_set = world.owner(destination).label_set
    return sorted(
        port.number
        for port in (label_set.named_ports if label_set else ())
        if (port.name, port.protocol) == (traffic.name, traffic.protocol)
    )


class _Judges:
    """Both sides, without looking at policies that apply to neither."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._selecting: dict[LabelSet, tuple[Policy, ...]] = {}

    def explain(
        self, source: bytes, destination: bytes, protocol: Protocol, port: int
    ) -> Explanation:
        """As `deltaplane.policy.explain.explain`."""
        one = self._world.party(source, seen_from=self._world.owner(destination).node)
        other = self._world.party(destination, seen_from=self._world.owner(source).node)
        egress = side(self._applying(one), one, other, protocol=protocol, port=port, outgoing=True)
        ingress = side(
            self._applying(other), other, one, protocol=protocol, port=port, outgoing=False
        )
        return Explanation(egress=egress, ingress=ingress)

    def _applying(self, party: Party) -> tuple[Policy, ...]:
        label_set = party.label_set
        if label_set is None:
            return ()
        if label_set not in self._selecting:
            self._selecting[label_set] = tuple(
                policy for policy in self._world.policies if selects(policy.subject, label_set)
            )
        return self._selecting[label_set]
