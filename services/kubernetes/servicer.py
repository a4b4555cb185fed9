"""deltaplane.v1.Bridge: what this replica knows, and the confirmation of sweeps."""

from collections.abc import Callable
from typing import Any

import grpc.aio

from deltaplane.errors import Invalid, Refused
from deltaplane.v1 import bridge_pb2 as pb
from deltaplane.v1 import bridge_pb2_grpc
from services.kubernetes.books import Books
from services.kubernetes.kinds import Kind
from services.kubernetes.ledger import Ledger
from services.kubernetes.problems import Problems

Context = grpc.aio.ServicerContext[Any, Any]

PROBLEMS = 1000
"""Of one answer."""

_BY_WORD = {kind.word: kind for kind in Kind}


class BridgeServicer(bridge_pb2_grpc.BridgeServicer):
    """The calls are described in bridge.proto."""

    def __init__(
        self,
        books: Books,
        problems: Problems,
        *,
        is_active: Callable[[], bool],
        leader: Callable[[], str],
        wake: Callable[[], None],
    ) -> None:
        self._books = books
        self._problems = problems
        self._is_active = is_active
        self._leader = leader
        self._wake = wake

    async def GetStatus(
        self, request: pb.BridgeGetStatusRequest, context: Context
    ) -> pb.BridgeGetStatusResponse:
        """What this replica knows."""
        problems = [
            pb.BridgeProblem(kind=kind.word, object=problem.key, reason=problem.text)
            for kind in Kind
            for problem in self._problems.all_of(kind)
        ]
        return pb.BridgeGetStatusResponse(
            active=self._is_active(),
            leader=self._leader(),
            kinds=[self._kind(kind, ledger) for kind, ledger in self._books.ledgers.items()],
            problems=problems[:PROBLEMS],
        )

    async def ConfirmSweep(
        self, request: pb.BridgeConfirmSweepRequest, context: Context
    ) -> pb.BridgeConfirmSweepResponse:
        """Lets what the brake holds go."""
        kind = _BY_WORD.get(request.kind)
        if kind is None:
            raise Invalid("kind", f'"{request.kind[:64]}" is none of {", ".join(_BY_WORD)}')
        if not self._is_active():
            raise Refused(f"this replica stands by; {self._leader() or 'another one'} writes")
        ledger = self._books[kind]
        sweep = ledger.sweep
        if sweep is None:
            raise Refused(f"nothing of {kind.word} is held")
        if not ledger.confirm(request.entries):
            raise Refused(f"{sweep.entries} entries would go, more than {request.entries}")
        self._wake()
        return pb.BridgeConfirmSweepResponse(entries=sweep.entries)

    def _kind(self, kind: Kind, ledger: Ledger) -> pb.BridgeKind:
        sweep = ledger.sweep
        return pb.BridgeKind(
            kind=kind.word,
            listed=ledger.is_listed,
            adopted=self._is_active() and ledger.is_adopted,
            objects=len(ledger.wanted),
            records=len(ledger.stored),
            pending=ledger.pending,
            refused=len(ledger.refused),
            held=sweep.entries if sweep else 0,
        )
