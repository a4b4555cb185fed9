"""A process of simulated agents: one connection each, one loop on epoll for all of them.

    python -m bench.scale.fleet        commands on standard input, answers on standard output

asyncio would cost more than the agents do. There is no other thread, so that a change counts as
applied when this loop has come to it: the agents' own queue is in every figure.
"""

import gc
import heapq
import json
import os
import random
import resource
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.scale import commands
from bench.scale.agents import Agent, EndpointAgent, SliceAgent
from bench.scale.decoding import Decoder, Level, decoder_of
from bench.scale.delta_agent import DeltaAgent
from deltaplane.runtime.http2 import Call, CallBroken

RECEIVE_BYTES = 1 << 18
RETRY_SECONDS = (0.05, 0.15)
"""A broken connection comes back after this: at random in between, so that not all come at once."""

TURN_SECONDS = 0.01
"""Messages are taken this long before sockets have their turn."""

SYNC_SECONDS = 0.02
"""How often a command that waits for the agents looks at them."""


@dataclass(slots=True, eq=False)
class Peer:
    """An agent and its connection.

    Attributes:
        due: when it has something to say, nanoseconds; None: not before something comes.
        received: bytes of its former connections.
    """

    agent: Agent
    call: Call | None = None
    sock: socket.socket | None = None
    due: int | None = None
    received: int = 0
    reasons: list[str] = field(default_factory=list)


