"""A netlink socket: requests in batches, every acknowledgement read."""

import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from nodeagent.netlink import message
from nodeagent.netlink.message import Link, Message, NetlinkError, Reply

RECEIVE_BYTES = 1 << 18
BATCH = 128
"""Requests per datagram; well below the default socket buffer even with their answers."""

TIMEOUT_SECONDS = 10.0
"""The kernel answers at once; it may have to wait for the routing lock."""


class Channel:
    """Blocking; for one thread at a time.

    It stays in the network namespace of the thread that opens it. protocol: NETLINK_ROUTE, unless
    another one of linux/netlink.h is said.
    """

    def __init__(self, protocol: int = 0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.settimeout(TIMEOUT_SECONDS)
        self._socket.bind((0, 0))
        self._sequence = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def run(self, messages: Sequence[Message]) -> None:
        """Sends requests in order and waits for all answers.

        The kernel goes on after a refused one.

        Raises:
            NetlinkError: the first refusal that its request does not allow.
        """
        refused: NetlinkError | None = None
        for start in range(0, len(messages), BATCH):
            part = messages[start : start + BATCH]
            for request, reply in zip(part, self._exchange(part), strict=True):
                if reply.error and reply.error not in request.allow and refused is None:
                    refused = NetlinkError(reply.error, request.what)
        if refused is not None:
            raise refused

    def _exchange(self, messages: Sequence[Message]) -> list[Reply]:
        """The acknowledgement of each request, in order."""
        first = self._sequence
        self._sequence += len(messages)
        self._socket.send(message.encode_batch(messages, first))
        found: dict[int, Reply] = {}
        while len(found) < len(messages):
            for reply in message.replies(self._socket.recv(RECEIVE_BYTES)):
                # Answers to a call that was given up on come first.
                if reply.type == message.NLMSG_ERROR and reply.sequence >= first:
                    found[reply.sequence] = reply
        return [found[first + offset] for offset in range(len(messages))]

    def _collect(self, request: Message) -> list[Reply]:
        sequence = self._sequence
        self._sequence += 1
        self._socket.send(request.encode(sequence))
        collected: list[Reply] = []
        while True:
            for reply in message.replies(self._socket.recv(RECEIVE_BYTES)):
                if reply.sequence != sequence:
                    continue
                if reply.error:
                    raise NetlinkError(reply.error, request.what)
                if reply.type in (message.NLMSG_DONE, message.NLMSG_ERROR):
                    return collected
                collected.append(reply)

    def link(self, name: str) -> Link:
        """Looks a link up.

        Raises:
            NetlinkError: ENODEV when there is none.
        """
        return message.parse_link(self._collect(message.get_link(name))[0].body)

    def links(self) -> tuple[Link, ...]:
        """All links of the namespace."""
        return tuple(message.parse_link(r.body) for r in self._collect(message.list_links()))

    def dump(self, request: Message) -> list[bytes]:
        """The bodies of a dump's messages."""
        return [reply.body for reply in self._collect(request)]
