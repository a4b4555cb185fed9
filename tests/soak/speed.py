"""Text of addresses, remembered: a soak sees the same few a million times."""

from functools import lru_cache

from deltaplane.model import addresses
from deltaplane.store import keys

format_address = lru_cache(1024)(addresses.format_address)
parse_address = lru_cache(1024)(addresses.parse_address)


def remember() -> None:
    """Has the layout of the store use the memory, too: half the time would go there."""
    keys.format_address = format_address  # type: ignore[attr-defined]