class Fleet:
    """The agents of this process."""

    def __init__(self) -> None:
        self.peers: dict[int, Peer] = {}
        self._decoder: Decoder[Any, Any] = decoder_of("delta", Level.FULL)
        self._inbox: deque[tuple[Peer, Call, bytes]] = deque()
        self._target = ("127.0.0.1", 0)
        self._epoll = select.epoll()
        self._by_fd: dict[int, Peer] = {}
        self._due: list[tuple[int, int, Peer]] = []
        self._returning: list[tuple[float, int, Peer]] = []
        self._number = 0
        self._input = b""
        self._sync_until: float | None = None
        self._running = True
        self._epoll.register(0, select.EPOLLIN)

    def run(self) -> None:
        """Serves until standard input ends."""
        while self._running:
            for descriptor, events in self._epoll.poll(self._patience()):
                if descriptor == 0:
                    self._read_commands()
                elif (peer := self._by_fd.get(descriptor)) is not None:
                    self._ready(peer, events)
            self._take_messages()
            self._acknowledge()
            self._return()
            if self._sync_until is not None:
                self._check_sync(self._sync_until)

    def _patience(self) -> float:
        if self._inbox:
            return 0.0
        now = time.monotonic()
        until = now + 1.0
        if self._due:
            until = min(until, self._due[0][0] / 1e9)
        if self._returning:
            until = min(until, self._returning[0][0])
        if self._sync_until is not None:
            until = min(until, now + SYNC_SECONDS)
        return max(0.0, until - now)

    # --- connections -----------------------------------------------------------------------------

    def _connect(self, peer: Peer) -> None:
        sock = socket.socket()
        sock.setblocking(False)  # noqa: FBT003 - the socket's own interface
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect_ex(self._target)
        peer.sock = sock
        peer.call = Call(f"{self._target[0]}:{self._target[1]}", peer.agent.path)
        peer.call.send(peer.agent.hello())
        self._by_fd[sock.fileno()] = peer
        self._epoll.register(sock, select.EPOLLIN | select.EPOLLOUT)

    def _disconnect(self, peer: Peer) -> None:
        if peer.sock is not None and peer.call is not None:
            peer.received += peer.call.received_bytes
            self._epoll.unregister(peer.sock)
            del self._by_fd[peer.sock.fileno()]
            peer.sock.close()
        peer.sock = peer.call = peer.due = None

    def _lose(self, peer: Peer, reason: str) -> None:
        self._disconnect(peer)
        peer.agent.in_sync_ns = 0
        peer.reasons.append(reason)
        self._number += 1
        at = time.monotonic() + random.uniform(*RETRY_SECONDS)
        heapq.heappush(self._returning, (at, self._number, peer))

    def _return(self) -> None:
        now = time.monotonic()
        while self._returning and self._returning[0][0] <= now:
            peer = heapq.heappop(self._returning)[2]
            if peer.sock is None:
                self._connect(peer)

    def _ready(self, peer: Peer, events: int) -> None:
        sock, call = peer.sock, peer.call
        if sock is None or call is None:
            return
        try:
            if events & (select.EPOLLIN | select.EPOLLERR | select.EPOLLHUP):
                data = sock.recv(RECEIVE_BYTES)
                if not data:
                    self._lose(peer, "the server closed the connection")
                    return
                self._inbox.extend((peer, call, message) for message in call.receive(data))
            self._send(peer, sock, call, had_to_wait=bool(events & select.EPOLLOUT))
        except BlockingIOError:
            return
        except (OSError, CallBroken) as error:
            self._lose(peer, str(error))
            return
        if call.ended is not None:
            self._lose(peer, call.ended.reason)

    def _take_messages(self) -> None:
        """Gives messages to their agents, in the order in which they came, for a while.

        Sockets have to be looked after in between: a server gives up on clients whose answers to
        its PINGs are late.
        """
        until = time.monotonic() + TURN_SECONDS
        while self._inbox and time.monotonic() < until:
            peer, call, message = self._inbox.popleft()
            if peer.call is not call:
                continue  # of a connection that is gone
            try:
                peer.agent.receive(message)
            except CallBroken as error:
                self._lose(peer, str(error))
                continue
            due = peer.agent.due_ns()
            if due is not None and (peer.due is None or due < peer.due):
                peer.due = due
                self._number += 1
                heapq.heappush(self._due, (due, self._number, peer))

    def _send(self, peer: Peer, sock: socket.socket, call: Call, *, had_to_wait: bool) -> None:
        out = call.take_outgoing()
        if out:
            try:
                sent = sock.send(out)
            except BlockingIOError:
                sent = 0
            if sent < len(out):
                call.put_back(out[sent:])
                self._epoll.modify(sock, select.EPOLLIN | select.EPOLLOUT)
                return
        if had_to_wait and peer.sock is sock:
            self._epoll.modify(sock, select.EPOLLIN)

    def _acknowledge(self) -> None:
        now = time.monotonic_ns()
        while self._due and self._due[0][0] <= now:
            due, _, peer = heapq.heappop(self._due)
            if due != peer.due:
                continue  # it had something to say earlier
            peer.due = None
            if peer.call is None or peer.sock is None:
                continue
            if (message := peer.agent.poll(now)) is not None:
                peer.call.send(message)
                try:
                    self._send(peer, peer.sock, peer.call, had_to_wait=False)
                except OSError as error:
                    self._lose(peer, str(error))

    # --- commands --------------------------------------------------------------------------------

    def _read_commands(self) -> None:
        data = os.read(0, RECEIVE_BYTES)
        if not data:
            self._running = False
            return
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            self._do(json.loads(line))

    def _do(self, command: Mapping[str, Any]) -> None:
        agents = {index: peer.agent for index, peer in self.peers.items()}
        match command["do"]:
            case "connect":
                self._start(command)
                _say({})
            case "cut":
                for peer in self.peers.values():
                    self._disconnect(peer)
                    self._connect(peer)
                _say({})
            case "sync":
                self._sync_until = time.monotonic() + command["seconds"]
            case "stats":
                _say(self._stats())
            case "close":
                for peer in self.peers.values():
                    self._disconnect(peer)
                self.peers.clear()
                _say({})
            case _:
                _say(commands.answer(agents, command) or {})

    def _start(self, command: Mapping[str, Any]) -> None:
        self._target = (command["host"], command["port"])
        self._decoder = decoder_of(command["mode"], Level(command["level"]))
        for index in command["nodes"]:
            self.peers[index] = Peer(self._agent(command["mode"], index))
            self._connect(self.peers[index])

    def _agent(self, mode: str, index: int) -> Agent:
        clock = time.monotonic_ns
        match mode:
            case "delta":
                return DeltaAgent(f"node-{index}", f"uid-node-{index}", self._decoder, clock)
            case "slice":
                return SliceAgent(self._decoder, clock)
            case _:
                return EndpointAgent(self._decoder, clock)

    def _check_sync(self, until: float) -> None:
        in_sync = all(peer.agent.in_sync_ns for peer in self.peers.values())
        if in_sync or time.monotonic() > until:
            self._sync_until = None
            _say(self._stats())

    def _stats(self) -> dict[str, object]:
        peers = self.peers.values()
        received = sum(p.received + (p.call.received_bytes if p.call else 0) for p in peers)
        found = commands.stats([peer.agent for peer in peers], received=received)
        reasons = [reason for peer in peers for reason in peer.reasons]
        found |= {"lost": len(reasons), "reasons": sorted(set(reasons))[:3]}
        return found | {"decoded": self._decoder.decoded, "reused": self._decoder.reused}


def _say(answer: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    """The whole process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Millions of decoded objects live as long as the process: looking for cycles among them would
    # stop all agents for seconds. Nothing here makes cycles.
    gc.disable()
    Fleet().run()


if __name__ == "__main__":
    main()
