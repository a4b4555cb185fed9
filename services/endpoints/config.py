"""The options of the endpoint registry."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from deltaplane.runtime.config import ServiceConfig
from services.endpoints.identity import DEFAULT_EXCLUDES, LabelFilter
from services.endpoints.ranges import (
    DEFAULT_NODE_PORTS,
    DEFAULT_PREFIXES,
    PortRange,
    Ranges,
    prefixes,
)


def _service_ranges(texts: tuple[str, ...]) -> tuple[str, ...]:
    prefixes(texts)
    return texts


def _node_ports(text: str) -> str:
    return str(PortRange.parse(text))


class Config(ServiceConfig):
    """Where the registry listens, where etcd is, and which labels make no identity."""

    EXAMPLES: ClassVar[str] = (
        "  python -m services.endpoints --etcd 127.0.0.1:2379 --listen 127.0.0.1:4002 \\\n"
        "      --exclude-label example.com/build --exclude-label 'ci.example.com/*'"
    )

    exclude_label: tuple[str, ...] = Field(
        default=(),
        description="pod label that is no part of an identity, besides the defaults "
        f"({', '.join(DEFAULT_EXCLUDES)}); 'prefix/*' for many; repeatable; equal in all replicas",
    )

    service_range: Annotated[tuple[str, ...], AfterValidator(_service_ranges)] = Field(
        default=DEFAULT_PREFIXES,
        description="addresses of services, one range of each family, that of the family which "
        "services get unasked first; equal in all replicas, and no pool's",
    )
    node_port_range: Annotated[str, AfterValidator(_node_ports)] = Field(
        default=str(DEFAULT_NODE_PORTS),
        description="ports of the nodes' addresses that services get; equal in all replicas",
    )

    @property
    def ranges(self) -> Ranges:
        """--service-range and --node-port-range."""
        return Ranges(prefixes(self.service_range), PortRange.parse(self.node_port_range))

    @property
    def label_filter(self) -> LabelFilter:
        """The defaults and --exclude-label."""
        return LabelFilter((*DEFAULT_EXCLUDES, *self.exclude_label))
