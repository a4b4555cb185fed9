"""Which addresses a pod asks for, and whether it has got them.

A pod asks with its own annotations, or with those of its namespace, annotation by annotation: one
on the pod replaces the same one on the namespace. A fixed address makes the pool of its family
irrelevant. A family about which nothing is said is left to the node.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from deltaplane.errors import Invalid
from deltaplane.model import annotations as known
from deltaplane.model.addresses import format_address
from services.endpoints.blocks import PoolRange, pool_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for.

    Attributes:
        ipv4_pool: pool of the IPv4 address; empty: the node chooses, or the address is fixed.
        ipv6_pool: pool of the IPv6 address, likewise.
        addresses: fixed ones, at most one of each family, IPv4 first.
    """

    ipv4_pool: str = ""
    ipv6_pool: str = ""
    addresses: tuple[bytes, ...] = ()

    @property
    def names_pools(self) -> bool:
        """Whether it takes pools to say if it is satisfied."""
        return bool(self.ipv4_pool or self.ipv6_pool)


NO_WISH = Wish()


def wish_of(pod: Mapping[str, str], namespace: Mapping[str, str]) -> Wish:
    """The wish that follows from two sets of annotations.

    Raises:
        Invalid: an annotation was written before there were checks, and would not pass them.
    """
    text = {
        key: pod.get(key, namespace.get(key, ""))
        for key in (known.IPV4_POOL, known.IPV6_POOL, known.IP_ADDRESSES)
    }
    try:
        fixed = known.fixed_addresses(text[known.IP_ADDRESSES]) if text[known.IP_ADDRESSES] else ()
    except ValueError as error:
        raise Invalid(known.IP_ADDRESSES, f'"{text[known.IP_ADDRESSES]}" {error}') from None
    families = {len(address) for address in fixed}
    return Wish(
        ipv4_pool="" if 4 in families else text[known.IPV4_POOL],
        ipv6_pool="" if 16 in families else text[known.IPV6_POOL],
        addresses=fixed,
    )


def satisfied(wish: Wish, pools: Mapping[bytes, str]) -> bool:
    """Whether an endpoint's addresses are what is asked for.

    Args:
        wish: what is asked for.
        pools: the pool of every address of the endpoint, by name; empty when it is in none.
    """
    by_size = {len(address): pool for address, pool in pools.items()}
    return (
        all(address in pools for address in wish.addresses)
        and wish.ipv4_pool in ("", by_size.get(4))
        and wish.ipv6_pool in ("", by_size.get(16))
    )


def check(wish: Wish, pools: Sequence[PoolRange]) -> None:
    """Refuses a wish that no node can fulfil.

    Raises:
        Invalid: a pool does not exist in that family, or an address is in no pool.
    """
    for annotation, name, is_ipv4 in (
        (known.IPV4_POOL, wish.ipv4_pool, True),
        (known.IPV6_POOL, wish.ipv6_pool, False),
    ):
        family = "IPv4" if is_ipv4 else "IPv6"
        there = sorted(pool.name for pool in pools if pool.prefix.is_ipv4 == is_ipv4)
        if name and name not in there:
            raise Invalid(annotation, f'there is no {family} pool "{name}"; {_options(there)}')
    for address in wish.addresses:
        if pool_of(address, pools) is None:
            ranges = sorted(
                f"{pool.name} ({pool.prefix})"
                for pool in pools
                if len(pool.prefix.address) == len(address)
            )
            raise Invalid(
                known.IP_ADDRESSES, f"{format_address(address)} is in no pool; {_options(ranges)}"
            )


def pool_names(addresses: Iterable[bytes], pools: Sequence[PoolRange]) -> dict[bytes, str]:
    """The pool of each address by name; empty where there is none."""
    found = ((address, pool_of(address, pools)) for address in addresses)
    return {address: pool.name if pool else "" for address, pool in found}


def _options(names: Sequence[str]) -> str:
    return f"there are {', '.join(names)}" if names else "there is none of that family"
