"""Services in the small world of conftest, and flows to them."""

from array import array
from dataclasses import dataclass

from nodeagent.dataplane import abi
from nodeagent.dataplane.balancing import (
    Backend,
    Frontend,
    FrontendKey,
    Member,
    Slot,
    SourceRange,
)
from nodeagent.dataplane.kernel import KernelDataPlane
from tests.bpf.conftest import (
    A4,
    A6,
    NODE4,
    NODE6,
    OTHER4,
    OTHER6,
    R4,
    R6,
    S4,
    S6,
    W4,
    W6,
)
from tests.bpf.packets import Flow, mapped

ANY4, ANY6 = "0.0.0.0", "::"
PORT, TARGET, NODE_PORT = 80, 8080, 30080
CLIENT_PORT = 40000
ANYBODY, INSIDE, OUTSIDE = 1, 10, 20
"""The service, and its lists."""


@dataclass(frozen=True)
class Family:
    """The same places in one family. a: the pod that programs run for, r and s: pods elsewhere."""

    a: str
    r: str
    s: str
    world: str
    node: str
    other: str
    cluster: str
    every_node: str
    router: str
    icmp: int


V4 = Family(A4, R4, S4, W4, NODE4, OTHER4, "10.96.0.1", ANY4, "198.51.100.7", 1)
V6 = Family(A6, R6, S6, W6, NODE6, OTHER6, "fd00:96::1", ANY6, "2001:db8:f::7", 58)


def frontend_key(text: str, protocol: int, port: int = PORT) -> FrontendKey:
    address = mapped(text) if text != ANY6 else bytes(16)
    return FrontendKey(address=address, protocol=protocol, port=port)


def backend(text: str, port: int = TARGET) -> Backend:
    return Backend(address=mapped(text), port=port)


@dataclass(frozen=True)
class Services:
    """Writes services into a plane. Every backend is a member: that is more than the agent does."""

    plane: KernelDataPlane

    def put(
        self,
        text: str,
        protocol: int,
        *backends: Backend,
        port: int = PORT,
        list_id: int = INSIDE,
        outside: bool = False,
        affinity: int = 0,
        check_source: bool = False,
        local: bool = False,
    ) -> None:
        """A frontend; the list outside is the same backends, spread by a table."""
        plane = self.plane
        outside_list = list_id + OUTSIDE if outside else 0
        lists = [list_id, outside_list] if outside else [list_id]
        for number in lists:
            plane.upsert_slots(
                [Slot(list_id=number, slot=i, backend=b) for i, b in enumerate(backends)]
            )
            plane.upsert_members([Member(list_id=number, backend=b) for b in backends])
        if outside and backends:
            table = array("H", (i % len(backends) for i in range(abi.TABLE_PART_SLOTS)))
            plane.write_tables([(outside_list, table.tobytes())])
        plane.upsert_frontends(
            [
                Frontend(
                    key=frontend_key(text, protocol, port),
                    service=ANYBODY,
                    list_id=list_id,
                    count=len(backends),
                    outside_list=outside_list,
                    outside_count=len(backends) if outside else 0,
                    affinity_seconds=affinity,
                    check_source=check_source,
                    local=local,
                )
            ]
        )

    def allow_source(self, text: str, length: int) -> None:
        self.plane.upsert_sources(
            [SourceRange(service=ANYBODY, address=mapped(text), length=length)]
        )

    def forget_member(self, list_id: int, gone: Backend) -> None:
        self.plane.delete_members([Member(list_id=list_id, backend=gone)])

    def legs(self) -> int:
        return sum(1 for _ in self.plane._maps["translations"].entries())


def flow(src: str, dst: str, *, sport: int = CLIENT_PORT, dport: int = PORT) -> Flow:
    return Flow(src, dst, sport, dport)
