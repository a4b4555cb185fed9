"""Answers the requests of nodes for certificates, while this replica leads.

`signing` decides, `deltaplane.certs` makes the certificates; here is what goes to and fro. A
request is approved and then answered: who takes over in between finds it approved, and answers it.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from deltaplane.certs import files, issuing
from deltaplane.certs.issuing import Issued, Wanted
from deltaplane.errors import DeltaplaneError, NotFound
from deltaplane.runtime import log
from deltaplane.runtime.clock import Clock
from deltaplane.runtime.roles import Peer, Role
from services.kubernetes import metrics
from services.kubernetes.api import certificates
from services.kubernetes.api.backoff import Backoff, Pauses
from services.kubernetes.api.certificates import (
    APPROVED,
    DENIED,
    FAILED,
    SIGNER,
    CertificateRequest,
)
from services.kubernetes.api.changes import Event, Removed, Replaced, Unreadable, Upserted
from services.kubernetes.api.client import Client, PatchType
from services.kubernetes.api.reflector import Reflector, Settings
from services.kubernetes.api.resource import CERTIFICATE_REQUESTS
from services.kubernetes.api.types import Key
from services.kubernetes.signing import Granted, Refused, Rules, decide

AT_ONCE = 8
"""Requests that are answered together: as many as the client has connections for calls."""

LOOK_SECONDS = 60.0
"""How often the CA is looked at when nobody asks: its end is measured."""

WAIT_SECONDS = 0.5
"""How often it is looked at whether we may answer, and know the nodes."""

WARN = timedelta(days=90)
"""A CA for nodes that ends sooner is warned of: another one takes a person."""

_PAUSES = Pauses(first=0.5, longest=30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Whose certificates, by what, and for how long.

    Attributes:
        folder: of a CA for nodes; it is read again each time.
        account: user name of agents, "system:serviceaccount:NAMESPACE:NAME".
        days: for how long a certificate is at most.
    """

    folder: Path
    account: str
    days: int

    @property
    def rules(self) -> Rules:
        """What requests are held against."""
        return Rules(
            account=self.account,
            uri=Peer(Role.NODE, "x").uri.removesuffix("x"),
            names=(Role.NODE.server_name,),
            longest_seconds=self.days * 86400,
        )


