"""Changes of a pool, as pure functions: what a request asks for, and what comes of it."""

from collections.abc import Iterable
from dataclasses import dataclass

from deltaplane.errors import Invalid
from deltaplane.model.addresses import Prefix
from services.ipam.pools import DEFAULT_MIN_FREE_PERCENT, Mode, Pool

_FIELDS = {"pool.prefix": "grow_to", "pool.reserved": "reserve"}
"""Of a pool → of the request that changes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What UpdatePool asks for. None, and no range: stays as it is.

    Attributes:
        name: of the pool.
        grow_to: new range.
        reserve: ranges to reserve.
        unreserve: reserved ranges to give back.
        draining: start or end draining.
        min_free_percent: 1..100.
        on_request: whether only who names the pool gets addresses of it.
    """

    name: str
    grow_to: Prefix | None = None
    reserve: tuple[Prefix, ...] = ()
    unreserve: tuple[Prefix, ...] = ()
    draining: bool | None = None
    min_free_percent: int | None = None
    on_request: bool | None = None

    def __post_init__(self) -> None:
        for item in self.unreserve:
            if item in self.reserve:
                raise Invalid("unreserve", f"{item} is to be reserved, too; leave it out of one")

    def holds(self, pool: Pool) -> bool:
        """Whether the pool is as the change wants it: a repeated request finds that."""
        return (
            (self.grow_to is None or pool.prefix.contains(self.grow_to))
            and all(item in pool.reserved for item in self.reserve)
            and not any(
                item.overlaps(old)
                for item in self.unreserve
                for old in pool.reserved
                if old not in self.reserve
            )
            and self.draining in (None, pool.draining)
            and self.min_free_percent in (None, pool.min_free_percent)
            and self.on_request in (None, pool.on_request)
        )


def apply(change: Change, pool: Pool) -> Pool:
    """The pool after the change; all of it happens or nothing.

    Raises:
        Invalid: the new range leaves addresses of the old one out, a range to give back is not
            reserved, or the outcome is no possible pool.
    """
    if change.holds(pool):
        return pool
    prefix = pool.prefix
    if change.grow_to is not None and not prefix.contains(change.grow_to):
        if not change.grow_to.contains(prefix):
            raise Invalid(
                "grow_to",
                f"{change.grow_to} leaves out addresses of the pool {prefix}; a pool only grows, "
                f"to a prefix that contains all of it, such as {_twice(prefix)}",
            )
        prefix = change.grow_to
    reserved = _unreserved(pool, change.unreserve)
    reserved += (item for item in dict.fromkeys(change.reserve) if item not in reserved)
    if change.min_free_percent is not None and pool.mode is Mode.STATIC:
        raise Invalid("min_free_percent", f"pool {pool.name} is static and has no such share")
    percent = change.min_free_percent
    try:
        return Pool.of(
            pool.name,
            prefix,
            pool.block_length,
            reserved=reserved,
            mode=pool.mode,
            draining=_new(change.draining, pool.draining),
            min_free_percent=pool.min_free_percent if percent is None else percent,
            on_request=_new(change.on_request, pool.on_request),
        )
    except Invalid as error:
        raise Invalid(_FIELDS.get(error.field, error.field), error.reason) from error


def meets(known: Pool, wanted: Pool) -> bool:
    """Whether a pool that exists is the one that somebody wants to create.

    It may have grown and may have been changed since: what the wish leaves at its default is not
    compared. How it is cut, and its mode, never change.
    """
    return (
        known.name == wanted.name
        and known.prefix.contains(wanted.prefix)
        and (known.block_length, known.mode) == (wanted.block_length, wanted.mode)
        and set(wanted.reserved) <= set(known.reserved)
        and (known.draining or not wanted.draining)
        and (known.on_request or not wanted.on_request)
        and wanted.min_free_percent in (0, DEFAULT_MIN_FREE_PERCENT, known.min_free_percent)
    )


def _unreserved(pool: Pool, ranges: Iterable[Prefix]) -> list[Prefix]:
    left = list(pool.reserved)
    for item in dict.fromkeys(ranges):
        if item in left:
            left.remove(item)
            continue
        # Nothing of it is reserved: done before. A part of it is: somebody means something else.
        near = [old for old in pool.reserved if old.overlaps(item)]
        if near:
            raise Invalid(
                "unreserve",
                f"{item} was not reserved as such; give back {', '.join(map(str, near))}",
            )
    return left


def _twice(prefix: Prefix) -> Prefix:
    length = max(0, prefix.length - 1)
    bits = len(prefix.address) * 8
    number = int.from_bytes(prefix.address) >> (bits - length) << (bits - length)
    return Prefix(number.to_bytes(bits // 8), length)


def _new(wanted: bool | None, old: bool) -> bool:  # noqa: FBT001 - two values of one field
    return old if wanted is None else wanted
