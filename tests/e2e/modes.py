"""The ways in which packets may travel between the nodes of a lab, and labs of each."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from lab import Lab, LabConfig
from tests.e2e.conftest import fresh_name


@dataclass(frozen=True)
class Mode:
    """How pods of different nodes meet, and what the uplinks take, bytes."""

    routing: str
    mtu: int

    def __str__(self) -> str:
        return f"{self.routing}-{self.mtu}"

    @property
    def pod_mtu(self) -> int:
        """What VXLAN over IPv4 adds is 50 bytes."""
        return self.mtu - (50 if self.routing == "vxlan" else 0)


NATIVE = Mode("native", 1500)
FAR = Mode("vxlan", 9000)
"""Differs from NATIVE in both."""

EVERY = (NATIVE, Mode("native", 9000), Mode("vxlan", 1500), FAR)
IS_FULL = os.environ.get("DELTAPLANE_MODES") == "every"
"""What `make conformance` asks for."""

MODES = EVERY if IS_FULL else (NATIVE, FAR)


def lab_of(mode: Mode, nodes: int) -> Iterator[Lab]:
    """A lab that ends with the iteration."""
    config = LabConfig(name=fresh_name(), nodes=nodes, routing=mode.routing, mtu=mode.mtu)
    with Lab.up(config) as lab:
        yield lab