class Certifier:
    """The requests there are, and their answers."""

    def __init__(
        self,
        client: Client,
        authority: Authority,
        nodes: Callable[[], Mapping[str, str] | None],
        clock: Clock,
    ) -> None:
        """Makes one.

        Args:
            client: of the API server.
            authority: who signs.
            nodes: UID of each node that there is, by name; None: not known yet.
            clock: where the time comes from.
        """
        self._client = client
        self._authority = authority
        self._rules = authority.rules
        self._nodes = nodes
        self._clock = clock
        self._open: dict[Key, CertificateRequest] = {}
        # UIDs of those that we have answered: a watch may still tell of them as they were.
        self._answered: dict[Key, str] = {}
        self._changed = asyncio.Event()
        self._warned: datetime | None = None
        self._backoff = Backoff(_PAUSES, random.random)

    async def follow(self, settings: Settings | None = None) -> None:
        """Keeps the requests up to date, until it is cancelled."""
        decoder = msgspec.json.Decoder(CertificateRequest)
        reflector: Reflector[CertificateRequest] = Reflector(
            self._client,
            CERTIFICATE_REQUESTS,
            decoder.decode,
            settings=settings,
            selector=f"spec.signerName={SIGNER}",
        )
        await self._take(reflector.events())

    async def run(self, may_write: Callable[[], bool]) -> None:
        """Answers, until it is cancelled."""
        while True:
            nodes = self._nodes()
            if nodes is None or not may_write():
                await asyncio.sleep(WAIT_SECONDS)
            else:
                await self._wait(await self._round(nodes, may_write))

    async def _take(self, events: AsyncIterator[Event[CertificateRequest]]) -> None:
        async for event in events:
            match event:
                case Replaced():
                    self._open = dict(event.objects)
                    self._answered.clear()
                case Upserted():
                    self._open[event.key] = event.object
                case Removed() | Unreadable():
                    self._open.pop(event.key, None)
                    self._answered.pop(event.key, None)
            self._changed.set()

    async def _round(self, nodes: Mapping[str, str], may_write: Callable[[], bool]) -> float:
        """Answers what is open; after how many seconds to look again if nothing changes."""
        try:
            authority = files.read_node_authority(self._authority.folder)
            self._measure(authority)
        except DeltaplaneError as error:
            log.get().error("node_authority_unusable", reason=str(error))
            return self._backoff.failed()
        due = [
            item for key, item in self._open.items() if self._answered.get(key) != item.metadata.uid
        ]
        is_well = True
        for start in range(0, len(due), AT_ONCE):
            if not may_write():
                break
            part = due[start : start + AT_ONCE]
            # Each costs a millisecond or two, and others want their turn, too.
            answers = (self._answer(authority, item, nodes) for item in part)
            is_well &= all(await asyncio.gather(*answers))
        if is_well:
            self._backoff.succeeded()
            return LOOK_SECONDS
        return self._backoff.failed()

    async def _answer(
        self, authority: Issued, item: CertificateRequest, nodes: Mapping[str, str]
    ) -> bool:
        """False: it is to be tried again."""
        name, outcome = item.metadata.name, "signed"
        try:
            match decide(item, self._rules, nodes):
                case None:
                    # It stays with the API server for an hour or so; nothing more comes of it.
                    self._open.pop(name, None)
                    return True
                case Granted() as granted:
                    await self._grant(authority, item, granted)
                    log.get().info("node_certified", node=granted.node, request=name)
                case Refused() as refused:
                    kind = FAILED if refused.is_approved else DENIED
                    await self._conclude(item, kind, refused.reason)
                    outcome = kind.lower()
                    log.get().warning("node_refused", request=name, reason=refused.reason)
        except NotFound:
            self._open.pop(name, None)
            return True
        except DeltaplaneError as error:
            log.get().warning("request_not_answered", request=name, reason=str(error))
            metrics.CERTIFICATES.labels("error").inc()
            return False
        metrics.CERTIFICATES.labels(outcome).inc()
        self._answered[name] = item.metadata.uid
        return True

    async def _grant(self, authority: Issued, item: CertificateRequest, granted: Granted) -> None:
        now = self._now()
        leaf = issuing.certify(
            authority,
            Wanted(peer=Peer(Role.NODE, granted.node)),
            granted.key,
            now=now,
            ends=now + timedelta(seconds=granted.seconds),
        )
        if not granted.is_approved:
            await self._conclude(item, APPROVED, f"node {granted.node} asks for its certificate")
        body = certificates.signed(item.metadata.uid, leaf + authority.certificate)
        await self._client.patch_status(
            CERTIFICATE_REQUESTS, item.metadata.name, body, how=PatchType.MERGE
        )

    async def _conclude(self, item: CertificateRequest, kind: str, message: str) -> None:
        body = certificates.concluded(item, kind, message)
        # That it has failed is no matter of approval.
        subresource = "status" if kind == FAILED else "approval"
        await self._client.patch_status(
            CERTIFICATE_REQUESTS,
            item.metadata.name,
            body,
            how=PatchType.MERGE,
            subresource=subresource,
        )

    async def _wait(self, longest: float) -> None:
        try:
            async with asyncio.timeout(longest):
                await self._changed.wait()
        except TimeoutError:
            return
        finally:
            self._changed.clear()

    def _measure(self, authority: Issued) -> None:
        """Raises Invalid: it is no CA's certificate."""
        ends = issuing.describe(authority.certificate).ends
        metrics.NODE_CA_EXPIRES.set(ends.timestamp())
        if ends - self._now() < WARN and ends != self._warned:
            self._warned = ends
            log.get().warning("node_authority_ends", ends=f"{ends:%Y-%m-%d}")

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.wall_ns() // 1_000_000_000, UTC)
