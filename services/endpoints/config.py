"""The options of the endpoint registry."""

from typing import ClassVar

from pydantic import Field

from deltaplane.runtime.config import ServiceConfig
from services.endpoints.identity import DEFAULT_EXCLUDES, LabelFilter


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

    @property
    def label_filter(self) -> LabelFilter:
        """The defaults and --exclude-label."""
        return LabelFilter((*DEFAULT_EXCLUDES, *self.exclude_label))
