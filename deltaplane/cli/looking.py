"""Reads etcd, journals and kernels for `deltaplane ipam check`, again where something is wrong.

Nothing stands still meanwhile. etcd is read at one revision; an agent is asked after that, and
again until it has applied that revision. What was under way in between disagrees once, with these
very revisions and interface numbers: it is looked for again, several times, and only what stays is
told.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from deltaplane.check import kernels, nodes, stored
from deltaplane.check.facts import NodeView, Stored
from deltaplane.check.findings import Finding, Kind
from deltaplane.check.wire import stored_from_records, view_from_proto
from deltaplane.cli.client import Client
from deltaplane.errors import Compacted, DeltaplaneError
from deltaplane.v1 import audit_pb2, ipam_pb2

RECORDS_PER_PAGE = 5000
LISTINGS = 3
"""Attempts to list etcd before its history is compacted away."""

CATCH_UP_SECONDS = 3.0
"""How long an agent may take to apply what etcd had when it was read; barriers come each second."""
CATCH_UP_PAUSE_SECONDS = 0.1
AGENTS_AT_ONCE = 16

PAUSES_SECONDS = (0.2, 0.4, 0.8, 1.6)
"""Between looks: together longer than anything is under way that is not stuck."""

_ABOUT_AGENTS = frozenset({Kind.AGENT_UNREACHABLE, Kind.AGENT_NOT_ASKED, Kind.AGENT_BEHIND})
"""They say what was not looked at: true for the last look alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look has seen.

    Attributes:
        stored: etcd.
        views: what agents said, by target.
        silent: why an agent said nothing, by target.
        findings: what disagrees.
    """

    stored: Stored
    views: Mapping[str, NodeView]
    silent: Mapping[str, str]
    findings: Sequence[Finding]


class Looker:
    """Looks at a cluster through its services and agents."""

    def __init__(self, client: Client, agents: Sequence[tuple[str, str]]) -> None:
        """agents: node name, empty where it is not known, and gRPC target."""
        self._client = client
        self._agents = tuple(agents)
        self._stubs = {target: client.node_addresses(target) for _, target in agents}

    def look(self) -> Look:
        """Reads everything once.

        Raises:
            DeltaplaneError: a service refused or is away.
        """
        found = self._read()
        views: dict[str, NodeView] = {}
        silent: dict[str, str] = {}
        with ThreadPoolExecutor(max_workers=AGENTS_AT_ONCE) as threads:
            targets = [target for _, target in self._agents]
            answers = threads.map(lambda target: self._ask(target, found.revision), targets)
            for target, answer in zip(targets, answers, strict=True):
                if isinstance(answer, NodeView):
                    views[target] = answer
                else:
                    silent[target] = answer
        return Look(
            stored=found,
            views=views,
            silent=silent,
            findings=tuple(self._compare(found, views, silent)),
        )

    def settled(
        self,
        pauses: Sequence[float] = PAUSES_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Look:
        """Looks until nothing is wrong, or what is wrong has been so in every look."""
        look = self.look()
        for pause in pauses:
            if not look.findings:
                return look
            sleep(pause)
            look = self._again({finding.identity for finding in look.findings})
        return look

    def _again(self, known: set[tuple[object, ...]]) -> Look:
        look = self.look()
        kept = tuple(
            finding
            for finding in look.findings
            if finding.identity in known or finding.kind in _ABOUT_AGENTS
        )
        return Look(stored=look.stored, views=look.views, silent=look.silent, findings=kept)

    def _compare(
        self, found: Stored, views: Mapping[str, NodeView], silent: Mapping[str, str]
    ) -> Iterable[Finding]:
        yield from stored.findings(found)
        for view in views.values():
            yield from nodes.findings(found, view)
            yield from kernels.findings(found, view)
        named = {target: node for node, target in self._agents}
        for target, reason in silent.items():
            yield nodes.unreachable(named[target], target, reason)
        asked = {view.name for view in views.values()} | {named[target] for target in silent}
        for node in sorted(found.nodes.keys() - asked):
            yield nodes.not_asked(node)

    # --- reading ---------------------------------------------------------------------------------

    def _read(self) -> Stored:
        before = self._counts()
        records, revision = self._records()
        after = self._counts()
        counted = {pool: count for pool, count in before.items() if after.get(pool) == count}
        return stored_from_records(records, revision, counted)

    def _counts(self) -> dict[str, int]:
        answer = self._client.ipam.ListPools(ipam_pb2.ListPoolsRequest())
        return {status.pool.name: status.blocks_claimed for status in answer.pools}

    def _records(self) -> tuple[list[audit_pb2.StoredRecord], int]:
        for _ in range(LISTINGS - 1):
            try:
                return self._list()
            except Compacted:
                continue
        return self._list()

    def _list(self) -> tuple[list[audit_pb2.StoredRecord], int]:
        records: list[audit_pb2.StoredRecord] = []
        token = ""
        while True:
            answer = self._client.records.ListRecords(
                audit_pb2.ListRecordsRequest(page_size=RECORDS_PER_PAGE, page_token=token)
            )
            records += answer.records
            token = answer.next_page_token
            if not token:
                return records, answer.revision

    def _ask(self, target: str, revision: int) -> NodeView | str:
        """What an agent says once it has applied a revision, or in time; or why it says nothing."""
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while True:
            # What it has read before it has caught up would not be looked at.
            late = time.monotonic() > deadline
            request = audit_pb2.ListAddressesRequest(applied_revision=0 if late else revision)
            try:
                answer = self._stubs[target].ListAddresses(request)
            except DeltaplaneError as error:
                return str(error)
            if late or answer.applied_revision >= revision:
                return view_from_proto(answer)
            time.sleep(CATCH_UP_PAUSE_SECONDS)
