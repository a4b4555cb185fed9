"""The options of the slicer."""

from typing import ClassVar, Literal

from pydantic import Field

from deltaplane.runtime import address
from deltaplane.runtime.config import ListenAddress, ServiceConfig
from services.slicer.admission import MIB_DEFAULT


class Config(ServiceConfig):
    """Where the slicer listens, where etcd is, and where other replicas find this one."""

    EXAMPLES: ClassVar[str] = (
        "  python -m services.slicer --etcd 127.0.0.1:2379 --listen 127.0.0.1:4003\n"
        "  python -m services.slicer --etcd 10.0.0.1:2379,10.0.0.2:2379 --listen 0.0.0.0:4003 \\\n"
        "      --advertise 10.0.0.7:4003\n"
        "  python -m services.slicer --etcd 127.0.0.1:2379 --listen 0.0.0.0:4003 --workers 4"
    )

    advertise: ListenAddress | None = Field(
        default=None,
        description="host:port for other replicas, which ask this one for receipts; "
        "without it the first host:port of --listen with a port",
    )

    stale_after: float = Field(
        default=60.0,
        ge=5.0,
        description="seconds after which a node that is not up to date with any slicer is fenced: "
        "released addresses wait for it no longer",
    )

    span: Literal["scoped", "all"] = Field(
        default="scoped",
        description="what agents are told of: scoped: what the policies of their pods name; "
        "all: every endpoint and policy",
    )

    snapshot_memory: int = Field(
        default=MIB_DEFAULT,
        ge=1,
        description="MiB that snapshots and repairs on their way to agents may hold; agents that "
        "need one meanwhile are told when to come back",
    )

    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="processes, each a slicer of its own for about 1,000 agents; worker k listens "
        "k - 1 ports above --listen and --admin, or at unix:/path.1, unix:/path.2, …",
    )

    @property
    def advertised(self) -> str:
        """Where other replicas reach this one; empty: nowhere."""
        for text in (self.advertise, *self.listen):
            if text is not None:
                parsed = address.parse(text)
                if isinstance(parsed, address.Tcp) and parsed.port:
                    return text
        return ""
