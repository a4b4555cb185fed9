"""Gets a node's certificate by the API server; a replica of the bridge grants it."""

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence

from deltaplane.certs.renewal import Asking, Renewal
from deltaplane.errors import (
    Conflict,
    DeltaplaneError,
    Forbidden,
    Invalid,
    NotFound,
    Refused,
    Unavailable,
)
from services.kubernetes.api import certificates
from services.kubernetes.api.backoff import Backoff, Pauses
from services.kubernetes.api.certificates import (
    APPROVED,
    DENIED,
    FAILED,
    SIGNER,
    CertificateRequest,
)
from services.kubernetes.api.client import Client
from services.kubernetes.api.kubeconfig import Connection
from services.kubernetes.api.permissions import NODE_PERMISSIONS
from services.kubernetes.api.resource import CERTIFICATE_REQUESTS

PAUSES = Pauses(first=0.25, longest=5.0)
"""Between two looks at a request, and after failures."""


async def obtain(
    renewal: Renewal,
    servers: Sequence[Connection],
    *,
    seconds: float,
    say: Callable[[str], None],
    pauses: Pauses = PAUSES,
) -> None:
    """Asks for a certificate, waits for it, and puts it into the node's folder.

    Args:
        renewal: of the folder.
        servers: API servers; one that fails gives way to the next.
        seconds: to wait at most.
        say: told what it waits for, whenever that changes.
        pauses: between two looks.

    Raises:
        Forbidden: the bridge denies it.
        Refused: what came cannot be used.
        Unavailable: none in time; the next call goes on with the same request.
    """
    asking = renewal.asking()
    told = _Told(say)
    try:
        async with asyncio.timeout(seconds):
            found = await _answer(asking, servers, told, Backoff(pauses, random.random))
    except TimeoutError as error:
        raise Unavailable(f"no certificate within {seconds:g} s: {told.text}") from error
    for kind in (DENIED, FAILED):
        if (condition := found.condition(kind)) is not None:
            renewal.forget()
            raise Forbidden(f"{asking.name}: {kind.lower()}: {condition.message}")
    try:
        renewal.take(found.status.certificate)
    except Refused:
        renewal.forget()
        raise


async def _answer(
    asking: Asking, servers: Sequence[Connection], told: "_Told", backoff: Backoff
) -> CertificateRequest:
    """The request once it has its answer."""
    for server in itertools.cycle(servers):
        async with Client(server, permissions=NODE_PERMISSIONS) as client:
            try:
                while not _is_answered(found := await _look(client, asking)):
                    told.now(_text(found))
                    await asyncio.sleep(backoff.failed())
            except DeltaplaneError as error:
                told.now(str(error))
            else:
                return found
        await asyncio.sleep(backoff.failed())
    raise Invalid("--api-server", "at least one is needed")


async def _look(client: Client, asking: Asking) -> CertificateRequest:
    """The request as it is now; makes it if there is none."""
    try:
        return await client.get(CERTIFICATE_REQUESTS, asking.name, CertificateRequest)
    except NotFound:
        made = certificates.body(asking.name, asking.request)
        return await client.create(CERTIFICATE_REQUESTS, made, CertificateRequest)


def _is_answered(item: CertificateRequest) -> bool:
    if item.spec.signer_name != SIGNER:
        raise Conflict(f"{item.metadata.name} is a request to {item.spec.signer_name}")
    refusals = item.condition(DENIED) or item.condition(FAILED)
    return bool(item.status.certificate or refusals)


def _text(item: CertificateRequest) -> str:
    name = item.metadata.name
    if item.condition(APPROVED) is not None:
        return f"{name} is approved, and waits for its certificate"
    return f"{name} waits for the bridge: does one run, with --node-ca?"


class _Told:
    """What is waited for; it is said once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.text = "the API server has not answered"

    def now(self, text: str) -> None:
        if text != self.text:
            self.text = text
            self._say(text)
