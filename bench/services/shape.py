"""The published shape: one service with 4000 backends, and 800 with 20. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from deltaplane.model.addresses import Prefix

LARGE = 4000
SMALL = 20
SMALL_SERVICES = 800

PORT = 80
TARGET_PORT = 7000

_SERVICES = {4: Prefix.parse("10.96.0.0/16"), 6: Prefix.parse("fd00:96::/112")}
BACKENDS = {4: Prefix.parse("10.128.0.0/16"), 6: Prefix.parse("fd00:128::/112")}
"""What all backends' addresses lie in, by family."""


@dataclass(frozen=True, slots=True)
class BenchService:
    """A service with one TCP port.

    Attributes:
        number: 1 or more; the order in which rules are searched.
        address: 4 or 16 bytes.
        backends: addresses, all with TARGET_PORT.
    """

    number: int
    address: bytes
    backends: tuple[bytes, ...]


def services(
    family: int, large: int = LARGE, small: int = SMALL, small_services: int = SMALL_SERVICES
) -> Iterator[BenchService]:
    """The large one comes last, as with the rules of a cluster that grew.

    Args:
        family: 4 or 6.
        large: backends of the large service.
        small: backends of each of the others.
        small_services: how many others.

    Raises:
        ValueError: more backends than fit in a /16.
    """
    sizes = [small] * small_services + [large]
    if sum(sizes) >= 65535:
        raise ValueError(f"{sum(sizes)} backends are more than 65,534")
    first = 1
    for number, size in enumerate(sizes, 1):
        backends = tuple(BACKENDS[family].nth(first + i) for i in range(size))
        first += size
        yield BenchService(number, _SERVICES[family].nth(number), backends)
