"""What befalls replicas and the server: a leader is killed, the server is restarted."""

import asyncio
import os
import signal

import pytest

from tests.kubernetes.bridge import shop
from tests.kubernetes.stage import Stage

RESTART = "DELTAPLANE_TEST_RESTART"
"""A command that restarts the API server, and returns when it answers again."""


async def test_a_standby_goes_on_when_the_leader_is_killed(stage: Stage) -> None:
    await stage.install()
    wanted = shop.records(stage.api.namespace, stage.made)
    async with stage.bridge("one") as one:
        await stage.until_has(wanted)
        async with stage.bridge("two") as two:
            await two.until_follows("one")
            one.process.send_signal(signal.SIGKILL)
            gone = ("pods", "web"), ("services", "outside"), ("networkpolicies", "web")
            await stage.remove(*gone)
            await stage.until_has(shop.without(wanted, *gone))
            now = await two.status()
            assert (now.active, now.leader) == (True, "two")
            lease = await stage.api.ok("GET", f"{stage.api.leases}/deltaplane-bridge")
            assert lease["spec"]["holderIdentity"] == "two"
            assert lease["spec"]["leaseTransitions"] == 1


@pytest.mark.timeout(180)
async def test_it_goes_on_after_the_server_was_restarted(stage: Stage) -> None:
    command = os.environ.get(RESTART)
    if not command:
        pytest.skip(f"{RESTART} is not set: nobody can restart the API server")
    await stage.install()
    wanted = shop.records(stage.api.namespace, stage.made)
    async with stage.bridge("one") as one:
        await stage.until_has(wanted)
        first = ("services", "web"), ("ciliumnetworkpolicies", "team")
        await stage.remove(*first)
        wanted = shop.without(wanted, *first)
        await stage.until_has(wanted)
        process = await asyncio.create_subprocess_shell(command)
        assert await process.wait() == 0
        second = ("pods", "gated"), ("endpointslices", "web-6")
        await stage.remove(*second)
        await stage.until_has(shop.without(wanted, *second))
        assert (await one.status()).active
