"""Leaders of real requests, in short times."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.kubernetes.api import resource as resources
from services.kubernetes.api.client import Client
from services.kubernetes.api.leading import LeaseTimes
from services.kubernetes.api.lease import Leader
from tests.kubernetes.apiserver import ApiServer
from tests.kubernetes.storing import Object, Refusal

TIMES = LeaseTimes(lease=2, renew=1.5, retry=0.05)
SECONDS = 20


class Candidate:
    """A leader whose work notes that it is done, and goes on until it is cancelled."""

    def __init__(self, client: Client, identity: str, times: LeaseTimes = TIMES) -> None:
        self.leader = Leader(client, namespace="dp", name="bridge", identity=identity, times=times)
        self.terms: list[int] = []
        self.working = asyncio.Event()
        self.stopped = asyncio.Event()
        self.task = asyncio.create_task(self.leader.run(self.work))

    async def work(self, term: int) -> None:
        self.terms.append(term)
        self.working.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.working.clear()
            self.stopped.set()

    async def works(self) -> None:
        async with asyncio.timeout(SECONDS):
            await self.working.wait()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def client(server: ApiServer) -> AsyncIterator[Client]:
    server.create(resources.NAMESPACES, "dp")
    async with Client(server.connection()) as client:
        yield client


def record(server: ApiServer) -> Object:
    return server.get(resources.LEASES, "bridge", namespace="dp")["spec"]  # type: ignore[no-any-return]


async def test_a_clean_stop_hands_over(server: ApiServer, client: Client) -> None:
    a = Candidate(client, "a")
    await a.works()
    b = Candidate(client, "b")
    await server.until(lambda: len(server.asked("get")) >= 3)
    assert not b.working.is_set()
    assert record(server)["holderIdentity"] == "a"
    await a.stop()
    assert a.stopped.is_set()
    assert record(server)["holderIdentity"] in {"", "b"}
    await b.works()
    assert (a.terms, b.terms) == ([0], [1])
    assert b.leader.holds()
    await b.stop()


async def test_what_was_written_unnoticed_is_released(server: ApiServer, client: Client) -> None:
    """A renewal is applied whose answer is not waited for, since the process ends."""
    a = Candidate(client, "a", LeaseTimes(lease=60, renew=50.0, retry=40.0))
    await a.works()
    renewed = {"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}
    server.change(resources.LEASES, "bridge", renewed, namespace="dp")
    await a.stop()
    assert record(server)["holderIdentity"] == ""


async def test_who_cannot_renew_works_no_more(server: ApiServer, client: Client) -> None:
    a = Candidate(client, "a")
    await a.works()
    server.refuse("update", *[Refusal(500, "InternalError")] * 1000)
    async with asyncio.timeout(SECONDS):
        await a.stopped.wait()
    assert not a.leader.holds()
    server.faults.answers.clear()
    await a.works()
    assert a.terms == [0, 0], "nobody else led in between"
    await a.stop()


async def test_who_is_overtaken_works_no_more(server: ApiServer, client: Client) -> None:
    # Renewing takes so long that only the conflict can tell.
    a = Candidate(client, "a", LeaseTimes(lease=60, renew=50.0, retry=0.05))
    await a.works()
    usurped = {"spec": {"holderIdentity": "c", "leaseTransitions": 5}}
    server.change(resources.LEASES, "bridge", usurped, namespace="dp")
    async with asyncio.timeout(SECONDS):
        await a.stopped.wait()
    assert a.leader.holder == "c"
    await a.stop()
    assert record(server)["holderIdentity"] == "c"


async def test_work_that_ends_or_fails_ends_the_leader(server: ApiServer, client: Client) -> None:
    async def done(_term: int) -> None:
        return

    async def broken(_term: int) -> None:
        raise ZeroDivisionError

    leader = Leader(client, namespace="dp", name="bridge", identity="a", times=TIMES)
    await leader.run(done)
    assert record(server)["holderIdentity"] == ""
    with pytest.raises(ExceptionGroup) as caught:
        await leader.run(broken)
    assert caught.group_contains(ZeroDivisionError)
    assert record(server)["holderIdentity"] == ""
