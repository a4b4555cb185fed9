"""The options of ipam."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from deltaplane.errors import Invalid
from deltaplane.runtime.config import ServiceConfig
from services.ipam.flags import FORM, parse_flag
from services.ipam.pools import Pool, check_overlap


def _check(texts: tuple[str, ...]) -> tuple[str, ...]:
    pools: list[Pool] = []
    for text in texts:
        try:
            pool = parse_flag(text)
            check_overlap(pool, pools)
        except Invalid as error:
            raise ValueError(f"{text!r}: {error.reason}") from error
        if any(pool.name == other.name for other in pools):
            raise ValueError(f"{text!r}: the name is used twice")
        pools.append(pool)
    return texts


class Config(ServiceConfig):
    """Where ipam listens, where etcd is, and which pools there are from the start."""

    EXAMPLES: ClassVar[str] = (
        "  python -m services.ipam --etcd 127.0.0.1:2379 --listen 127.0.0.1:4001 \\\n"
        "      --pool ipv4=10.244.0.0/16:26 --pool ipv6=fd00:10:244::/64:122"
    )

    pool: Annotated[tuple[str, ...], AfterValidator(_check)] = Field(
        default=(),
        description=f"{FORM}, created at start unless it exists; repeatable",
    )

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The pools of --pool."""
        return tuple(map(parse_flag, self.pool))
