"""Probes: does a server in one pod answer another pod?

Runs inside a pod host. "allowed" means that the *right pod* answered: a TCP server sends its name
after the handshake, a UDP server puts it before what it echoes. Dropped packets show as a time-out,
so every try is short and there is more than one.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from lab import netns

CONCURRENT = 256
"""Probes in flight per pod host: enough that 300 ms of waiting overlap, few enough for the loop to
keep time.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One question.

    Attributes:
        netns: network namespace to ask from.
        address: textual IPv4 or IPv6 address.
        port: 1..65535.
        protocol: "TCP" or "UDP".
        expect: "namespace/pod" that must answer.
        http: it is asked in HTTP.
    """

    netns: str
    address: str
    port: int
    protocol: str
    expect: str = ""
    http: bool = False


async def run(probes: Sequence[Probe], *, timeout: float, tries: int) -> list[str]:
    """Runs all probes, in parallel but bounded; outcomes in request order.

    Args:
        probes: what to ask.
        timeout: seconds per try.
        tries: a probe is allowed when one of its tries is; refusals are final.

    Returns:
        For each probe "allowed", "timeout", "refused", or "wrong: …" when somebody else answered.
    """
    gate = asyncio.Semaphore(CONCURRENT)

    async def one(probe: Probe) -> str:
        outcome = "timeout"
        async with gate:
            for _ in range(tries):
                outcome = await attempt(probe, timeout)
                if outcome != "timeout":
                    break
        return outcome

    return await asyncio.gather(*(one(probe) for probe in probes))


async def call(probe: Probe, *, times: int, timeout: float) -> list[str]:
    """Calls so many times, one after the other, each from a fresh source port.

    Returns:
        For each call "namespace/pod" that answered, "timeout" after so many seconds, or "refused".
    """
    answers = []
    for _ in range(times):
        outcome = await attempt(probe, timeout)
        answers.append(outcome.removeprefix("answered: "))
    return answers


async def attempt(probe: Probe, timeout: float) -> str:
    """One try of one probe with a fresh source port; outcomes as in `run`."""
    kind = socket.SOCK_STREAM if probe.protocol == "TCP" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if ":" in probe.address else socket.AF_INET
    try:
        with netns.entered(probe.netns):
            connection = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    except OSError as error:
        return f"wrong: {error}"
    with contextlib.closing(connection):
        try:
            async with asyncio.timeout(timeout):
                answer = await _ask(connection, probe)
        except TimeoutError:
            return "timeout"
        except ConnectionError:
            return "refused"
        except OSError:
            # No route, or an ICMP error on the way.
            return "refused"
    if answer and not probe.expect:
        return f"answered: {answer}"
    if answer == probe.expect:
        return "allowed"
    return f"wrong: {answer!r} answered" if answer else "refused"


async def _ask(connection: socket.socket, probe: Probe) -> str:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, (probe.address, probe.port))
    if probe.protocol == "TCP":
        # Closing sends a reset: no TIME_WAIT piles up over thousands of probes.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if probe.http:
            return await _ask_http(connection)
        greeting = b""
        while not greeting.endswith(b"\n") and (more := await loop.sock_recv(connection, 512)):
            greeting += more
        return greeting.decode().strip()
    await loop.sock_sendall(connection, b"?")
    answer = await loop.sock_recv(connection, 512)
    return answer.decode().partition(" ")[0]


async def _ask_http(connection: socket.socket) -> str:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, b"GET / HTTP/1.0\r\n\r\n")
    answer = b""
    while more := await loop.sock_recv(connection, 4096):
        answer += more
    return answer.rpartition(b"\r\n\r\n")[2].decode().strip()
