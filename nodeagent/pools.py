"""Which pools an interface may take its addresses from. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from deltaplane.errors import Exhausted, Invalid
from deltaplane.model.objects import PoolObject

POOL_FIELDS = {4: "deltaplane.dev/ipv4-pool", 6: "deltaplane.dev/ipv6-pool"}
"""Annotations of pods and namespaces, by family."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool as this node knows it.

    Attributes:
        value: what it is.
        generation: store revision of its last change.
        lineage: of the generation; empty: not known.
    """

    value: PoolObject
    generation: int
    lineage: bytes = b""

    @property
    def name(self) -> str:
        """Its name."""
        return self.value.name

    @property
    def family(self) -> int:
        """4 or 6."""
        return 4 if self.value.prefix.is_ipv4 else 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a pod asks for, itself or through its namespace.

    Attributes:
        ipv4_pool: name; empty: any pool that takes part on this node.
        ipv6_pool: the same.
        addresses: at most one of each family; they take precedence.
    """

    ipv4_pool: str = ""
    ipv6_pool: str = ""
    addresses: tuple[bytes, ...] = ()

    def pool(self, family: int) -> str:
        """The pool of a family, 4 or 6; empty: any."""
        return self.ipv4_pool if family == 4 else self.ipv6_pool

    def address(self, family: int) -> bytes | None:
        """The address of a family, 4 or 6."""
        size = 4 if family == 4 else 16
        return next((address for address in self.addresses if len(address) == size), None)


NO_WISH = Wish()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One address to hand out.

    Attributes:
        family: 4 or 6.
        pools: where from, in this order; empty for an address.
        address: this one; None: any.
        network: of the IPAM-only mode; empty: for an interface of our own.
    """

    family: int
    pools: tuple[str, ...] = ()
    address: bytes | None = None
    network: str = ""


def taking_part(pools: Mapping[str, Pool], chosen: Collection[str]) -> tuple[str, ...]:
    """Pools from which every pod of this node may get addresses, in order of names.

    Args:
        pools: all pools.
        chosen: names of `--pools`; empty: every pool that is not on request.
    """
    return tuple(
        name
        for name, pool in sorted(pools.items())
        if (name in chosen if chosen else not pool.value.on_request)
    )


def requests(
    pools: Mapping[str, Pool], chosen: Collection[str], wish: Wish = NO_WISH
) -> tuple[Request, ...]:
    """What to hand out: one address of each family, IPv4 first.

    Raises:
        Invalid: the pod names a pool that does not exist, or one of the other family.
        Exhausted: no pool takes part.
    """
    common = taking_part(pools, chosen)
    found = []
    for family in (4, 6):
        if (address := wish.address(family)) is not None:
            found.append(Request(family=family, address=address))
        elif named := wish.pool(family):
            _check_name(pools, named, family)
            found.append(Request(family=family, pools=(named,)))
        elif names := tuple(name for name in common if pools[name].family == family):
            found.append(Request(family=family, pools=names))
    if not found:
        asked = f"--pools names {', '.join(sorted(chosen))}; " if chosen else ""
        raise Exhausted(f"there is no address pool for this node; {asked}{_existing(pools)}")
    return tuple(found)


def _check_name(pools: Mapping[str, Pool], name: str, family: int) -> None:
    of_family = {other: pool for other, pool in pools.items() if pool.family == family}
    if name not in of_family:
        raise Invalid(
            POOL_FIELDS[family],
            f'there is no IPv{family} pool "{name}"; {_existing(of_family)}',
        )


def _existing(pools: Mapping[str, Pool]) -> str:
    return f"there are {', '.join(sorted(pools))}" if pools else "there is none"
